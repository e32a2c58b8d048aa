"""The last hour: a sample of depth and latency every 15 s, in Redis.

Each is taken by one ops server, whichever comes first.

A sample keeps the latency histogram's totals; the difference between two samples is what happened
between them, from which the quantiles are estimated as Prometheus's histogram_quantile does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from data.metrics import LATENCY_BUCKETS, Series
from queues.metricstore import SAMPLE_SECONDS, MetricStore
from queues.rescanqueue import RescanQueue
from workers.ops.readings import RedisDown, RedisReader

log = structlog.get_logger()

LATENCY_SERIES = "quay_rescan_last_blob_to_index_seconds_bucket"
# Quantiles are taken over windows of so many samples: a minute.
WINDOW = 60 // SAMPLE_SECONDS


@dataclass(frozen=True, slots=True)
class Depth:
    """The main lane at one moment (unix seconds)."""

    at: float
    queued: int
    started: int
    scheduled: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Last blob to index call in the minute before `at`, in seconds."""

    at: float
    median: float
    p95: float


class Sampler:
    """Takes samples in a thread of its own until it is stopped."""

    def __init__(self, queue: RescanQueue, store: MetricStore, reader: RedisReader) -> None:
        self.queue = queue
        self.store = store
        self.reader = reader
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, name="samples", daemon=True)

    def __enter__(self) -> Sampler:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        self.thread.join(2.0)

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                self.reader.ask(self.sample_in_turn)
            except RedisDown as error:
                log.debug("no sample taken", error=str(error))
            self.ended.wait(SAMPLE_SECONDS)

    def sample_in_turn(self) -> None:
        if self.store.take_sample_turn():
            self.store.add_sample(take_sample(self.queue, self.store.totals()))


def take_sample(queue: RescanQueue, totals: Mapping[Series, float]) -> dict[str, Any]:
    depth = queue.depth()
    return {
        "at": round(time.time(), 1),
        "queued": depth.queued,
        "started": depth.started,
        "scheduled": depth.scheduled,
        "latency": cumulative_buckets(totals),
    }


def cumulative_buckets(totals: Mapping[Series, float]) -> list[float]:
    """The totals of LATENCY_BUCKETS and of +Inf, in their order."""
    counts = {
        dict(labels)["le"]: value
        for (name, labels), value in totals.items()
        if name == LATENCY_SERIES and "le" in dict(labels)
    }
    edges = [str(float(edge)) for edge in LATENCY_BUCKETS]
    return [counts.get(edge, 0.0) for edge in [*edges, "+Inf"]]


def depths(samples: Sequence[Mapping[str, Any]]) -> list[Depth]:
    return [
        Depth(float(at), queued, started, scheduled)
        for sample in samples
        for at, queued, started, scheduled in [numbers(sample)]
    ]


def numbers(sample: Mapping[str, Any]) -> tuple[float, int, int, int]:
    """A sample's figures; what is no number reads as 0."""
    values = [sample.get(name) for name in ("at", "queued", "started", "scheduled")]
    at, queued, started, scheduled = (v if isinstance(v, int | float) else 0 for v in values)
    return float(at), int(queued), int(started), int(scheduled)


def latencies(samples: Sequence[Mapping[str, Any]]) -> list[Latency]:
    """One value a minute in which a rescan of an event was called."""
    found = []
    for start in range(0, len(samples) - 1, WINDOW):
        window = samples[start : start + WINDOW + 1]
        gained = difference(buckets_of(window[0]), buckets_of(window[-1]))
        if gained and gained[-1] > 0:
            at = numbers(window[-1])[0]
            found.append(Latency(at, quantile(gained, 0.5), quantile(gained, 0.95)))
    return found


def buckets_of(sample: Mapping[str, Any]) -> list[float]:
    counts = sample.get("latency")
    if not isinstance(counts, list) or len(counts) != len(LATENCY_BUCKETS) + 1:
        return []
    return [float(count) if isinstance(count, int | float) else 0.0 for count in counts]


def difference(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """What each bucket gained; all of `after` when Redis had lost its totals in between."""
    if len(before) != len(after) or (before and after[-1] < before[-1]):
        return list(after)
    return [later - earlier for earlier, later in zip(before, after, strict=True)]


def quantile(cumulative: Sequence[float], share: float) -> float:
    """The value below which `share` of the observations lie, linear within its bucket."""
    wanted = share * cumulative[-1]
    lower, below = 0.0, 0.0
    for edge, count in zip(LATENCY_BUCKETS, cumulative, strict=False):
        if count >= wanted:
            inside = count - below
            return lower + (edge - lower) * ((wanted - below) / inside if inside else 1.0)
        lower, below = float(edge), count
    return float(LATENCY_BUCKETS[-1])
