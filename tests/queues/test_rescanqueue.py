"""One live job a manifest, and no wake-up lost: the rescan queue on a real Valkey."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from data.secscan.status import Reason
from queues.rescanjob import RESCAN_FUNCTION, RescanJob
from queues.rescanqueue import Enqueued, RescanQueue, backfill_lane, job_id_of

KEY = "rq:job:rescan-7"


@pytest.fixture
def queue(redis: Redis) -> RescanQueue:
    return RescanQueue("rescan", connection=redis)


@pytest.fixture
def backfill(redis: Redis) -> RescanQueue:
    return RescanQueue(backfill_lane("rescan"), connection=redis)


def enqueue(queue: RescanQueue, reason: Reason = Reason.EVENT, manifest_id: int = 7) -> Enqueued:
    return queue.enqueue_rescan(manifest_id, reason, timeout=660)


def ids(queue: RescanQueue) -> list[str]:
    return [each.decode() for each in queue.connection.lrange(queue.key, 0, -1)]  # type: ignore[union-attr]


def start(queue: RescanQueue) -> None:
    """What RQ writes when a worker takes the job."""
    assert queue.connection.lpop(queue.key) == b"rescan-7"
    queue.connection.hset(KEY, "status", "started")
    queue.connection.zadd("rq:wip:rescan", {"rescan-7:execution": 9e9})


def reason_of(queue: RescanQueue) -> list[Any]:
    job = RescanJob.fetch("rescan-7", connection=queue.connection)
    return list(job.args)


def test_the_job_is_what_rq_itself_would_write(queue: RescanQueue, redis: Redis) -> None:
    """Our script writes the hash; every field of it reads back as RQ's own enqueue's does."""
    enqueue(queue)
    ours = redis.hgetall(KEY)
    theirs_job = Queue("other", connection=redis, serializer="json").enqueue_call(
        RESCAN_FUNCTION,
        args=(7, "event"),
        timeout=660,
        result_ttl=500,
        failure_ttl=7 * 86400,
        description="manifest 7 (event)",
    )
    theirs = redis.hgetall(theirs_job.key)
    assert set(ours) - {b"rank"} <= set(theirs)
    for name in (b"status", b"timeout", b"result_ttl", b"failure_ttl", b"description"):
        assert ours[name] == theirs[name], name
    read = RescanJob.fetch("rescan-7", connection=redis)
    assert isinstance(read, RescanJob)
    assert (read.func_name, list(read.args)) == (theirs_job.func_name, list(theirs_job.args))
    assert read.refusal() is None
    assert read.enqueued_at is not None


def test_enqueuing_twice_is_one_job(queue: RescanQueue) -> None:
    assert enqueue(queue) is Enqueued.QUEUED
    assert enqueue(queue) is Enqueued.WAITING
    assert ids(queue) == ["rescan-7"]


def test_enqueue_that_meets_a_running_job_leads_to_one_more_look(queue: RescanQueue) -> None:
    enqueue(queue)
    start(queue)
    assert enqueue(queue) is Enqueued.RUNNING
    assert enqueue(queue, Reason.FORCED) is Enqueued.RUNNING
    assert ids(queue) == []
    assert queue.connection.hgetall(queue.again_key) == {b"rescan-7": b"3"}, "the strongest wish"


@pytest.mark.parametrize("where", ["scheduled", "queued"])
@pytest.mark.parametrize(
    ("job", "asked", "again", "served"),
    [
        (Reason.EVENT, Reason.EVENT, Reason.EVENT, True),
        (Reason.FORCED, Reason.EVENT, Reason.SWEEP, True),
        (Reason.SWEEP, Reason.EVENT, Reason.EVENT, True),
        (Reason.SWEEP, Reason.FORCED, Reason.SWEEP, False),
        (Reason.EVENT, Reason.FORCED, Reason.EVENT, False),
    ],
)
def test_wish_is_served_by_the_next_run_of_a_job_that_waits_again(
    queue: RescanQueue, where: str, job: Reason, asked: Reason, again: Reason, served: bool
) -> None:
    """Its run ended in a wait, or its worker died: the next run comes after whoever asked."""
    enqueue(queue, job)
    start(queue)
    assert enqueue(queue, asked) is Enqueued.RUNNING
    queue.connection.delete("rq:wip:rescan")
    queue.connection.hset(KEY, "status", where)
    if where == "scheduled":
        queue.connection.zadd("rq:scheduled:rescan", {"rescan-7": 9e9})
    else:
        queue.connection.rpush(queue.key, "rescan-7")
    enqueue(queue, again)
    assert queue.connection.hexists(queue.again_key, "rescan-7") is not served


@pytest.mark.parametrize("status", ["failed", "finished", "canceled", "stopped", "deferred"])
def test_job_that_has_ended_never_blocks_the_next(queue: RescanQueue, status: str) -> None:
    enqueue(queue)
    queue.connection.delete(queue.key)
    queue.connection.hset(KEY, mapping={"status": status, "exc_info": "old"})
    registry = "failed" if status == "stopped" else status
    queue.connection.zadd(f"rq:{registry}:rescan", {"rescan-7": 9e9})
    queue.connection.xadd("rq:results:rescan-7", {"type": 1})
    assert enqueue(queue) is Enqueued.QUEUED
    assert ids(queue) == ["rescan-7"]
    assert queue.connection.zcard(f"rq:{registry}:rescan") == 0
    assert not queue.connection.exists("rq:results:rescan-7")
    assert queue.connection.hget(KEY, "exc_info") is None


def test_job_whose_worker_died_never_blocks_the_next(queue: RescanQueue) -> None:
    """Its hash says started, and no worker runs it."""
    enqueue(queue)
    start(queue)
    queue.connection.delete("rq:wip:rescan")
    assert enqueue(queue) is Enqueued.QUEUED


@pytest.mark.parametrize("status", ["queued", "scheduled"])
def test_hash_that_is_in_no_list_never_blocks(queue: RescanQueue, status: str) -> None:
    enqueue(queue)
    queue.connection.delete(queue.key)
    queue.connection.hset(KEY, "status", status)
    assert enqueue(queue) is Enqueued.QUEUED
    assert ids(queue) == ["rescan-7"]


def test_id_between_its_pop_and_its_start_is_looked_at_once_more(queue: RescanQueue) -> None:
    """The worker may have read the reason already, so a stronger one would be lost."""
    enqueue(queue)
    queue.connection.lmove(queue.key, queue.intermediate_queue_key)
    assert enqueue(queue, Reason.FORCED) is Enqueued.RUNNING
    assert queue.connection.hget(queue.again_key, "rescan-7") == b"3"


def test_scheduled_job_keeps_its_time_and_a_person_brings_it_forward(queue: RescanQueue) -> None:
    enqueue(queue)
    queue.connection.delete(queue.key)
    queue.connection.hset(KEY, "status", "scheduled")
    queue.connection.zadd("rq:scheduled:rescan", {"rescan-7": 9e9})
    assert enqueue(queue) is Enqueued.WAITING
    assert ids(queue) == []
    assert enqueue(queue, Reason.MANUAL) is Enqueued.QUEUED
    assert ids(queue) == ["rescan-7"]
    assert queue.connection.zcard("rq:scheduled:rescan") == 0


def test_persons_request_goes_to_the_front_and_makes_a_waiting_one_stronger(
    queue: RescanQueue,
) -> None:
    enqueue(queue)
    enqueue(queue, manifest_id=8)
    enqueue(queue, Reason.MANUAL, manifest_id=8)
    assert ids(queue) == ["rescan-8", "rescan-7"]
    enqueue(queue, Reason.FORCED)
    assert reason_of(queue) == [7, "manual", True]
    enqueue(queue, Reason.SWEEP)
    assert reason_of(queue) == [7, "manual", True], "a weaker one changes nothing"


def test_event_takes_a_backfills_job_over(queue: RescanQueue, backfill: RescanQueue) -> None:
    """The id stays in the backfill's list; its worker sees that the job is another lane's."""
    enqueue(backfill, Reason.SWEEP)
    assert enqueue(queue) is Enqueued.WAITING
    assert ids(queue) == ids(backfill) == ["rescan-7"]
    assert RescanJob.fetch("rescan-7", connection=queue.connection).origin == "rescan"
    assert enqueue(backfill, Reason.SWEEP) is Enqueued.WAITING
    assert reason_of(queue) == [7, "event"]


def test_sweep_leaves_a_backfills_job_where_it_is(
    queue: RescanQueue, backfill: RescanQueue
) -> None:
    """Else the sweep would put the whole backfill in front of the next pull, within a minute."""
    enqueue(backfill, Reason.SWEEP)
    assert enqueue(queue, Reason.SWEEP) is Enqueued.WAITING
    assert (ids(queue), ids(backfill)) == ([], ["rescan-7"])
    queue.connection.delete(backfill.key)
    queue.connection.hset(KEY, "status", "scheduled")
    queue.connection.zadd(f"rq:scheduled:{backfill.name}", {"rescan-7": 9e9})
    assert enqueue(queue, Reason.SWEEP) is Enqueued.WAITING
    assert ids(queue) == []


def test_worker_that_was_killed_is_not_counted(queue: RescanQueue, redis: Redis) -> None:
    """Its name stays in RQ's set, for ever when it was the last; its record has expired."""
    redis.sadd("rq:workers:rescan", "rq:worker:alive", "rq:worker:killed")
    redis.hset("rq:worker:alive", "state", "idle")
    assert queue.depth().workers == 1
    redis.delete("rq:worker:alive")
    assert queue.depth().workers == 0


def test_sweep_leaves_a_failure_alone_for_an_hour_and_poison_for_good(queue: RescanQueue) -> None:
    enqueue(queue)
    queue.connection.delete(queue.key)
    queue.connection.hset(KEY, "status", "failed")
    now = queue.connection.time()[0]
    queue.connection.zadd("rq:failed:rescan", {"rescan-7": now + 7 * 86400})
    queue.connection.hset(queue.again_key, "rescan-7", 0)
    assert enqueue(queue, Reason.SWEEP) is Enqueued.LEFT_ALONE
    assert not queue.connection.exists(queue.again_key), "nor does it ask on every few seconds"
    queue.connection.zadd("rq:failed:rescan", {"rescan-7": now + 7 * 86400 - 3700})
    assert enqueue(queue, Reason.SWEEP) is Enqueued.QUEUED
    assert enqueue(queue, Reason.EVENT) is Enqueued.WAITING


def test_many_are_enqueued_with_uniqueness_kept(queue: RescanQueue) -> None:
    enqueue(queue)
    counts = queue.enqueue_rescans([7, 8, 9, 9], Reason.SWEEP, timeout=660)
    assert (counts[Enqueued.QUEUED], counts[Enqueued.WAITING]) == (2, 2)
    assert sorted(ids(queue)) == ["rescan-7", "rescan-8", "rescan-9"]


def test_one_command_enqueues_and_one_round_trip_reads_the_depth(
    queue: RescanQueue, redis: Redis
) -> None:
    enqueue(queue)
    before = commands_of(redis)
    enqueue(queue, manifest_id=8)
    assert commands_of(redis) - before == 2, "the script, and this look at the statistics"
    depth = queue.depth()
    assert (depth.queued, depth.started, depth.scheduled, depth.failed) == (2, 0, 0, 0)
    assert depth.queued == redis.llen("rq:queue:rescan")
    assert depth.oldest_queued_seconds is not None


def commands_of(redis: Redis) -> int:
    """Commands that clients sent; those that a script runs aren't counted among them."""
    stats = redis.info("commandstats")
    return sum(
        int(value["calls"])
        for name, value in stats.items()
        if name in {"cmdstat_evalsha", "cmdstat_info", "cmdstat_script|load"}
    )


def test_a_job_takes_at_most_600_bytes(queue: RescanQueue, redis: Redis) -> None:
    before = redis.info("memory")["used_memory"]
    queue.enqueue_rescans(range(1_000_000, 1_010_000), Reason.SWEEP, timeout=660)
    after = redis.info("memory")["used_memory"]
    assert (after - before) / 10_000 <= 600


def test_planted_pickle_is_never_loaded(queue: RescanQueue, redis: Redis, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickled = pickle.dumps(Canary(str(canary)))
    enqueue(queue)
    for field in ("data", "meta", "result", "exc_info", "webhooks"):
        redis.hset(KEY, field, pickled)
    job = RescanJob.fetch_quietly("rescan-7", redis)
    assert job is None or "no JSON call" in (job.refusal() or "")
    for registry in ("started", "finished", "failed", "scheduled"):
        getattr(queue, f"{registry}_job_registry").get_job_count(cleanup=True)
    assert not canary.exists()


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


def test_rqs_own_command_line_shows_the_queue_safely(
    queue: RescanQueue, redis: Redis, tmp_path: Path
) -> None:
    """A pickle in an expired started job is executed by `rq info` without our queue class."""
    canary = tmp_path / "canary"
    enqueue(queue)
    start(queue)
    redis.zadd("rq:wip:rescan", {"rescan-7:execution": 1})
    redis.hset(KEY, "meta", pickle.dumps(Canary(str(canary))))
    done = run_rq(redis, "info")
    assert done.returncode == 0, done.stderr
    assert "rescan" in done.stdout
    assert not canary.exists()


def test_rqs_own_command_line_requeues_a_failed_rescan(queue: RescanQueue, redis: Redis) -> None:
    enqueue(queue)
    redis.delete(queue.key)
    redis.hset(KEY, "status", "failed")
    redis.zadd("rq:failed:rescan", {"rescan-7": 9e9})
    done = run_rq(redis, "requeue", "--queue", "rescan", "rescan-7")
    assert done.returncode == 0, done.stderr
    assert ids(queue) == ["rescan-7"]
    assert redis.hget(KEY, "status") == b"queued"
    assert enqueue(queue) is Enqueued.WAITING


def run_rq(redis: Redis, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of RQ's own, told our queue class, as the README says."""
    url = f"redis://127.0.0.1:{redis.connection_pool.connection_kwargs['port']}"
    queue_class = ["--queue-class", "queues.rescanqueue.RescanQueue"]
    return subprocess.run(
        [sys.executable, "-m", "rq.cli", *arguments, "--url", url, *queue_class],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"},
    )


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (["os.system", None, ["true"], {}], "asks for 'os.system'"),
        ([RESCAN_FUNCTION, None, ["7", "event", False], {}], "arguments"),
        ([RESCAN_FUNCTION, None, [7], {}], "arguments"),
        ([RESCAN_FUNCTION, "object", [7, "event", False], {}], "arguments"),
    ],
)
def test_job_of_another_kind_is_refused_with_the_reason(
    queue: RescanQueue, call: list[Any], reason: str
) -> None:
    enqueue(queue)
    queue.connection.hset(KEY, "data", json.dumps(call))
    job = RescanJob.fetch("rescan-7", connection=queue.connection)
    assert isinstance(job, RescanJob)
    assert reason in (job.refusal() or "")


def test_callbacks_and_webhooks_are_not_even_read(queue: RescanQueue) -> None:
    enqueue(queue)
    planted: dict[Any, Any] = {
        "success_callback_name": "os.system",
        "failure_callback_name": "os.system",
        "stopped_callback_name": "os.system",
        "webhooks": '[{"url": "http://127.0.0.1:9", "job_status": "finished"}]',
        "dependency_ids": '["other"]',
        "repeats_left": "5",
    }
    queue.connection.hset(KEY, mapping=planted)
    job = RescanJob.fetch("rescan-7", connection=queue.connection)
    assert job.success_callback is None
    assert job.failure_callback is None
    assert job.webhooks == []
    assert job.repeats_left is None


def test_job_ids_and_manifest_ids_go_both_ways() -> None:
    from queues.rescanqueue import manifest_id_of

    assert manifest_id_of(job_id_of(4711)) == 4711
