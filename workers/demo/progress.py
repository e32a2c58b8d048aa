"""Follows the pipeline from outside until everything has ended: worker logs, scanner, queues."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from queues.rescanqueue import RescanQueue
from workers.demo.environment import Environment
from workers.demo.pulls import Pulled
from workers.demo.quaydatabase import count_items_due
from workers.demo.scannerrecords import IndexRequest
from workers.demo.timeline import Timeline

LOOK_SECONDS = 0.02
# So long nothing may happen, while the scanner reads nothing either, before it is a failure.
LONGEST_SILENCE_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """What has happened so far; `outcomes` by manifest id, as the rescan workers said them."""

    environment: Environment
    pulled: Sequence[Pulled]
    timeline: Timeline
    outcomes: dict[int, str] = field(default_factory=dict)
    shown_requests: int = 0

    def follow(self) -> bool:
        """Shows what happens until nothing is on its way; False if it never came to that.

        Raises `DemoFailed` when a worker ended, and KeyboardInterrupt when somebody wants an end.
        """
        last_news = time.monotonic()
        while time.monotonic() - last_news < LONGEST_SILENCE_SECONDS:
            self.environment.interruption.check()
            self.environment.workers.check()
            done = self.is_done()  # before the events are read, so that none is missed
            if self.show_news() or self.scanner_reads():
                last_news = time.monotonic()
            if done:
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def is_done(self) -> bool:
        """In this order: an item is taken away only after its rescans were enqueued."""
        return (
            count_items_due(LONGEST_SILENCE_SECONDS) == 0
            and count_jobs(self.environment.rescans) == 0
        )

    def scanner_reads(self) -> bool:
        return any(each.ended_ns is None for each in self.environment.scanner.requests.all())

    def show_news(self) -> bool:
        """Whether there was any."""
        news = sorted(
            [*self.worker_events(), *self.index_calls()], key=lambda event: event["timestamp"]
        )
        told = False
        for event in news:
            self.note(event)
            told |= self.timeline.show(event)
        return told

    def worker_events(self) -> Iterator[dict[str, Any]]:
        while True:
            try:
                event = self.environment.workers.events.get_nowait()
            except queue.Empty:
                return
            # An index call is shown when it arrives: that is what the figures measure.
            if "timestamp" in event and event.get("event") != "index call":
                yield event

    def index_calls(self) -> Iterator[dict[str, Any]]:
        """What has arrived at the scanner stand-in, in the form of a worker's event."""
        for request in self.environment.scanner.requests.all()[self.shown_requests :]:
            if request.digest is None and request.ended_ns is None:
                return  # its body is still being read
            self.shown_requests += 1
            yield from (index_call(request, each) for each in self.pulls_of(request))

    def pulls_of(self, request: IndexRequest) -> list[Pulled]:
        return [each for each in self.pulled if each.digest == request.digest][:1]

    def note(self, event: dict[str, Any]) -> None:
        """Keeps the moment at which a blob was placed, and how a rescan ended."""
        if event.get("event") == "blob placed":
            placed_ns = int(datetime.fromisoformat(event["timestamp"]).timestamp() * 1e9)
            for each in self.pulled:
                if event["digest"] in each.layers:
                    each.placed_ns.setdefault(event["digest"], placed_ns)
        elif event.get("event") == "rescanned":
            # A manifest may be looked at once more when two of its blobs end at once; that changes
            # nothing, and the first outcome is the one that tells the story.
            self.outcomes.setdefault(int(event["manifest_id"]), str(event["outcome"]))


def count_jobs(rescans: RescanQueue) -> int:
    """Rescans queued, in a worker's hands, for later, or wished for once more; at one moment.

    `RescanQueue.depth` is for people: it looks at one after the other, and a job that moves on in
    between is in none of them.
    """
    with rescans.connection.pipeline(transaction=True) as pipeline:
        pipeline.llen(rescans.key)
        pipeline.llen(rescans.intermediate_queue_key)
        pipeline.zcard(rescans.started_job_registry.key)
        pipeline.zcard(rescans.scheduled_job_registry.key)
        pipeline.hlen(rescans.again_key)
        return sum(pipeline.execute())


def index_call(request: IndexRequest, pulled: Pulled) -> dict[str, Any]:
    arrived = datetime.fromtimestamp(request.arrived_ns / 1e9, UTC)
    return {
        "event": "index call",
        "timestamp": arrived.isoformat().replace("+00:00", "Z"),
        "manifest": pulled.manifest_id,
        "digest": pulled.digest,
    }
