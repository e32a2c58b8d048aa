"""Tells the operator what this process did: counts it, and notes it among the last events.

Everything that one piece of work has to say goes to Redis in one command, on a connection of its
own that gives up after a second. Whatever goes wrong with it is logged and never the work's
trouble; counts that couldn't be told are told with the next ones.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog
from redis.exceptions import RedisError

from data.manifest_records import ManifestRecord
from data.metrics import BlobOutcome, Metrics, NamespaceLabels, Series
from data.secscan.rescan import Outcome, RescanRequest, RescanResult
from queues.events import Event, EventKind
from queues.metricstore import EVENTS_KEPT, MetricStore, OrganizationCount

log = structlog.get_logger()

# After a failure nothing is sent for so long: work must not wait for a Redis that doesn't answer.
SILENCE_SECONDS = 5.0
# Small blobs are placed by the hundred a second: together they tell this often.
PAUSE_SECONDS = 0.2
# In a job's meta: its manifest's first index call was timed already.
CALLED = "index_called"


class Reporter:
    """One a process; threads may share it. Also the `IndexObserver` of the process's indexer."""

    def __init__(self, store: MetricStore, namespaces: NamespaceLabels) -> None:
        self.store = store
        self.namespaces = namespaces
        self.metrics = Metrics()
        self.lock = threading.Lock()
        self.told: dict[Series, float] = self.metrics.totals()
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.organizations: Counter[tuple[str, OrganizationCount]] = Counter()
        self.silent_until = 0.0
        self.told_at = 0.0
        self.job_meta: dict[str, Any] = {}
        self.complete_since: datetime | None = None

    def blob_placed(self, namespace: str, size: int) -> None:
        self.metrics.blob_downloads.labels(outcome=BlobOutcome.PLACED.value).inc()
        self.metrics.blob_bytes.labels(namespace=self.namespaces.label(namespace)).inc(size)
        self.count(namespace, OrganizationCount.PLACED)
        self.count(namespace, OrganizationCount.BYTES, size)

    def blob_failed(self, what: str, error: str, *, given_up: bool) -> None:
        """`what` is the name of the queue item, or the repository and digest."""
        outcome = BlobOutcome.GIVEN_UP if given_up else BlobOutcome.FAILED
        self.metrics.blob_downloads.labels(outcome=outcome.value).inc()
        kind = EventKind.BLOB_GIVEN_UP if given_up else EventKind.BLOB_FAILED
        self.note(Event(kind=kind, detail=f"{what}: {error}"))

    def complete(self, manifest_id: int, digest: str, repository: str) -> None:
        self.note(
            Event(
                kind=EventKind.COMPLETE,
                manifest_id=manifest_id,
                digest=digest,
                repository=repository,
            )
        )

    def job_begins(self, meta: dict[str, Any], complete_since: datetime | None) -> None:
        """`complete_since`: when the last blob was placed, where an event says so."""
        self.job_meta = meta
        self.complete_since = None if CALLED in meta else complete_since

    def reset(self, record: ManifestRecord) -> None:
        self.metrics.resets.labels(namespace=self.namespaces.label(record.namespace)).inc()
        self.count(record.namespace, OrganizationCount.RESETS)

    def index_called(self, record: ManifestRecord) -> None:
        """Times the first call of a job; what follows a failure of Clair's would blur it."""
        del record
        if self.complete_since is not None:
            waited = datetime.now(self.complete_since.tzinfo) - self.complete_since
            self.metrics.last_blob_to_index.observe(max(0.0, waited.total_seconds()))
            self.complete_since = None
            self.job_meta[CALLED] = True

    def index_answered(self, record: ManifestRecord, seconds: float) -> None:
        del record
        self.metrics.index.observe(seconds)

    def rescanned(self, request: RescanRequest, result: RescanResult) -> None:
        """A job ended with a result."""
        labels = {"outcome": result.outcome.value, "reason": request.reason.value}
        self.metrics.jobs.labels(**labels).inc()
        if result.repository and result.outcome in {Outcome.COMPLETED, Outcome.FAILED}:
            namespace = result.repository.partition("/")[0]
            self.count(namespace, OrganizationCount(result.outcome.value))
        detail = f"{result.outcome.value}: {result.error}" if result.error else result.outcome.value
        self.note(
            Event(
                kind=EventKind.RESCANNED,
                manifest_id=result.manifest_id,
                digest=result.digest,
                repository=result.repository,
                detail=detail,
            )
        )

    def job_failed(self, request: RescanRequest, error: Exception) -> None:
        """A job ended with an error; it lies among the failed ones."""
        labels = {"outcome": Outcome.FAILED.value, "reason": request.reason.value}
        self.metrics.jobs.labels(**labels).inc()
        self.note_job(EventKind.JOB_FAILED, request, str(error))

    def again_later(self, request: RescanRequest, why: str) -> None:
        self.note_job(EventKind.AGAIN_LATER, request, why)

    def swept(self, *, stuck: int, enqueued: int) -> None:
        """A whole sweep ended: so many complete manifests aren't scanned, so many of them are new.

        Worth an event only when it found something that no worker knew of.
        """
        if enqueued:
            detail = f"{stuck} complete manifests not scanned, {enqueued} of them enqueued now"
            self.note(Event(kind=EventKind.SWEPT, detail=detail))
        try:
            self.store.record_sweep(stuck)
        except RedisError as error:
            log.warning("sweep not reported", error=str(error))
        self.tell()

    def note_job(self, kind: EventKind, request: RescanRequest, detail: str) -> None:
        self.note(Event(kind=kind, manifest_id=request.manifest_id, detail=detail))

    def note(self, event: Event) -> None:
        with self.lock:
            self.events.append(event)

    def count(self, namespace: str, kind: OrganizationCount, added: int = 1) -> None:
        with self.lock:
            self.organizations[namespace, kind] += added

    def tell_now_and_then(self) -> None:
        """Tells, unless somebody did a moment ago; for whoever calls again soon, or `tell`."""
        if time.monotonic() >= self.told_at + PAUSE_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Tells Redis what is new, in one command; never raises."""
        with self.lock:
            self.told_at = time.monotonic()
            if self.told_at < self.silent_until:
                return
            totals = self.metrics.totals()
            new = difference(totals, self.told)
            if not (new or self.events or self.organizations):
                return
            try:
                self.store.record(new, list(self.events), self.organizations)
            except RedisError as error:
                self.silent_until = time.monotonic() + SILENCE_SECONDS
                log.warning("not reported, told later", error=str(error))
                return
            self.told = totals
            self.events.clear()
            self.organizations.clear()


def difference(totals: Mapping[Series, float], told: Mapping[Series, float]) -> dict[Series, float]:
    """What each series has gained; those that gained nothing are left out."""
    gained = {series: value - told.get(series, 0.0) for series, value in totals.items()}
    return {series: amount for series, amount in gained.items() if amount}
