"""Alert rules and dashboard: held against the metrics, and run by the real Prometheus."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import requests
import yaml
from redis import Redis
from rich.console import Console

from data.metrics import metric_names
from data.secscan.status import IndexStatus
from data.settings import build_settings
from tests import monitoring
from tests.monitoring import ALERT_TESTS, ALERTS, RATE_INTERVAL, metrics_in
from tests.servers import free_port, wait_until
from tests.systemtools import PROMETHEUS, PROMTOOL
from tests.workers.ops.conftest import Running, ops_config, serving
from tests.workers.ops.opsdata import fill
from workers.demo.__main__ import play
from workers.demo.environment import Environment, running_environment
from workers.demo.interruption import Interruption
from workers.wiring import build_reporter

ALERT_NAMES = {rule["alert"] for rule in monitoring.alert_rules()}


def test_alerts_and_dashboard_use_metrics_that_exist() -> None:
    used = metrics_in(ALERTS.read_text()) | metrics_in(" ".join(monitoring.dashboard_queries()))
    assert used <= metric_names()


def test_every_metric_is_on_the_dashboard() -> None:
    shown = metrics_in(" ".join(monitoring.dashboard_queries()))
    assert shown == metric_names()


def test_every_alert_says_what_is_wrong_and_how_urgent_it_is() -> None:
    for rule in monitoring.alert_rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_every_alert_is_seen_firing_and_seen_silent() -> None:
    """A rule that no unit test has seen both ways may be one that never or always fires."""
    firing: set[str] = set()
    silent: set[str] = set()
    for test in yaml.safe_load(ALERT_TESTS.read_text())["tests"]:
        for case in test["alert_rule_test"]:
            (firing if case.get("exp_alerts") else silent).add(case["alertname"])
    assert firing == silent == ALERT_NAMES


def test_queries_hold_with_several_ops_servers() -> None:
    """Each shows the same totals, so a sum or average over them would tell a multiple."""
    rules = [rule["expr"] for rule in monitoring.alert_rules()]
    for query in [*monitoring.dashboard_queries(), *rules]:
        assert "avg" not in query
        for summed in query.split("sum")[1:]:
            assert summed.partition("(")[2].startswith(("max by", "outcome) (max", "reason) (max"))


def test_console_shows_the_same_dashboard() -> None:
    stored = yaml.safe_load(monitoring.CONSOLE.read_text())
    assert stored == monitoring.console_config_map()
    kubernetes_validate.validate(stored, "1.30", strict=True)


def promtool(*arguments: str) -> str:
    assert PROMTOOL.path is not None
    done = subprocess.run([PROMTOOL.path, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


if PROMTOOL.path is not None:

    def test_promtool_accepts_the_rules() -> None:
        assert f"{len(ALERT_NAMES)} rules found" in promtool("check", "rules", str(ALERTS))

    def test_promtool_passes_the_unit_tests_of_the_rules() -> None:
        promtool("test", "rules", str(ALERT_TESTS))

    def test_prometheus_runs_every_query_and_rule_on_the_real_ops_server(
        prometheus: Prometheus,
    ) -> None:
        for query in monitoring.dashboard_queries():
            asked = query.replace(RATE_INTERVAL, "10s")
            # One scrape that a busy machine was too slow for leaves all series stale for a second.
            wait_until(lambda each=asked: bool(prometheus.query(each)), 30, f"series of {asked}")  # type: ignore[misc]
        rules = prometheus.rules()
        assert {rule["name"] for rule in rules} == ALERT_NAMES
        assert {rule["health"] for rule in rules} == {"ok"}, rules
        # The blob that was given up before the first scrape was never seen to be.
        assert {rule["name"] for rule in rules if rule["state"] != "inactive"} == set()

    @pytest.mark.timeout(300)
    def test_every_query_has_data_of_the_demo(tmp_path: Path) -> None:
        """From the proxied pull to the scan, by the demo's own processes: no series, no NaN."""
        with monitored_demo(tmp_path) as (environment, prometheus):
            report = play(environment, None, Console(quiet=True), quiet=True)
            assert report.ok
            scanned = sum(row.after == IndexStatus.COMPLETED for row in report.rows)
            jobs = 'max by (outcome) (quay_rescan_jobs_total{reason="event",outcome="completed"})'
            wait_until(
                lambda: values(prometheus.query(jobs)) == [scanned], 30, "the last job is counted"
            )
            for query in monitoring.dashboard_queries():
                asked = query.replace(RATE_INTERVAL, "5m")
                # Some of it is counted once a minute, so it may not have been there at first.
                wait_until(lambda each=asked: has_data(prometheus, each), 75, f"data of {asked}")  # type: ignore[misc]
            rows = prometheus.query("quay_proxy_cache_blob_bytes_total > 0")
            assert rows[0]["metric"]["job"] == "quay-rescan"

    def test_format_of_the_metrics_is_as_prometheus_wants_it(busy: Running) -> None:
        metrics = busy.get("/metrics").text
        done = subprocess.run(
            [str(PROMTOOL.path), "check", "metrics"], input=metrics, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def has_data(prometheus: Prometheus, query: str) -> bool:
    return any(not math.isnan(value) for value in values(prometheus.query(query)))


class Prometheus:
    """A real one, which scrapes the ops server once a second."""

    def __init__(self, directory: Path, target: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        config = directory / "prometheus.yml"
        scrape = {
            "job_name": "quay-rescan",
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "static_configs": [{"targets": [target.removeprefix("http://")]}],
        }
        settings = {
            "global": {"evaluation_interval": "500ms"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [scrape],
        }
        config.write_text(yaml.safe_dump(settings))
        command = [
            str(PROMETHEUS.path),
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--log.level=error",
        ]
        self.process = subprocess.Popen(command)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def get(self, path: str, **parameters: str) -> Any:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def query(self, query: str) -> list[Any]:
        found: list[Any] = self.get("query", query=query)["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def is_ready(self) -> bool:
        """Whether it has scraped a few times, and evaluated every rule."""
        try:
            if not requests.get(f"{self.url}/-/ready", timeout=10).ok:
                return False
            scraped = self.query("count_over_time(quay_rescan_workers[1m]) > 2")
            return bool(scraped) and all(rule["health"] != "unknown" for rule in self.rules())
        except requests.ConnectionError:
            return False


def values(found: list[Any]) -> list[float]:
    return [float(each["value"][1]) for each in found]


@contextmanager
def monitored_demo(directory: Path) -> Iterator[tuple[Environment, Prometheus]]:
    """The demo, about to begin, with an ops server beside it that Prometheus scrapes already."""
    log: list[str] = []
    with running_environment(Interruption(), log, log.append) as environment:
        config = yaml.safe_load(environment.workers.config.read_text())
        port = free_port()
        path = directory / "ops.yaml"
        path.write_text(yaml.safe_dump(config | {"RESCAN_OPS_LISTEN": f"127.0.0.1:{port}"}))
        command = [sys.executable, "-m", "workers.opsserver", "--config", str(path)]
        with (directory / "ops.log").open("w") as stream:
            ops = subprocess.Popen(command, stderr=stream)
        prometheus = Prometheus(directory, f"http://127.0.0.1:{port}")
        try:
            wait_until(prometheus.is_ready, 60, "Prometheus has scraped the demo's ops server")
            yield environment, prometheus
        finally:
            prometheus.stop()
            ops.terminate()
            ops.wait(20)


@pytest.fixture
def busy(
    sqlite_database: str, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    settings = build_settings(ops_config(sqlite_database, redis, tmp_path), tmp_path)
    filled = fill(settings)
    build_reporter(settings).swept(stuck=0, enqueued=0)
    with serving(settings, monkeypatch, filled) as running:
        yield running


@pytest.fixture
def prometheus(busy: Running, tmp_path: Path) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path, busy.url)
    try:
        wait_until(server.is_ready, 30, "Prometheus has scraped the ops server")
        yield server
    finally:
        server.stop()
