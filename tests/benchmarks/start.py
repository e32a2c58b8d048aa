"""How soon a worker is ready, and what an idle one keeps in memory."""

from __future__ import annotations

import time
from statistics import median

from data.models import Manifest
from tests.benchmarks.growth import Curve, Growth
from tests.benchmarks.largetables import LargeTables
from tests.benchmarks.memory import resident_mib
from tests.benchmarks.site import Site
from tests.servers import wait_until


def measure(site: Site, growth: Growth, *, rounds: int) -> dict[str, float | None]:
    starts = [start_once(site) for _ in range(rounds)]
    ready = median(seconds for seconds, _ in starts)
    growth.add(Curve.START, int(Manifest.select().count()), ready * 1000)
    return {
        "ready_s": round(ready, 2),
        "idle_rss_mib": round(median(memory for _, memory in starts), 1),
    }


def measure_large(site: Site, growth: Growth, tables: LargeTables) -> None:
    """The same in the large tables."""
    growth.add(Curve.START, tables.manifests, median(start_once(site)[0] for _ in range(5)) * 1000)


def start_once(site: Site) -> tuple[float, float]:
    """Seconds until a rescanworker stands ready for a job, and its resident memory (MiB)."""
    site.redis.flushall()
    workers = f"rq:workers:{site.queue.name}"
    started = time.perf_counter()
    with site.worker("rescanworker"):
        wait_until(lambda: site.redis.scard(workers) >= 1, 30, "a worker is ready")
        seconds = time.perf_counter() - started
        (key, *_) = site.redis.smembers(workers)
        return seconds, resident_mib(int(site.redis.hget(key, "pid") or 0))
