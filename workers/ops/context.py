"""What the handlers of the ops server share, built once a process by `workers/opsserver.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError
from starlette.requests import Request

from data.secscan.status import Reason
from queues.commands.context import Context
from queues.events import Event, EventKind
from queues.metricstore import MetricStore
from queues.rescanqueue import Enqueued, RescanQueue
from workers.ops.authentication import Authentication
from workers.ops.problems import unavailable
from workers.ops.readings import RedisReader
from workers.ops.watcher import Watcher

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ops:
    """The collaborators of every handler."""

    context: Context  # the same as the command line's
    store: MetricStore
    reader: RedisReader
    watcher: Watcher
    authentication: Authentication
    registry: CollectorRegistry  # of /metrics
    idle: str | None  # why the workers idle, in the words of config.yaml

    @property
    def queue(self) -> RescanQueue:
        return self.context.queue

    @property
    def backfill(self) -> RescanQueue:
        return self.context.backfill

    def require_working(self) -> None:
        """Raises a `Problem` while nothing may be changed in this Quay."""
        if self.idle is not None:
            raise unavailable(f"the workers idle, because {self.idle}; nothing was enqueued")

    def enqueue(self, manifest_id: int, reason: Reason, what: str) -> Enqueued:
        """Enqueues the rescan that a person asked for, and notes it. Raises a `Problem`."""
        self.require_working()
        try:
            enqueued = self.queue.enqueue_rescan(manifest_id, reason, timeout=self.context.timeout)
            self.note(what, manifest_id)
        except RedisError as error:
            raise unavailable(f"Redis can't be used: {error}; nothing was enqueued") from error
        self.watcher.look_soon()
        return enqueued

    def pause(self) -> None:
        self.change(self.queue.pause, "paused")

    def unpause(self) -> None:
        self.change(self.queue.unpause, "resumed")

    def change(self, action: Callable[[], object], what: str) -> None:
        try:
            action()
            self.note(what)
        except RedisError as error:
            raise unavailable(f"Redis can't be used: {error}; nothing was changed") from error

    def note(self, what: str, manifest_id: int = 0) -> None:
        log.info("by hand", action=what, manifest=manifest_id or None)
        self.store.record({}, [Event(kind=EventKind.ACTION, manifest_id=manifest_id, detail=what)])


def ops_of(request: Request) -> Ops:
    ops: Ops = request.app.state.ops
    return ops
