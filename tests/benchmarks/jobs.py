"""Rescan jobs a second through one worker, beside RQ's own worker of its class on no-op jobs.

The scanner stand-in fetches and reads every layer, as Clair would, so this is less than a scanner
that answers at once would allow; the README beside this file has the figure and the reason.
"""

from __future__ import annotations

import logging
import time
from statistics import median

from rq import Queue, SimpleWorker

from data.secscan.status import Reason
from data.settings import WorkerType
from queues.rescanqueue import RescanQueue
from tests.benchmarks.site import Site
from workers import rescanworker
from workers.process import Process, Stop

JOBS = 150


def do_nothing(number: int) -> None:
    """RQ's no-op job."""


def measure(site: Site, *, rounds: int) -> dict[str, float | None]:
    logging.disable(logging.INFO)  # both would write a line or more a job
    ratios = [rescans_per_second(site) / no_ops_per_second(site) for _ in range(rounds)]
    return {
        "ratio_to_noop": round(median(ratios), 2),
        "two_workers": None,
        "scanner_busy_16": None,
    }


def no_ops_per_second(site: Site) -> float:
    queue = Queue("no-op", connection=site.redis, serializer="json")
    for number in range(JOBS):
        queue.enqueue(do_nothing, number)
    worker = SimpleWorker([queue], connection=site.redis, serializer="json")
    started = time.perf_counter()
    worker.work(burst=True, logging_level=None)
    return JOBS / (time.perf_counter() - started)


def rescans_per_second(site: Site) -> float:
    queue = RescanQueue("rescan", connection=site.redis)
    for _ in range(JOBS):
        manifest_id, _, layer = site.image()
        site.place(layer)
        queue.enqueue_rescan(manifest_id, Reason.EVENT, timeout=660)
    process = Process(
        worker=WorkerType.RESCAN, settings=site.settings, config=None, burst=True, stop=Stop()
    )
    worker = rescanworker.prepare(process, backfill=False)
    started = time.perf_counter()
    worker.work(burst=True, logging_level=None)
    return JOBS / (time.perf_counter() - started)
