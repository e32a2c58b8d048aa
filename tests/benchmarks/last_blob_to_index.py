"""From the commit of the last placement to the arrival of the index call at the scanner.

What the blob worker does after the commit (completion, enqueue) is done here, in this process; the
rescan worker is the process that it is in production.
"""

from __future__ import annotations

import random
import time
from statistics import median, quantiles

from data.completion import find_manifests_completed_by
from data.secscan.status import Reason
from queues.rescanqueue import RescanQueue
from tests.benchmarks.site import Site
from tests.servers import wait_until

WARM_UP = 20


def measure(site: Site, *, rounds: int, cycle_rounds: int) -> dict[str, float | None]:
    milliseconds = measure_events(site, rounds)
    p50 = median(milliseconds)
    cycle = median(measure_cycle(site, cycle_rounds)) if cycle_rounds else None
    return {
        "p50_ms": round(p50, 2),
        "p99_ms": round(quantiles(milliseconds, n=100)[98], 2),
        "cycle_p50_ms": None if cycle is None else round(cycle, 1),
        "times_sooner_than_cycle": None if cycle is None else round(cycle / p50, 1),
    }


def measure_events(site: Site, rounds: int) -> list[float]:
    queue = RescanQueue("rescan", connection=site.redis)
    found: list[float] = []
    with site.worker("rescanworker"):
        wait_until(lambda: site.redis.scard("rq:workers:rescan") >= 4, 30, "workers are ready")
        for number in range(WARM_UP + rounds):
            _, digest, layer = site.image()
            committed = site.place(layer)
            for completed in find_manifests_completed_by(layer):
                queue.enqueue_rescan(completed.manifest_id, Reason.EVENT, timeout=660)
            milliseconds = wait_for_index(site, digest, committed, 10)
            if number >= WARM_UP:
                found.append(milliseconds)
    return found


def measure_cycle(site: Site, rounds: int) -> list[float]:
    """The same without events: Quay's cycle of 30 s, met at a random moment."""
    found: list[float] = []
    with site.worker("securityworker", changes={"SECURITY_SCANNER_INDEXING_INTERVAL": 30}):
        for _ in range(rounds):
            time.sleep(random.uniform(0, 30))
            _, digest, layer = site.image()
            found.append(wait_for_index(site, digest, site.place(layer), 60))
    return found


def wait_for_index(site: Site, digest: str, committed: int, seconds: float) -> float:
    requests = site.scanner.requests
    arrived = requests.wait_for(lambda all_: bool(all_) and all_[-1].digest == digest, seconds)
    if not arrived:
        raise RuntimeError(f"{digest} was not indexed within {seconds} s")
    return (requests.of(digest)[0].arrived_ns - committed) / 1e6
