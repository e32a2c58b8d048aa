"""`python -m tests.benchmarks`: every figure in one run, as a table or as one JSON object.

What is not measured, by this version or by `--quick`, is null: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable

import structlog
from rich.console import Console
from rich.table import Table

from tests.benchmarks import completion, download, enqueue, jobs, last_blob_to_index, start
from tests.benchmarks.site import Site, running_site

Figures = dict[str, float | None]
NOT_MEASURED: dict[str, Figures] = {
    "lanes": {"p99_ms_behind_100k": None, "index_calls_for_1000_repositories": None},
}
GOALS = {
    ("last_blob_to_index", "p50_ms"): "at most 10",
    ("last_blob_to_index", "p99_ms"): "at most 40",
    ("last_blob_to_index", "times_sooner_than_cycle"): "1,000",
    ("completion", "statements"): "at most 2",
    ("completion", "times_faster_than_per_blob_1000"): "at least 50",
    ("completion", "times_faster_than_per_manifest_1000"): "at least 20",
    ("jobs", "ratio_to_noop"): "at least 0.8",
    ("enqueue", "ratio_to_rq"): "at least 0.9",
    ("enqueue", "bulk_per_s"): "at least 10,000",
    ("enqueue", "bytes_per_job"): "at most 600",
    ("enqueue", "status_ms_1m"): "at most 5",
    ("download", "ratio_large"): "at least 0.9",
    ("download", "ratio_small"): "at least 3",
    ("download", "rss_growth_mib"): "at most 64",
    ("start", "ready_s"): "at most 1",
    ("start", "idle_rss_mib"): "at most 80",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within a minute, with fewer figures")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    console = Console(stderr=arguments.json)
    with running_site() as site:
        figures = measure_all(site, console, quick=arguments.quick)
    if arguments.json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    else:
        print_table(figures, console)
    return 0


def measure_all(site: Site, console: Console, *, quick: bool) -> dict[str, Figures]:
    rounds = 5
    parts: dict[str, Callable[[], Figures]] = {
        "last_blob_to_index": lambda: last_blob_to_index.measure(
            site, rounds=100 if quick else 500, cycle_rounds=0 if quick else 5
        ),
        "completion": lambda: completion.measure(site, rounds=rounds),
        "jobs": lambda: jobs.measure(site, rounds=rounds),
        "enqueue": lambda: enqueue.measure(site, rounds=rounds, large=None if quick else 1_000_000),
        "download": lambda: download.measure(site, quick=quick),
        "start": lambda: start.measure(site, rounds=rounds),
    }
    figures: dict[str, Figures] = {}
    for name, measure in parts.items():
        console.print(f"measuring {name} ..", style="dim")
        figures[name] = measure()
    return figures | NOT_MEASURED


def print_table(figures: dict[str, Figures], console: Console) -> None:
    table = Table(title=f"On {os.cpu_count()} cores, medians of at least five rounds")
    for column in ("what", "figure", "measured", "goal"):
        table.add_column(column, justify="right" if column == "measured" else "left")
    for part, values in figures.items():
        for name, value in values.items():
            shown = "not measured" if value is None else f"{value:,}"
            table.add_row(part, name, shown, GOALS.get((part, name), ""))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
