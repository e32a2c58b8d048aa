"""Every metric: its name, its help, its labels.

Three kinds by where a value comes from, because one number has many worker processes behind it, on
one machine or on many:

- Counters and histograms are prometheus-client objects here, in the process that did the work.
  After each piece of work it adds what is new to one hash in Redis (`queues/metricstore.py`, one
  command), where all processes meet; the ops server's /metrics shows those totals. prometheus-
  client's own multiprocess files were not taken: they need a directory that all processes share,
  which pods of a cluster don't have, and grow with every process id that ever was.
- Gauges of the queue are read from Redis when they are asked for. No process has to remember them,
  so none can be wrong about them, and a dead one leaves nothing behind.
- Gauges of the database (`quay_manifest_security_status_rows`) are read by the ops server every
  minute, since counting a million rows takes a tenth of a second.

With several ops servers each shows the same totals: aggregate with `max by (..)` over them, never
with `sum`. What a process pushes to a Pushgateway is its own counts only, which do add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Histogram

from data.secscan.rescan import Outcome
from data.secscan.status import IndexStatus, Reason

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and its sorted labels."""

OTHER_NAMESPACE = "other"  # the label of an organisation that TRACKED_NAMESPACES doesn't name

# Seconds. An idle pipeline takes milliseconds from the last blob to the call, a backlog minutes.
LATENCY_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600,
)  # fmt: skip
# Seconds. What Clair has already takes milliseconds, a large image minutes; it is given 600 s.
INDEX_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class BlobOutcome(StrEnum):
    """How one try to download a blob ended."""

    PLACED = "placed"  # stored, and its placement written
    FAILED = "failed"  # it is tried again
    GIVEN_UP = "given_up"  # no retry is left: the sweep asks again, at most once an hour


class QueueState(StrEnum):
    """Where a rescan job can be."""

    QUEUED = "queued"
    STARTED = "started"
    SCHEDULED = "scheduled"  # waits for its time: a retry, somebody else's claim, a busy scanner
    FAILED = "failed"
    BACKFILL = "backfill"  # queued, started or scheduled on the backfill's lane


COUNTER_LABELS: Mapping[str, tuple[str, ...]] = {
    "quay_rescan_jobs": ("outcome", "reason"),
    "quay_proxy_cache_security_resets": ("namespace",),
    "quay_proxy_cache_blob_downloads": ("outcome",),
    "quay_proxy_cache_blob_bytes": ("namespace",),
}


class Metrics:
    """The counters and histograms of one process, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Counter(
            "quay_rescan_jobs",
            "Rescan jobs that ended, by how they ended and why they were asked for.",
            COUNTER_LABELS["quay_rescan_jobs"],
            registry=self.registry,
        )
        self.last_blob_to_index = Histogram(
            "quay_rescan_last_blob_to_index_seconds",
            "From the moment a manifest's last blob was placed to the call of Clair's indexer.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.index = Histogram(
            "quay_rescan_index_seconds",
            "How long Clair's indexer took to answer.",
            buckets=INDEX_BUCKETS,
            registry=self.registry,
        )
        self.resets = Counter(
            "quay_proxy_cache_security_resets",
            "Status rows that were deleted because their manifest is complete.",
            COUNTER_LABELS["quay_proxy_cache_security_resets"],
            registry=self.registry,
        )
        self.blob_downloads = Counter(
            "quay_proxy_cache_blob_downloads",
            "Tries to download a blob of a proxied image, by how they ended.",
            COUNTER_LABELS["quay_proxy_cache_blob_downloads"],
            registry=self.registry,
        )
        self.blob_bytes = Counter(
            "quay_proxy_cache_blob_bytes",
            "Bytes of blobs that were downloaded and placed.",
            COUNTER_LABELS["quay_proxy_cache_blob_bytes"],
            registry=self.registry,
        )

    def totals(self) -> dict[Series, float]:
        """Every series of this process and its value."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }


@dataclass(frozen=True, slots=True)
class GaugeDefinition:
    """A gauge whose value is read when it is asked for, by `workers/ops/exposition.py`."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


QUEUE_DEPTH = GaugeDefinition(
    "quay_rescan_queue_depth", "Rescan jobs by where they are now.", ("state",)
)
OLDEST_QUEUED = GaugeDefinition(
    "quay_rescan_oldest_queued_seconds",
    "How long the job at the head of the queue has waited; 0 for an empty queue.",
)
STUCK_MANIFESTS = GaugeDefinition(
    "quay_rescan_stuck_manifests",
    "Complete manifests that the last whole sweep found not scanned, in the queue or not.",
)
SCANNER_UP = GaugeDefinition(
    "quay_rescan_scanner_up", "1 unless the workers found Clair down when they last asked it."
)
WORKERS = GaugeDefinition("quay_rescan_workers", "Rescan workers that give a sign of life.")
STATUS_ROWS = GaugeDefinition(
    "quay_manifest_security_status_rows",
    "Rows of Quay's manifestsecuritystatus by status, counted every minute.",
    ("status",),
)

GAUGES = (QUEUE_DEPTH, OLDEST_QUEUED, STUCK_MANIFESTS, SCANNER_UP, WORKERS, STATUS_ROWS)
STATUS_LABELS: Mapping[IndexStatus, str] = {each: each.name.lower() for each in IndexStatus}


# A series that is there at 0 from the start lets a query see the first event of its kind.
# `claimed_elsewhere` is no end of a job, so it is never counted.
SERIES_FROM_THE_START: Mapping[str, tuple[Mapping[str, str], ...]] = {
    "quay_rescan_jobs_total": tuple(
        {"outcome": outcome.value, "reason": reason.value}
        for outcome, reason in product(Outcome, Reason)
        if outcome is not Outcome.CLAIMED_ELSEWHERE
    ),
    "quay_proxy_cache_blob_downloads_total": tuple(
        {"outcome": outcome.value} for outcome in BlobOutcome
    ),
    "quay_proxy_cache_security_resets_total": ({"namespace": OTHER_NAMESPACE},),
    "quay_proxy_cache_blob_bytes_total": ({"namespace": OTHER_NAMESPACE},),
}


@dataclass(frozen=True, slots=True)
class NamespaceLabels:
    """Which organisations metrics may name: TRACKED_NAMESPACES as {organisation: label}."""

    tracked: Mapping[str, str]

    def label(self, namespace: str) -> str:
        return self.tracked.get(namespace, OTHER_NAMESPACE)


def metric_names() -> frozenset[str]:
    """Every name as it is written in a query, without the suffixes of a histogram's series."""
    names = {gauge.name for gauge in GAUGES}
    for family in Metrics().registry.collect():
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return frozenset(names)
