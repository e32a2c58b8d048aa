"""A new pull behind a backfill, and one digest that becomes complete in many repositories at once.

Both run on the large tables: the backfill's jobs are manifests that really are indexed.
"""

from __future__ import annotations

import time
from statistics import median, quantiles

from data.completion import find_manifests_completed_by
from data.models import ManifestSecurityStatus, database_proxy
from data.secscan.status import IndexStatus, Reason
from queues.rescanqueue import RescanQueue, backfill_lane
from tests.benchmarks.growth import Curve, Growth
from tests.benchmarks.largetables import LargeTables
from tests.benchmarks.scanner import BenchScanner, bench_scanner
from tests.benchmarks.site import Site
from tests.servers import wait_until

PULLS = 100
REPOSITORIES = (10, 100, 1000)
# What the scanner takes, so that its slots are contended for.
SCANNER_SECONDS = 0.05


def measure(site: Site, tables: LargeTables, growth: Growth) -> dict[str, float | None]:
    waiting = len(tables.waiting_ids)
    with bench_scanner(SCANNER_SECONDS) as scanner:
        for jobs in sorted({waiting // 100, waiting // 10, waiting}):
            milliseconds = wait_behind(site, scanner, tables.waiting_ids[:jobs])
            growth.add(Curve.LANES, jobs, median(milliseconds))
        for repositories in REPOSITORIES:
            seconds, calls = index_once(site, scanner, repositories)
            growth.add(Curve.REPOSITORIES, repositories, seconds * 1000)
    return {
        "p99_ms_behind_100k": round(quantiles(milliseconds, n=100)[98], 1),
        "index_calls_for_1000_repositories": calls,
    }


def wait_behind(site: Site, scanner: BenchScanner, backfill: range) -> list[float]:
    """Milliseconds from the enqueue of each new pull's rescan to its index call."""
    site.redis.flushall()
    lane = RescanQueue(backfill_lane(site.queue.name), connection=site.redis)
    lane.enqueue_rescans(backfill, Reason.SWEEP, timeout=660)
    waits: list[float] = []
    with site.rescan_workers(4, scanner=scanner):
        scanner.next_call()  # the backfill goes on
        for _ in range(PULLS):
            written = site.write_complete_image()
            enqueued_ns = time.time_ns()
            site.queue.enqueue_rescan(written.manifest_id, Reason.EVENT, timeout=660)
            waits.append((scanner.wait_for_arrival(written.digest) - enqueued_ns) / 1e6)
    if lane.depth().queued == 0:
        raise RuntimeError("the backfill ended before the pulls did; there was nothing to wait for")
    return waits


def index_once(site: Site, scanner: BenchScanner, repositories: int) -> tuple[float, int]:
    """Seconds until the same manifest is COMPLETED in so many repositories, and index calls."""
    site.redis.flushall()
    layer, number = site.new_layer(), next(site.numbers)
    with database_proxy.atomic():
        manifests = [
            site.write_manifest(number, [layer], repository=f"same-{repository}")
            for repository in range(repositories)
        ]
    digest = manifests[0].digest
    ids = [written.manifest_id for written in manifests]
    scanner.forget()
    with site.rescan_workers(4, scanner=scanner):
        started = time.perf_counter()
        site.place(layer)
        for completed in find_manifests_completed_by(layer):
            site.queue.enqueue_rescan(completed.manifest_id, Reason.EVENT, timeout=660)
        wait_until(lambda: count_completed(ids) == repositories, 120, "all are completed")
        seconds = time.perf_counter() - started
        wait_until(lambda: site.queue.depth().queued == 0, 120, "the queue is empty")
    return seconds, len(scanner.arrivals_of(digest))


def count_completed(manifest_ids: list[int]) -> int:
    return int(
        ManifestSecurityStatus.select()
        .where(
            ManifestSecurityStatus.manifest_id.in_(manifest_ids)
            & (ManifestSecurityStatus.index_status == IndexStatus.COMPLETED)
        )
        .count()
    )
