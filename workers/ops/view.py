"""What the page says, as values: decided here, drawn by `page.html`, which only places it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from data.overview import Waiting
from data.secscan.status import IndexStatus
from queues.events import Event, EventKind
from queues.metricstore import Organization
from workers.ops.history import depths, latencies
from workers.ops.plots import Plot, duration, plot_depth, plot_latency
from workers.ops.readings import FailedJob, QueueReadings
from workers.ops.watcher import DatabaseReadings

UNKNOWN = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisReadings:
    """Everything that the page reads from Redis, at one moment."""

    queue: QueueReadings
    failed: Sequence[FailedJob]
    events: Sequence[Event]
    organizations: Sequence[Organization]
    samples: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of the funnel."""

    name: str
    count: str
    detail: str
    style: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed manifest; the name is empty until the database has told it."""

    manifest_id: int
    repository: str
    digest: str
    reason: str
    when: datetime | None  # UTC


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the operator should see first: style is `bad` or `note`."""

    style: str
    text: str


@dataclass(frozen=True, slots=True)
class State:
    """How it stands in a word: what keeps all jobs waiting, the worst first. Style as above."""

    style: str
    text: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One more thing to know at a glance."""

    name: str
    value: str


CLAIR = {"up": "up, as the workers last saw it", "busy": "asked for a pause", "down": "down"}


def state(redis: RedisReadings | None, database_error: str, idle: str | None) -> State:
    if redis is None:
        return State("bad", "Redis is away")
    if database_error:
        return State("bad", "Database is away")
    if idle is not None:
        return State("note", "Idle")
    queue = redis.queue
    if queue.main.workers == 0:
        return State("bad", "No worker runs")
    if queue.main.paused:
        return State("note", "Paused")
    if queue.scanner == "down":
        return State("bad", "Clair is down")
    return State("good", "Working")


def notices(
    redis: RedisReadings | None, redis_error: str, database_error: str, idle: str | None
) -> list[Notice]:
    found = []
    if redis is None:
        found.append(Notice("bad", f"{redis_error}. What Redis holds isn't shown."))
    if database_error:
        found.append(Notice("bad", f"Database: {database_error}. Shown is what was read last."))
    if idle is not None:
        found.append(Notice("note", f"The workers idle, because {idle}."))
    if redis is None:
        return found
    queue = redis.queue
    if queue.main.paused:
        found.append(Notice("note", "Paused: no worker takes jobs until somebody resumes."))
    if queue.scanner == "down":
        found.append(Notice("bad", "Clair is down, as the workers found it. Jobs wait for it."))
    elif queue.scanner == "busy":
        found.append(Notice("note", "Clair asked for a pause (429). Jobs wait for it."))
    if queue.main.workers == 0 and idle is None:
        found.append(Notice("bad", "No rescan worker runs. Start workers.rescanworker."))
    return found


def funnel(redis: RedisReadings | None, database: DatabaseReadings) -> list[Stage]:
    return [
        stage_waiting(database),
        *stages_of_queue(redis.queue if redis else None),
        stage_done(database),
        stage_failed(redis, database),
    ]


def stage_waiting(database: DatabaseReadings) -> Stage:
    waiting = database.waiting
    due = waiting.oldest_due_seconds
    blobs = counted(waiting.blobs, "blob", more=waiting.more)
    detail = f"{blobs} to place" if waiting.blobs else "no blob is missing"
    if due:
        detail += f", first due {lasting(due)} ago"
    return Stage(
        name="Waiting for blobs",
        count=with_more(waiting.count, waiting.more) if database.read_at is not None else UNKNOWN,
        detail=detail,
    )


def waiting_more(waiting: Waiting) -> str:
    """How many wait besides those that are listed; "" for none."""
    others = waiting.count - len(waiting.manifests)
    return with_more(others, waiting.more) if others or waiting.more else ""


def stages_of_queue(queue: QueueReadings | None) -> list[Stage]:
    if queue is None:
        return [
            Stage(name="Queued", count=UNKNOWN, detail="not known"),
            Stage(name="Indexing", count=UNKNOWN, detail="not known"),
        ]
    main, backfill = queue.main, queue.backfill
    waited = main.oldest_queued_seconds
    details = [] if waited is None else [f"first waits {lasting(waited)}"]
    if main.scheduled:
        details.append(f"{main.scheduled:,} for later")
    if backfill.queued + backfill.scheduled:
        details.append(f"{backfill.queued + backfill.scheduled:,} in backfill")
    running = queue.oldest_started_seconds
    return [
        Stage(
            name="Queued", count=f"{main.queued:,}", detail=", ".join(details) or "nothing waits"
        ),
        Stage(
            name="Indexing",
            count=f"{main.started + backfill.started:,}",
            detail=f"longest runs {lasting(running)}"
            if running is not None
            else counted(main.workers + backfill.workers, "worker") + " ready",
        ),
    ]


def stage_done(database: DatabaseReadings) -> Stage:
    done = database.status_rows.get(IndexStatus.COMPLETED)
    last = database.completed_at
    return Stage(
        name="Done",
        count=UNKNOWN if done is None else f"{done:,}",
        detail="none yet" if last is None else f"last {ago(as_utc(last))}",
        style="good",
    )


def stage_failed(redis: RedisReadings | None, database: DatabaseReadings) -> Stage:
    rows = database.status_rows
    failed = rows.get(IndexStatus.FAILED, 0) + rows.get(IndexStatus.SCAN_RETRIES_EXHAUSTED, 0)
    jobs = redis.queue.main.failed + redis.queue.backfill.failed if redis else 0
    latest = database.failed[0].last_indexed if database.failed else None
    details = [f"last {ago(as_utc(latest))}"] if latest is not None else []
    if jobs:
        details.append(f"{counted(jobs, 'job')} failed")
    return Stage(
        name="Failed",
        count=f"{failed:,}" if rows else UNKNOWN,
        detail=", ".join(details) or "none",
        style="bad" if failed or jobs else "",
    )


def facts(redis: RedisReadings | None) -> list[Fact]:
    """What stands below the funnel."""
    if redis is None:
        return []
    queue = redis.queue
    backfill = queue.backfill
    waiting = backfill.queued + backfill.scheduled
    found = [
        Fact("Workers", f"{queue.main.workers} and {backfill.workers} for backfill"),
        Fact("Clair", CLAIR.get(queue.scanner, queue.scanner)),
        Fact("Backfill", f"{waiting:,} to do" if waiting else "nothing to do"),
    ]
    if queue.sweep is None:
        return [*found, Fact("Last sweep", "none yet")]
    swept = f"{ago(from_unix(queue.sweep.at))}, {queue.sweep.stuck:,} complete and not scanned"
    return [*found, Fact("Last sweep", swept)]


def failures(redis: RedisReadings | None, database: DatabaseReadings) -> list[Failure]:
    """Rows that say FAILED and jobs that failed, one line a manifest, newest first."""
    found: dict[int, Failure] = {}
    for job in redis.failed if redis else ():
        repository, digest = database.names.get(job.manifest_id, ("", ""))
        found[job.manifest_id] = Failure(
            manifest_id=job.manifest_id,
            repository=repository,
            digest=digest,
            reason=job.reason,
            when=job.ended,
        )
    for row in database.failed:
        found[row.manifest_id] = Failure(
            manifest_id=row.manifest_id,
            repository=row.repository,
            digest=row.digest,
            reason=row.error or "Quay's worker stored no reason",
            when=as_utc(row.last_indexed),
        )
    first = datetime.min.replace(tzinfo=UTC)
    return sorted(found.values(), key=lambda each: each.when or first, reverse=True)


def plots(samples: Sequence[Mapping[str, Any]]) -> list[Plot]:
    now = time.time()
    depth, latency = depths(samples), latencies(samples)
    return [
        plot_depth(
            now,
            [
                ("queued", "line-1", [(each.at, each.queued) for each in depth]),
                ("indexing", "line-2", [(each.at, each.started) for each in depth]),
                ("for later", "line-3", [(each.at, each.scheduled) for each in depth]),
            ],
        ),
        plot_latency(
            now,
            [
                ("half within", "line-1", [(each.at, each.median) for each in latency]),
                ("95% within", "line-3", [(each.at, each.p95) for each in latency]),
            ],
        ),
    ]


def style_of_event(event: Event) -> str:
    """`good`, `bad` or nothing."""
    if event.kind in {EventKind.JOB_FAILED, EventKind.BLOB_GIVEN_UP}:
        return "bad"
    if event.kind is EventKind.RESCANNED:
        outcome = event.detail.partition(":")[0]
        return {"completed": "good", "failed": "bad"}.get(outcome, "")
    return ""


def as_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def from_unix(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def ago(moment: datetime) -> str:
    """`3 s ago`; a moment that other clocks see in the future is now."""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    return "now" if seconds < 1 else f"{lasting(seconds)} ago"


def lasting(seconds: float) -> str:
    """In whole seconds at least: what changes while one reads needs no more."""
    return duration(max(1, int(seconds)))


def counted(number: int, noun: str, *, more: bool = False) -> str:
    return f"{with_more(number, more)} {noun}" + ("" if number == 1 else "s")


def with_more(number: int, more: bool) -> str:
    return f"{number:,}+" if more else f"{number:,}"


def size(number: float) -> str:
    """312 B, 4.1 kB, 27 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5:
            return (
                f"{number:.0f} {unit}" if number >= 9.95 or unit == "B" else f"{number:.1f} {unit}"
            )
        number /= 1000
    return f"{number:.0f} PB"
