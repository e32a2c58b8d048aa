"""A job that takes its worker down, one that hangs, one that is asked for while it runs."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from data.secscan.status import IndexStatus, Reason
from queues.rescanqueue import Enqueued
from tests.faults.site import Site, site
from tests.servers import wait_until
from workers.demo.scannerfaults import Held


@pytest.fixture
def running(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Site]:
    with site(sqlite_database, redis, tmp_path / "site") as running:
        yield running


def kill_at_work(running: Site, held: Held, job_id: str) -> None:
    """Kills the worker while Clair works for it, and lets the 20 s pass that it takes to notice."""
    assert held.wait_for_call(20)
    (pid,) = running.pids_of_rescan_workers()
    os.kill(pid, signal.SIGKILL)
    entries: Any = running.redis.zrange("rq:wip:rescan", 0, -1)
    (entry,) = (each.decode() for each in entries)
    assert entry.startswith(job_id)
    running.redis.delete(*running.redis.keys("rq:worker:*"))
    running.redis.delete("rescan:rescan:digests", "rescan:rescan:slots")
    running.redis.zadd("rq:wip:rescan", {entry: 0})
    held.release()


def test_job_that_kills_three_workers_is_set_aside_and_the_queue_goes_on(running: Site) -> None:
    image, pulled = running.pull("poison")
    _, other = running.pull("other")
    job_id = f"rescan-{pulled.manifest_id}"
    kills = [Held() for _ in range(3)]
    for held in kills:
        running.quay.scanner.faults.add(held, digest=image.digest, times=1)
    running.enqueue(pulled.manifest_id)
    worker = running.start("workers.rescanworker", RESCAN_MAX_CONCURRENT_INDEXES=1)
    for held in kills:
        kill_at_work(running, held, job_id)
    wait_until(lambda: worker.says("job set aside as poison"), 20, "the job is set aside")
    (event,) = worker.events("job set aside as poison")
    assert event["manifest"] == pulled.manifest_id

    running.enqueue(other.manifest_id)
    wait_until(lambda: running.is_completed(other.manifest_id), 20, "the queue goes on")
    row = running.quay.row(pulled.manifest_id)
    assert row.index_status == IndexStatus.FAILED
    assert "three workers" in json.loads(row.error_json)
    assert running.redis.zscore("rq:failed:rescan", job_id) is not None
    assert len(running.quay.scanner.requests.of(image.digest)) == 3

    assert running.enqueue(pulled.manifest_id, reason=Reason.SWEEP) is Enqueued.LEFT_ALONE
    assert running.enqueue(pulled.manifest_id, reason=Reason.MANUAL) is Enqueued.QUEUED
    wait_until(lambda: running.is_completed(pulled.manifest_id), 20, "a person has it done")


def test_job_that_ends_a_run_in_good_order_is_no_poison(running: Site) -> None:
    """Deaths far apart, as of a worker that is redeployed every day, don't add up."""
    _, pulled = running.pull("long")
    running.quay.store_claim_of_somebody_else(pulled.manifest_id)
    running.enqueue(pulled.manifest_id)
    running.redis.hset(f"rq:job:rescan-{pulled.manifest_id}", "deaths", 2)
    running.start("workers.rescanworker", RESCAN_MAX_CONCURRENT_INDEXES=1)
    wait_until(lambda: running.redis.zcard("rq:scheduled:rescan") == 1, 20, "it looks again later")
    assert running.redis.hget(f"rq:job:rescan-{pulled.manifest_id}", "deaths") is None


def test_enqueue_that_arrives_while_the_job_runs_is_never_lost(running: Site) -> None:
    image, pulled = running.pull("again")
    held = Held()
    running.quay.scanner.faults.add(held, digest=image.digest, times=1)
    running.enqueue(pulled.manifest_id)
    worker = running.start("workers.rescanworker", RESCAN_MAX_CONCURRENT_INDEXES=1)
    assert held.wait_for_call(20)
    assert running.enqueue(pulled.manifest_id) is Enqueued.RUNNING
    held.release()
    wait_until(lambda: len(worker.events("rescanned")) == 2, 20, "it is looked at once more")
    assert [each["outcome"] for each in worker.events("rescanned")] == ["completed", "up_to_date"]


def test_job_that_hangs_where_no_signal_reaches_it_is_back_within_30_seconds_of_its_limit(
    running: Site, record_property: Callable[[str, object], None]
) -> None:
    """SQLite waits in C for a lock that the test holds; the alarm of the time limit waits too."""
    limit = 2
    _, pulled = running.pull("hang")
    lock = sqlite3.connect(running.quay.config["DB_URI"].removeprefix("sqlite:///"))
    lock.execute("BEGIN IMMEDIATE")
    running.enqueue(pulled.manifest_id)
    worker = running.start(
        "workers.rescanworker", RESCAN_MAX_CONCURRENT_INDEXES=1, RESCAN_JOB_TIMEOUT=limit
    )
    wait_until(lambda: running.redis.zcard("rq:wip:rescan") == 1, 20, "the job runs")
    began = time.time()
    wait_until(lambda: worker.says("job hangs, worker ends itself"), 20, "the watchdog")
    lock.rollback()
    lock.close()
    wait_until(lambda: running.is_completed(pulled.manifest_id), 30, "the job is done")
    event = worker.events("index call")[0]
    back = datetime.fromisoformat(event["timestamp"]).timestamp() - began - limit
    record_property("measured", f"hang past the time limit: work again after {back:.1f} s")
    assert back < 30
