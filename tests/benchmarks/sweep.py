"""A sweep over tables in which a handful of manifests are stuck and all others are COMPLETED."""

from __future__ import annotations

import time

from data.settings import WorkerType
from tests.benchmarks.growth import Curve, Growth
from tests.benchmarks.largetables import LargeTables, complete_all_but
from tests.benchmarks.site import Site
from workers.process import Process, Stop
from workers.sweepworker import build_sweeper

STUCK = 100


def measure_large(site: Site, growth: Growth, tables: LargeTables) -> None:
    """Adds the milliseconds of a whole sweep."""
    complete_all_but(site, tables.waiting_ids[-STUCK:])
    site.redis.flushall()
    process = Process(
        worker=WorkerType.SWEEP, settings=site.settings, config=None, burst=True, stop=Stop()
    )
    sweeper = build_sweeper(process)
    started = time.perf_counter()
    swept = sweeper.sweep(lambda: False)
    seconds = time.perf_counter() - started
    if swept is None or swept.enqueued != STUCK:
        raise RuntimeError(f"{STUCK} manifests are stuck, and the sweep found: {swept}")
    growth.add(Curve.SWEEP, tables.manifests, seconds * 1000)
