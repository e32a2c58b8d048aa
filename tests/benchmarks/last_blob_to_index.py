"""From the commit of a manifest's last placement to the arrival of the index call at the scanner.

Blob worker, rescan worker and scanner are processes of their own, as in production. The moment of
the commit is PostgreSQL's own (`track_commit_timestamp`), that of the arrival the scanner's; both
read the clock of this machine.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from statistics import median, quantiles

from data.models import Manifest, database_proxy
from tests.benchmarks.growth import Curve, Growth
from tests.benchmarks.largetables import LargeTables
from tests.benchmarks.scanner import BenchScanner, bench_scanner
from tests.benchmarks.site import Site

WARM_UP = 20
LARGE_ROUNDS = 50
# Quay's SECURITY_SCANNER_INDEXING_INTERVAL, and for how many of them the cycle is watched.
CYCLE_SECONDS = 30
CYCLES = 1
CYCLE_IMAGES = 30
# Idle ones look at their queue once a second each; what is measured begins after that.
BLOB_WORKERS = 3

COMMITS = """
SELECT b.content_checksum, extract(epoch FROM pg_xact_commit_timestamp(p.xmin))
FROM imagestorageplacement p JOIN imagestorage b ON b.id = p.storage_id
WHERE b.content_checksum = ANY(%s)
"""


def measure(site: Site, growth: Growth, *, rounds: int, cycle: bool) -> dict[str, float | None]:
    with bench_scanner() as scanner:
        milliseconds = measure_events(site, scanner, rounds)
        p50 = median(milliseconds)
        growth.add(Curve.LAST_BLOB, count_manifests(), p50)
        cycle_p50 = median(measure_cycle(site, scanner)) if cycle else None
    return {
        "p50_ms": round(p50, 2),
        "p99_ms": round(quantiles(milliseconds, n=100)[98], 2),
        "cycle_p50_ms": None if cycle_p50 is None else round(cycle_p50, 1),
        "times_sooner_than_cycle": None if cycle_p50 is None else round(cycle_p50 / p50, 1),
    }


def measure_large(site: Site, growth: Growth, tables: LargeTables) -> None:
    """The same in the large tables."""
    with bench_scanner() as scanner:
        growth.add(
            Curve.LAST_BLOB, tables.manifests, median(measure_events(site, scanner, LARGE_ROUNDS))
        )


def count_manifests() -> int:
    return int(Manifest.select().count())


def measure_events(site: Site, scanner: BenchScanner, rounds: int) -> list[float]:
    """Milliseconds of so many pulls, one after the other: the workers are idle at each."""
    arrived: dict[str, int] = {}
    layers: dict[str, str] = {}
    with ExitStack() as stack:
        stack.enter_context(site.rescan_workers(4, scanner=scanner))
        for _ in range(BLOB_WORKERS):
            stack.enter_context(site.worker("proxycacheblobworker", scanner=scanner))
        for _ in range(WARM_UP + rounds):
            image = site.publish()
            (layers[image.digest],) = image.layer_digests
            site.pull(image)
            arrived[image.digest] = scanner.wait_for_arrival(image.digest)
    committed = commit_times(list(layers.values()))
    waits = [(at - committed[layers[digest]]) / 1e6 for digest, at in arrived.items()]
    return waits[WARM_UP:]


def measure_cycle(site: Site, scanner: BenchScanner) -> list[float]:
    """The same without events: Quay's cycle, met at random moments."""
    arrived: dict[str, int] = {}
    layers: dict[str, str] = {}
    moments = sorted(random.uniform(0, CYCLES * CYCLE_SECONDS) for _ in range(CYCLE_IMAGES))
    with site.worker(
        "securityworker", scanner=scanner, SECURITY_SCANNER_INDEXING_INTERVAL=CYCLE_SECONDS
    ):
        started = time.monotonic()
        for moment in moments:
            time.sleep(max(0.0, started + moment - time.monotonic()))
            layer = site.new_layer()
            layers[site.write_image([layer]).digest] = layer
            site.place(layer)
        while len(arrived) < CYCLE_IMAGES:
            call = scanner.next_call(2 * CYCLE_SECONDS)
            if call.arrived:
                arrived[call.digest] = call.at_ns
    committed = commit_times(list(layers.values()))
    return [(at - committed[layers[digest]]) / 1e6 for digest, at in arrived.items()]


def commit_times(digests: list[str]) -> dict[str, float]:
    """When the first placement of each blob was committed (unix ns)."""
    cursor = database_proxy.obj.execute_sql(COMMITS, (digests,))
    return {digest: float(seconds) * 1e9 for digest, seconds in cursor.fetchall()}
