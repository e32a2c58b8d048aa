"""Rescan jobs a second, with a scanner that answers at once or takes its time.

One worker is held against RQ's own worker of its class on RQ's no-op jobs, both in this process and
in burst mode. Several workers are processes of their own.
"""

from __future__ import annotations

import time
from statistics import median

from rq import Queue, SimpleWorker

from data.models import database_proxy
from data.secscan.status import Reason
from data.settings import WorkerType
from tests.benchmarks.growth import Curve, Growth
from tests.benchmarks.scanner import BenchScanner, Call, bench_scanner
from tests.benchmarks.site import Site
from workers import rescanworker
from workers.process import Process, Stop

JOBS = 200
# What the scanner takes for two workers beside one, and for sixteen. Clair takes seconds.
TWO_SECONDS, SIXTEEN_SECONDS = 0.05, 0.5
SIXTEEN = 16
TWO_JOBS = 60


def do_nothing(number: int) -> None:
    """RQ's no-op job."""


def measure(site: Site, growth: Growth, *, rounds: int, quick: bool) -> dict[str, float | None]:
    """With `quick` only the ratio to no-op jobs."""
    with bench_scanner() as scanner:
        pairs = [
            (rescans_per_second(site, scanner, JOBS), no_ops_per_second(site))
            for _ in range(rounds)
        ]
        ratio = round(median(ours / theirs for ours, theirs in pairs), 2)
        if quick:
            return {"ratio_to_noop": ratio}
        for queued in (JOBS // 10, JOBS, JOBS * 10):
            growth.add(Curve.JOBS, queued, 1000 / rescans_per_second(site, scanner, queued))
    with bench_scanner(TWO_SECONDS) as scanner:
        one, two = (jobs_per_second(site, scanner, workers, rounds) for workers in (1, 2))
    with bench_scanner(SIXTEEN_SECONDS) as scanner:
        busy = share_of_slots(site, scanner, SIXTEEN)
    return {
        "ratio_to_noop": ratio,
        "two_workers": round(two / one, 2),
        "scanner_busy_16": round(busy, 3),
    }


def no_ops_per_second(site: Site) -> float:
    queue = Queue("no-op", connection=site.redis, serializer="json")
    for number in range(JOBS):
        queue.enqueue(do_nothing, number)
    worker = SimpleWorker([queue], connection=site.redis, serializer="json")
    started = time.perf_counter()
    worker.work(burst=True, logging_level=None)
    return JOBS / (time.perf_counter() - started)


def rescans_per_second(site: Site, scanner: BenchScanner, jobs: int) -> float:
    enqueue_images(site, jobs)
    process = Process(
        worker=WorkerType.RESCAN,
        settings=site.settings_with(SECURITY_SCANNER_V4_ENDPOINT=scanner.endpoint),
        config=None,
        burst=True,
        stop=Stop(),
    )
    worker = rescanworker.prepare(process, backfill=False)
    started = time.perf_counter()
    worker.work(burst=True, logging_level=None)
    return jobs / (time.perf_counter() - started)


def enqueue_images(site: Site, count: int) -> None:
    with database_proxy.atomic():
        manifests = [site.write_complete_image().manifest_id for _ in range(count)]
    site.queue.enqueue_rescans(manifests, Reason.EVENT, timeout=660)


def jobs_per_second(site: Site, scanner: BenchScanner, workers: int, rounds: int) -> float:
    """From the first index call to the last answer; the median of the rounds."""
    jobs = workers * TWO_JOBS // 2
    with site.rescan_workers(workers, scanner=scanner):
        spans = [calls_of(site, scanner, jobs) for _ in range(rounds)]
    return median(jobs * 1e9 / (calls[-1].at_ns - calls[0].at_ns) for calls in spans)


def share_of_slots(site: Site, scanner: BenchScanner, slots: int) -> float:
    """How much of all slots was in use while there was work: all had begun, none had run out."""
    with site.rescan_workers(slots, scanner=scanner):
        calls = calls_of(site, scanner, slots * 20)
    begun, in_use, used_ns = 0, 0, 0
    last_arrival = max(call.at_ns for call in calls if call.arrived)
    previous = 0
    for call in calls:
        if begun and call.at_ns <= last_arrival:
            used_ns += in_use * (call.at_ns - previous)
        in_use += 1 if call.arrived else -1
        begun = begun or (call.at_ns if in_use == slots else 0)
        previous = call.at_ns
    return used_ns / (slots * (last_arrival - begun))


def calls_of(site: Site, scanner: BenchScanner, jobs: int) -> list[Call]:
    """All that the scanner sees of so many jobs, in order."""
    enqueue_images(site, jobs)
    calls = [scanner.next_call() for _ in range(2 * jobs)]
    return sorted(calls, key=lambda call: call.at_ns)
