"""Enqueues a second, beside RQ's own unique enqueue; memory of a job; what `status` costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from redis import Redis
from rq import Queue

from data.secscan.status import Reason
from queues.rescanqueue import RescanQueue, job_id_of
from tests.benchmarks.growth import Curve, Growth
from tests.benchmarks.site import Site

ONE_BY_ONE = 1500
BULK = 20_000
LARGE = 1_000_000


def measure(
    site: Site, growth: Growth, *, rounds: int, large: int | None
) -> dict[str, float | None]:
    """`large`: how many jobs are queued when the cost of `status` is measured; None: it isn't."""
    redis = site.redis
    ours = RescanQueue("bench", connection=redis)
    theirs = Queue("bench-rq", connection=redis, serializer="json")

    def enqueue_ours() -> None:
        for number in range(ONE_BY_ONE):
            ours.enqueue_rescan(number, Reason.EVENT, timeout=660)

    def enqueue_theirs() -> None:
        for number in range(ONE_BY_ONE):
            theirs.enqueue("module.function", number, unique=True, job_id=f"job-{number}")

    ratios = [
        rate(enqueue_ours, redis, ONE_BY_ONE) / rate(enqueue_theirs, redis, ONE_BY_ONE)
        for _ in range(rounds)
    ]

    def enqueue_bulk() -> None:
        ours.enqueue_rescans(range(BULK), Reason.SWEEP, timeout=660)

    bulk = median(rate(enqueue_bulk, redis, BULK) for _ in range(rounds))
    redis.flushall()
    enqueue_bulk()
    per_job = bytes_per_job(redis, ours)
    status = measure_growth(ours, growth, large) if large else None
    redis.flushall()
    return {
        "ratio_to_rq": round(median(ratios), 2),
        "bulk_per_s": round(bulk),
        "bytes_per_job": round(per_job),
        "status_ms_1m": status,
    }


def bytes_per_job(redis: Redis, queue: RescanQueue) -> float:
    """Of the job's hash, in the mean of a thousand, and its share of the list."""
    sample = [redis.memory_usage(f"rq:job:{job_id_of(number)}") or 0 for number in range(1000)]
    listed = redis.memory_usage(queue.key, samples=0) or 0
    return sum(sample) / len(sample) + listed / BULK


def rate(work: Callable[[], None], redis: Redis, count: int) -> float:
    redis.flushall()
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def measure_growth(queue: RescanQueue, growth: Growth, large: int) -> float:
    """Fills the queue tenfold, three times; what `status` costs at the end, in milliseconds."""
    queued, status = 0, 0.0
    for jobs in (large // 100, large // 10, large):
        queue.enqueue_rescans(range(queued, jobs), Reason.SWEEP, timeout=660)
        queued, status = jobs, milliseconds(queue.depth)
        growth.add(Curve.STATUS, jobs, status)
        new = iter(range(10**9, 10**9 + 1000))
        growth.add(
            Curve.ENQUEUE,
            jobs,
            milliseconds(lambda: queue.enqueue_rescan(next(new), Reason.EVENT, timeout=660)),  # noqa: B023
        )
        for number in range(10**9, next(new)):
            queue.remove(job_id_of(number))
            queue.connection.delete(f"rq:job:{job_id_of(number)}")
    return round(status, 2)


def milliseconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(50):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return median(seconds) * 1000
