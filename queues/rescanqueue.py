"""The dedicated rescan queue: RQ's, with one live job a manifest and JSON everywhere.

What RQ alone doesn't promise is kept in a handful of Lua scripts (`queues/lua`): an id that has
ended never blocks the next enqueue, and an enqueue that meets a running job leads to one more look
after it. Everything lies under RQ's own keys, so `LLEN rq:queue:rescan` is the depth.

Lanes: events, the sweep and people use `RESCAN_QUEUE_NAME`; a backfill uses
`<RESCAN_QUEUE_NAME>-backfill`, which has workers of its own. The job id is the same in both.

Next: workers/rescanworker.py
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cache
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline
from redis.commands.core import Script
from redis.exceptions import NoScriptError
from rq import Queue
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat

from data.secscan.status import Reason
from queues.rescanjob import RESCAN_FUNCTION, RescanJob

RESULT_SECONDS = 500
FAILURE_SECONDS = 7 * 86400
# How many enqueues go to Redis in one round trip when many are asked for at once.
ENQUEUE_BATCH = 1000


class Rank(IntEnum):
    """Which of two requests for one manifest is served: the one that may reset more rows."""

    SWEEP = 0
    EVENT = 1
    MANUAL = 2
    FORCED = 3


RANK_OF_REASON: Mapping[Reason, Rank] = {
    Reason.SWEEP: Rank.SWEEP,
    Reason.EVENT: Rank.EVENT,
    Reason.MANUAL: Rank.MANUAL,
    Reason.FORCED: Rank.FORCED,
}


class Enqueued(Enum):
    """What became of an enqueue. None of them loses the wish."""

    QUEUED = 1  # a new job
    WAITING = 2  # the manifest's job is queued or scheduled already
    RUNNING = 3  # its job runs now; it will be looked at once more afterwards
    LEFT_ALONE = 4  # the sweep asked, and its job failed less than an hour ago


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """What one lane holds now. `oldest_queued_seconds` is None for an empty queue.

    `workers` counts those whose record in Redis hasn't expired: a worker that was killed leaves its
    name in RQ's set until another worker takes it out, and the last one leaves it for ever.
    """

    queued: int
    started: int
    scheduled: int
    failed: int
    workers: int
    paused: bool
    oldest_queued_seconds: float | None


@cache
def read_script(name: str) -> str:
    return (Path(__file__).parent / "lua" / f"{name}.lua").read_text()


@cache
def script_of(name: str) -> Script:
    """The script, its checksum reckoned once; it is run with the client that is to run it."""
    return Script(cast(Redis, None), read_script(name).encode())


def run_script(connection: Redis, name: str, keys: list[str], arguments: list[Any]) -> Any:
    return script_of(name)(keys, arguments, connection)


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """A script with what it is called with."""

    name: str
    keys: list[str]
    arguments: list[Any]


def run_scripts(connection: Redis, calls: Iterable[ScriptCall]) -> list[Any]:
    """What each script answers, one after the other, in one round trip where Redis knows them.

    An error that one of them ends with stands for its answer.
    """
    asked = list(calls)
    with connection.pipeline(transaction=False) as pipeline:
        for call in asked:
            sha, keys = script_of(call.name).sha, call.keys
            pipeline.evalsha(sha, len(keys), *keys, *call.arguments)
        answers = pipeline.execute(raise_on_error=False)
    for at, (call, answer) in enumerate(zip(asked, answers, strict=True)):
        if isinstance(answer, NoScriptError):
            answers[at] = run_script(connection, call.name, call.keys, call.arguments)
    return answers


def job_id_of(manifest_id: int) -> str:
    return f"rescan-{manifest_id}"


def manifest_id_of(job_id: str) -> int:
    return int(job_id.removeprefix("rescan-"))


def backfill_lane(queue_name: str) -> str:
    return f"{queue_name}-backfill"


class RescanQueue(Queue):
    """One lane of the rescan queue. Give it to RQ's own tools as `--queue-class`."""

    job_class = RescanJob

    def __init__(
        self, name: str = "rescan", connection: Redis | None = None, **arguments: Any
    ) -> None:
        arguments["serializer"] = JSONSerializer
        arguments["job_class"] = RescanJob
        super().__init__(name, connection=connection, **arguments)

    @property
    def main_lane(self) -> str:
        return self.name.removesuffix("-backfill")

    @property
    def again_key(self) -> str:
        return f"rescan:{self.main_lane}:again"

    @property
    def paused_key(self) -> str:
        return f"rescan:{self.main_lane}:paused"

    def enqueue_rescan(self, manifest_id: int, reason: Reason, *, timeout: int) -> Enqueued:
        """Enqueues the rescan of one manifest; a person's request goes to the front.

        `timeout` is the job's, in seconds. One Redis command.
        """
        keys, arguments = self.enqueue_arguments(manifest_id, reason, timeout)
        return Enqueued(run_script(self.connection, "enqueue_rescan", keys, arguments))

    def enqueue_rescans(
        self, manifest_ids: Iterable[int], reason: Reason, *, timeout: int
    ) -> dict[Enqueued, int]:
        """Enqueues many, `ENQUEUE_BATCH` a round trip; returns how many ended up how."""
        counts = dict.fromkeys(Enqueued, 0)
        script = script_of("enqueue_rescan")
        batch: Pipeline = self.connection.pipeline(transaction=False)
        for manifest_id in manifest_ids:
            keys, arguments = self.enqueue_arguments(manifest_id, reason, timeout)
            script(keys=keys, args=arguments, client=batch)
            if len(batch) >= ENQUEUE_BATCH:
                count_answers(batch, counts)
        count_answers(batch, counts)
        return counts

    def enqueue_arguments(
        self, manifest_id: int, reason: Reason, timeout: int
    ) -> tuple[list[str], list[Any]]:
        job_id, rank = job_id_of(manifest_id), RANK_OF_REASON[reason]
        fields = job_fields(manifest_id, reason, self.name, timeout)
        flat = [part for pair in fields.items() for part in pair]
        front = int(rank >= Rank.MANUAL)
        keys = [f"rq:job:{job_id}", "rq:queues", self.again_key]
        return keys, [job_id, self.name, self.main_lane, rank.value, front, time.time(), *flat]

    def depth(self) -> QueueDepth:
        """Counts that cost the same at a million jobs: lengths only, and no clean-up.

        One round trip, one more where there are workers, and one where the queue isn't empty.
        """
        with self.connection.pipeline(transaction=False) as pipeline:
            pipeline.llen(self.key)
            pipeline.zcard(f"rq:wip:{self.name}")
            pipeline.zcard(f"rq:scheduled:{self.name}")
            pipeline.zcard(f"rq:failed:{self.name}")
            pipeline.smembers(f"rq:workers:{self.name}")
            pipeline.exists(self.paused_key)
            pipeline.lindex(self.key, 0)
            queued, started, scheduled, failed, workers, paused, oldest = pipeline.execute()
        return QueueDepth(
            queued=queued,
            started=started,
            scheduled=scheduled,
            failed=failed,
            workers=int(self.connection.exists(*workers)) if workers else 0,
            paused=bool(paused),
            oldest_queued_seconds=self.queued_seconds(oldest),
        )

    def queued_seconds(self, job_id: bytes | None) -> float | None:
        if job_id is None:
            return None
        job = RescanJob.fetch_quietly(job_id.decode(), self.connection)
        if job is None or job.enqueued_at is None:
            return None
        return max(0.0, (now() - job.enqueued_at).total_seconds())

    def pause(self) -> None:
        """Stops all workers of both lanes from taking jobs, until `unpause`; survives restarts."""
        self.connection.set(self.paused_key, utcformat(now()))

    def unpause(self) -> None:
        self.connection.delete(self.paused_key)


def count_answers(batch: Pipeline, counts: dict[Enqueued, int]) -> None:
    for answer in batch.execute():
        counts[Enqueued(answer)] += 1


def job_fields(manifest_id: int, reason: Reason, lane: str, timeout: int) -> dict[str, Any]:
    """The hash of a queued job as RQ 3 writes it, and `rank`, which is ours.

    Written here rather than by RQ's Job because a backfill writes ten thousand of them a second; a
    test holds it against what RQ's own enqueue writes.
    """
    forced = reason is Reason.FORCED
    asked = Reason.MANUAL if forced else reason
    arguments = [manifest_id, asked.value, True] if forced else [manifest_id, asked.value]
    call: list[Any] = [RESCAN_FUNCTION, None, arguments, {}]
    moment = utcformat(now())
    return {
        # At most 64 bytes: with one longer value Redis stores the hash in twice the memory.
        "data": zlib.compress(json.dumps(call, separators=(",", ":")).encode()),
        "status": "queued",
        "origin": lane,
        "description": f"manifest {manifest_id} ({reason.value})",
        "created_at": moment,
        "enqueued_at": moment,
        "timeout": timeout,
        "result_ttl": RESULT_SECONDS,
        "failure_ttl": FAILURE_SECONDS,
        "rank": RANK_OF_REASON[reason].value,
    }
