"""What Prometheus and the OpenShift console make of our files in `conf/`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).parent.parent / "conf"
ALERTS = CONF / "alerts.yaml"
ALERT_TESTS = CONF / "alerts_test.yaml"
DASHBOARD = CONF / "grafana-dashboard.json"
CONSOLE = CONF / "openshift-dashboard.yaml"
METRIC = re.compile(r"\bquay_\w+")
# Grafana fills this in by the zoom of a panel; the console has no such variable.
RATE_INTERVAL, CONSOLE_INTERVAL = "$__rate_interval", "5m"


def alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def dashboard_queries() -> list[str]:
    return [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])
    ]


def metrics_in(text: str) -> set[str]:
    """The names of our metrics in a query, without the suffixes of a histogram's series."""
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in METRIC.findall(text)}


def console_rows(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of the older form of a dashboard, which the console reads."""
    row: dict[str, Any] = {}
    for panel in board["panels"]:
        if panel["type"] == "row":
            if row:
                yield row
            row = {"title": panel["title"], "panels": []}
        else:
            row["panels"].append(console_panel(panel))
    yield row


def console_panel(panel: dict[str, Any]) -> dict[str, Any]:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    stacked = "stacking" in panel["fieldConfig"]["defaults"].get("custom", {})
    common = {
        "title": panel["title"],
        "description": panel["description"],
        "datasource": "prometheus",
        "span": panel["gridPos"]["w"] // 2,
        "targets": [
            {
                "expr": target["expr"].replace(RATE_INTERVAL, CONSOLE_INTERVAL),
                "legendFormat": target["legendFormat"],
                "format": "time_series",
                "refId": target["refId"],
            }
            for target in panel["targets"]
        ],
    }
    if panel["type"] == "stat":
        return common | {"type": "singlestat", "format": unit, "valueName": "current"}
    axes = [{"format": unit, "min": 0, "show": True}, {"format": "short", "show": False}]
    return common | {"type": "graph", "stack": stacked, "yaxes": axes}


def console_config_map() -> dict[str, Any]:
    """The ConfigMap that shows the dashboard in the OpenShift console, Observe > Dashboards."""
    board = dashboard()
    content = {
        "title": board["title"],
        "uid": board["uid"],
        "schemaVersion": 16,
        "time": board["time"],
        "refresh": board["refresh"],
        "rows": list(console_rows(board)),
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "dashboard-quay-rescan",
            "namespace": "openshift-config-managed",
            "labels": {"console.openshift.io/dashboard": "true"},
        },
        "data": {"quay-rescan.json": json.dumps(content, indent=2) + "\n"},
    }
