"""Reads the database in a thread of its own, so that no answer of the ops server waits for it.

What was read last is shown with its age, also while the database is away. A slow database is asked
less often: the pause after a read is at least ten times what the read took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog
from peewee import PeeweeException

from data.database import connection
from data.errors import DataError
from data.overview import (
    NOTHING_WAITS,
    FailedManifest,
    Waiting,
    count_status_rows,
    find_failed_manifests,
    find_waiting,
    last_completed,
    load_names,
)
from data.secscan.status import IndexStatus

log = structlog.get_logger()

LOOK_SECONDS = 5.0
COUNT_SECONDS = 60.0
# A look that takes longer than this counts as a database that doesn't answer.
PATIENCE_SECONDS = 15.0
MOST_LISTED = 50
MOST_WAITING = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseReadings:
    """What the last look found. Times are of the monotonic clock; no `error` is ""."""

    read_at: float | None = None  # of the last look that went well
    error: str = "not asked yet"
    failed: tuple[FailedManifest, ...] = ()
    waiting: Waiting = NOTHING_WAITS
    completed_at: datetime | None = None
    status_rows: Mapping[IndexStatus, int] = field(default_factory=dict)
    counted_at: float | None = None
    names: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # repository and digest


class Watcher:
    """Looks until it is stopped. `blob_queue` is PROXY_CACHE_BLOB_QUEUE_NAME."""

    def __init__(self, blob_queue: str) -> None:
        self.blob_queue = blob_queue
        self.latest = DatabaseReadings()
        self.began: float | None = None  # the look that is going on now
        self.nameless: tuple[int, ...] = ()
        self.wanted = threading.Event()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, name="database", daemon=True)

    def __enter__(self) -> Watcher:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        self.wanted.set()
        self.thread.join(1.0)

    def look_soon(self) -> None:
        """Something was changed: the next look is due now."""
        self.wanted.set()

    def want_names(self, manifest_ids: Iterable[int]) -> None:
        """Asks for the repository and digest of these manifests, soon."""
        before, self.nameless = self.nameless, tuple(manifest_ids)
        if set(self.nameless) - set(before):
            self.look_soon()

    def problem(self) -> str:
        """Why the database can't be relied upon now; "" when it can."""
        began = self.began
        if began is not None and time.monotonic() - began > PATIENCE_SECONDS:
            return f"the database has not answered for {time.monotonic() - began:.0f} s"
        return self.latest.error

    def watch(self) -> None:
        while not self.ended.is_set():
            self.wanted.clear()
            started = self.began = time.monotonic()
            self.look()
            self.began = None
            self.wanted.wait(max(LOOK_SECONDS, 10 * (time.monotonic() - started)))

    def look(self) -> None:
        try:
            with connection():
                self.latest = self.read()
        except (DataError, PeeweeException) as error:
            if not self.latest.error:
                log.warning("database not readable", error=str(error))
            self.latest = replace(self.latest, error=str(error))

    def read(self) -> DatabaseReadings:
        now, before = time.monotonic(), self.latest
        fresh = before.counted_at is not None and now - before.counted_at < COUNT_SECONDS
        return DatabaseReadings(
            read_at=now,
            error="",
            failed=tuple(find_failed_manifests(MOST_LISTED)),
            waiting=find_waiting(self.blob_queue, MOST_WAITING),
            completed_at=last_completed(),
            status_rows=before.status_rows if fresh else count_status_rows(),
            counted_at=before.counted_at if fresh else now,
            names=load_names(self.nameless) if self.nameless else before.names,
        )
