"""How soon a worker is ready, and what an idle one keeps in memory."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from tests.benchmarks.site import Site
from tests.servers import wait_until


def measure(site: Site, *, rounds: int) -> dict[str, float | None]:
    seconds, memory = [], []
    for _ in range(rounds):
        site.redis.flushall()
        started = time.perf_counter()
        with site.worker("rescanworker"):
            wait_until(lambda: site.redis.scard("rq:workers:rescan") >= 1, 30, "a worker is ready")
            seconds.append(time.perf_counter() - started)
            (key, *_) = site.redis.smembers("rq:workers:rescan")
            memory.append(resident_mib(int(site.redis.hget(key, "pid") or 0)))
    return {"ready_s": round(median(seconds), 2), "idle_rss_mib": round(median(memory), 1)}


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no resident memory")
