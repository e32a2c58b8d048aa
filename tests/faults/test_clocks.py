"""Clocks that are wrong or jump: of workers, of Quay's, of the Redis server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from data.models import utcnow
from queues.housekeeping import LONGEST_WAIT_SECONDS, RECOVERY_SECONDS
from queues.rescanruns import HEARTBEAT_LIFE_SECONDS
from tests.faults.site import Site, site
from tests.servers import wait_until
from workers.demo.scannerfaults import Held

HOUR = 3600
# More than a heartbeat lives, and less than a link to a layer does.
WRONG = HEARTBEAT_LIFE_SECONDS + 5
YEARS = 10 * 365 * 86400


@pytest.fixture
def running(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Site]:
    with site(sqlite_database, redis, tmp_path / "site") as running:
        yield running


def start_with_clock(running: Site, offset: int) -> Any:
    wrong = Path(__file__).parent / "wrongclock"
    environment = {"PYTHONPATH": str(wrong), "CLOCK_OFFSET": str(offset)}
    return running.start(
        "workers.rescanworker", new_python=environment, RESCAN_MAX_CONCURRENT_INDEXES=1
    )


def end_of_run(running: Site) -> float:
    entries: Any = running.redis.zrange("rq:wip:rescan", 0, -1, withscores=True)
    return float(entries[0][1]) if entries else 0.0


def test_worker_with_a_wrong_clock_is_not_taken_for_dead_and_takes_nobody_for_it(
    running: Site,
) -> None:
    """One is behind, one ahead, by more than a heartbeat's life; both look for dead runs."""
    image, pulled = running.pull("skewed")
    held = Held()
    running.quay.scanner.faults.add(held)
    running.enqueue(pulled.manifest_id)
    workers = [start_with_clock(running, offset) for offset in (-WRONG, WRONG)]
    assert held.wait_for_call(20)
    wait_until(lambda: all(each.says("worker ready") for each in workers), 20, "both work")
    first = end_of_run(running)
    now = int(running.redis.time()[0])
    assert now < first <= now + HEARTBEAT_LIFE_SECONDS + 1, "by the server's clock"
    wait_until(lambda: end_of_run(running) > first + RECOVERY_SECONDS, 20, "its heart beats twice")
    held.release()
    wait_until(lambda: running.is_completed(pulled.manifest_id), 20, "it is done")
    assert len(running.quay.scanner.requests.of(image.digest)) == 1
    assert not any(each.says("job given back") for each in workers)


def test_claim_from_the_future_is_retaken(running: Site) -> None:
    """Quay's worker died, and the clock that its claim was made by has been set back."""
    _, pulled = running.pull("claimed")
    running.quay.store_claim_of_somebody_else(
        pulled.manifest_id, last_indexed=utcnow() + timedelta(seconds=HOUR)
    )
    running.enqueue(pulled.manifest_id)
    running.start("workers.rescanworker", RESCAN_MAX_CONCURRENT_INDEXES=1)
    wait_until(lambda: running.is_completed(pulled.manifest_id), 20, "it is done")


def test_what_a_clock_wrote_before_it_was_set_back_is_drawn_near(running: Site) -> None:
    """A run that seems to live, and a job that seems to wait, for ten years."""
    _, dead = running.pull("dead")
    _, waiting = running.pull("waiting")
    redis = running.redis
    future = int(redis.time()[0]) + YEARS
    for manifest_id, status in ((dead.manifest_id, "started"), (waiting.manifest_id, "scheduled")):
        running.enqueue(manifest_id)
        redis.hset(f"rq:job:rescan-{manifest_id}", "status", status)
    redis.delete("rq:queue:rescan")
    run, job = f"rescan-{dead.manifest_id}:run", f"rescan-{waiting.manifest_id}"
    redis.zadd("rq:wip:rescan", {run: future})
    redis.zadd("rq:scheduled:rescan", {job: future})
    running.start("workers.rescanworker", RESCAN_MAX_CONCURRENT_INDEXES=1)
    wait_until(
        lambda: score(redis, "rq:scheduled:rescan", job) < LONGEST_WAIT_SECONDS + 60,
        20,
        "the job waits no longer than any job does",
    )
    assert score(redis, "rq:wip:rescan", run) < HEARTBEAT_LIFE_SECONDS + 5
    for key, entry in (("rq:wip:rescan", run), ("rq:scheduled:rescan", job)):
        redis.zadd(key, {entry: 0})  # the time passes
    for manifest_id in (dead.manifest_id, waiting.manifest_id):
        wait_until(lambda each=manifest_id: running.is_completed(each), 20, "it is done")  # type: ignore[misc]


def score(redis: Redis, key: str, entry: str) -> float:
    """Seconds from now, by the server's clock."""
    value = redis.zscore(key, entry)
    assert value is not None
    return float(value) - int(redis.time()[0])
