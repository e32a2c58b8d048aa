"""`python -m tests.benchmarks`: every figure in one run, as a table or as one JSON object.

`--quick` leaves out what takes long; that is null. Plots go into a folder: see README.md beside
this file for what they show and why.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

from tests.benchmarks import (
    completion,
    completion_engines,
    download,
    enqueue,
    jobs,
    lanes,
    last_blob_to_index,
    start,
    sweep,
)
from tests.benchmarks.growth import Growth
from tests.benchmarks.largetables import MANIFESTS, build_large_tables
from tests.benchmarks.site import Site, running_site

Figures = dict[str, float | None]
ROUNDS, QUICK_ROUNDS = 5, 3
PLOTS = Path("build/benchmarks")
# Of each part all figures, in the order of the table, with what is wanted of them.
GOALS: dict[str, dict[str, str]] = {
    "last_blob_to_index": {
        "p50_ms": "at most 10",
        "p99_ms": "at most 40",
        "cycle_p50_ms": "",
        "times_sooner_than_cycle": "1,000",
    },
    "completion": {
        "statements": "at most 2",
        "times_faster_than_per_blob_1000": "at least 50",
        "times_faster_than_per_manifest_1000": "at least 20",
        "p99_ms_large": "at most 10",
    },
    "jobs": {
        "ratio_to_noop": "at least 0.8",
        "two_workers": "at least 1.8",
        "scanner_busy_16": "at least 0.95",
    },
    "enqueue": {
        "ratio_to_rq": "at least 0.9",
        "bulk_per_s": "at least 10,000",
        "bytes_per_job": "at most 600",
        "status_ms_1m": "at most 5",
    },
    "download": {
        "ratio_large": "at least 0.9",
        "ratio_small": "at least 3",
        "rss_growth_mib": "at most 64",
        "ratio_large_s3": "at least 0.9",
        "ratio_small_s3": "at least 3",
        "rss_growth_mib_s3": "at most 64",
    },
    "lanes": {
        "p99_ms_behind_100k": "at most 1,000",
        "index_calls_for_1000_repositories": "at most 2",
    },
    "start": {"ready_s": "at most 1", "idle_rss_mib": "at most 80"},
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within a minute, with fewer figures")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--plots", type=Path, default=PLOTS, help=f"folder (default: {PLOTS})")
    parser.add_argument("--only", choices=sorted(GOALS), help="one part alone")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.disable(logging.INFO)  # RQ's workers would write lines for every job
    console = Console(stderr=arguments.json)
    growth = Growth()
    with running_site() as site:
        figures = measure_all(site, growth, console, quick=arguments.quick, only=arguments.only)
    if arguments.json:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    else:
        print_table(figures, console)
        print_growth(growth, console)
    if not arguments.quick and arguments.only in (None, "completion"):
        console.print(completion_engines.table_of(completion_engines.measure(rounds=ROUNDS)))
    if drawn := growth.draw(arguments.plots):
        console.print(f"{len(drawn)} plots in {arguments.plots}")
    return 0


def measure_all(
    site: Site, growth: Growth, console: Console, *, quick: bool, only: str | None = None
) -> dict[str, Figures]:
    """The figures of all parts; those that weren't measured are None."""
    figures: dict[str, Figures] = {part: dict.fromkeys(names) for part, names in GOALS.items()}
    for part, measure in parts_of(site, growth, quick=quick).items():
        if only not in (None, part):
            continue
        console.print(f"measuring {part.replace('_', ' ')} ..", style="dim", end=" ")
        started = time.monotonic()
        figures[part] |= measure()
        console.print(f"{time.monotonic() - started:.0f} s", style="dim")
    if not quick and only in (None, "lanes", "completion"):
        measure_large(site, growth, console, figures, only)
    return figures


def parts_of(site: Site, growth: Growth, *, quick: bool) -> dict[str, Callable[[], Figures]]:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    parts: dict[str, Callable[[], Figures]] = {
        "last_blob_to_index": lambda: last_blob_to_index.measure(
            site, growth, rounds=30 if quick else 200, cycle=not quick
        ),
        "start": lambda: start.measure(site, growth, rounds=rounds),
        "completion": lambda: completion.measure(site, growth, rounds=rounds, quick=quick),
        "jobs": lambda: jobs.measure(site, growth, rounds=rounds, quick=quick),
        "enqueue": lambda: enqueue.measure(
            site, growth, rounds=rounds, large=None if quick else enqueue.LARGE
        ),
    }
    if not quick:
        parts["download"] = lambda: download.measure(site, growth)
    return parts


def measure_large(
    site: Site, growth: Growth, console: Console, figures: dict[str, Figures], only: str | None
) -> None:
    """What is measured in tables of a million manifests."""
    console.print(f"filling tables with {MANIFESTS:,} manifests ..", style="dim", end=" ")
    started = time.monotonic()
    tables = build_large_tables(site)
    console.print(f"{time.monotonic() - started:.0f} s", style="dim")
    if only != "lanes":
        figures["completion"] |= completion.measure_large(tables, growth)
    if only != "completion":
        figures["lanes"] |= lanes.measure(site, tables, growth)
    if only is None:
        last_blob_to_index.measure_large(site, growth, tables)
        start.measure_large(site, growth, tables)
        sweep.measure_large(site, growth, tables)


def print_table(figures: dict[str, Figures], console: Console) -> None:
    table = Table(title=f"On {os.cpu_count()} cores, medians")
    for column in ("what", "figure", "measured", "goal"):
        table.add_column(
            column, justify="right" if column == "measured" else "left", overflow="fold"
        )
    for part, values in figures.items():
        for name, value in values.items():
            shown = "not measured" if value is None else f"{value:,}"
            table.add_row(part, name, shown, GOALS[part][name])
    console.print(table)


def print_growth(growth: Growth, console: Console) -> None:
    table = Table(title="How each cost grows; the steepest step: 0 constant, 1 linear")
    for column in ("what", "least", "most", "step"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for curve, points in growth.points.items():
        exponent = growth.steepest(curve)
        if exponent is not None:
            ends = [f"{work:,}: {points[work]:,.1f} ms" for work in (min(points), max(points))]
            table.add_row(f"{curve.title}, by {curve.axis}", *ends, f"{exponent:.2f}")
    if table.row_count:
        console.print(table)


if __name__ == "__main__":
    sys.exit(main())
