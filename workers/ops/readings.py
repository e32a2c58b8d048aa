"""What the page and the metrics read from Redis: lengths and first entries only, never a scan."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from redis.exceptions import RedisError
from rq.utils import utcparse

from queues.metricstore import MetricStore, SweepFound
from queues.rescanqueue import QueueDepth, RescanQueue, manifest_id_of
from queues.scannergate import circuit_key_of

T = TypeVar("T")

# After a failure Redis is left alone for so long: the page must not wait for it at each refresh.
REST_SECONDS = 3.0
MOST_STARTED = 50
MOST_FAILED = 50


class RedisDown(Exception):
    """Redis doesn't answer; the message says how."""


@dataclass(slots=True)
class RedisReader:
    """Asks Redis, and after a failure doesn't ask again for REST_SECONDS."""

    rest_until: float = 0.0
    error: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, question: Callable[[], T]) -> T:
        """Raises `RedisDown`."""
        if time.monotonic() < self.rest_until:
            raise RedisDown(self.error)
        try:
            answer = question()
        except (RedisError, OSError) as error:
            with self.lock:
                self.error = f"Redis can't be used: {error}"
                self.rest_until = time.monotonic() + REST_SECONDS
            raise RedisDown(self.error) from error
        self.error = ""
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedJob:
    """A job among the failed ones, and why it is there."""

    manifest_id: int
    reason: str
    ended: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReadings:
    """Both lanes, the scanner, and the last sweep, now."""

    main: QueueDepth
    backfill: QueueDepth
    oldest_started_seconds: float | None
    scanner: str  # up, busy or down, as the workers found it
    sweep: SweepFound | None


def read_queue(queue: RescanQueue, backfill: RescanQueue, store: MetricStore) -> QueueReadings:
    scanner: Any = queue.connection.get(circuit_key_of(queue.name))
    return QueueReadings(
        main=queue.depth(),
        backfill=backfill.depth(),
        oldest_started_seconds=oldest_started(queue),
        scanner=scanner.decode(errors="replace") if scanner else "up",
        sweep=store.sweep(),
    )


def oldest_started(queue: RescanQueue) -> float | None:
    """How long the longest-running job has run, in seconds; of the first MOST_STARTED entries."""
    entries: Any = queue.connection.zrange(f"rq:wip:{queue.name}", 0, MOST_STARTED - 1)
    ids = [entry.decode(errors="replace").partition(":")[0] for entry in entries]
    started = [parse_time(fields[0]) for fields in read_fields(queue, ids, ["started_at"])]
    ages = [(datetime.now(UTC) - each).total_seconds() for each in started if each is not None]
    return max((age for age in ages if age >= 0), default=None)


def read_failed_jobs(lanes: Sequence[RescanQueue]) -> list[FailedJob]:
    """The newest failed jobs of the lanes, newest first."""
    return [job for lane in lanes for job in failed_jobs_of(lane)][: MOST_FAILED * len(lanes)]


def failed_jobs_of(lane: RescanQueue) -> list[FailedJob]:
    entries: Any = lane.connection.zrevrange(f"rq:failed:{lane.name}", 0, MOST_FAILED - 1)
    ids = [entry.decode(errors="replace") for entry in entries]
    names = ["meta", "exc_info", "ended_at"]
    return [
        FailedJob(
            manifest_id=manifest_id_of(job_id),
            reason=reason_of_failure(meta, info),
            ended=parse_time(ended),
        )
        for job_id, (meta, info, ended) in zip(ids, read_fields(lane, ids, names), strict=True)
        if job_id.removeprefix("rescan-").isdecimal()
    ]


def read_fields(queue: RescanQueue, ids: Sequence[str], names: list[str]) -> list[Any]:
    """These fields of each job's hash, in one round trip."""
    if not ids:
        return []
    with queue.connection.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hmget(f"rq:job:{job_id}", names)
        return list(pipeline.execute())


def reason_of_failure(meta: bytes | None, info: bytes | None) -> str:
    """What the worker noted last, else the last line of what was raised."""
    try:
        noted = json.loads(meta or b"{}")
    except (ValueError, RecursionError):
        noted = {}
    if isinstance(noted, dict) and isinstance(noted.get("waiting_for"), str):
        return str(noted["waiting_for"])
    lines = (info or b"").decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "the job failed without a word"


def parse_time(text: bytes | None) -> datetime | None:
    if not text:
        return None
    try:
        return utcparse(text.decode(errors="replace"))
    except ValueError:
        return None
