"""/metrics: the totals of all processes from Redis, and the gauges read at this moment.

What can't be read is left out rather than shown as 0: a missing series is what alerts look for.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from data.metrics import (
    COUNTER_LABELS,
    OLDEST_QUEUED,
    QUEUE_DEPTH,
    SCANNER_UP,
    SERIES_FROM_THE_START,
    STATUS_LABELS,
    STATUS_ROWS,
    STUCK_MANIFESTS,
    WORKERS,
    GaugeDefinition,
    Metrics,
    QueueState,
    Series,
)
from data.secscan.status import IndexStatus
from queues.metricstore import MetricStore
from queues.rescanqueue import RescanQueue
from workers.ops.readings import QueueReadings, RedisDown, RedisReader, read_queue
from workers.ops.watcher import Watcher

# What a whole sweep found that is older than this says nothing of now.
SWEEP_FRESH_SECONDS = 3600

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gauges:
    """A prometheus-client collector of every gauge."""

    queue: RescanQueue
    backfill: RescanQueue
    store: MetricStore
    reader: RedisReader
    watcher: Watcher

    def collect(self) -> Iterator[Metric]:
        with suppress(RedisDown):
            yield from queue_gauges(
                self.reader.ask(lambda: read_queue(self.queue, self.backfill, self.store))
            )
        latest = self.watcher.latest
        if not latest.error and latest.counted_at is not None:
            yield status_gauge(latest.status_rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Totals:
    """A prometheus-client collector of the counters and histograms of all processes."""

    store: MetricStore
    reader: RedisReader

    def collect(self) -> Iterator[Metric]:
        try:
            totals = self.reader.ask(self.store.totals)
        except RedisDown:
            return
        yield from families(totals)


def families(totals: Mapping[Series, float]) -> Iterator[Metric]:
    """The metrics of `data.metrics.Metrics` with these values, and no others."""
    fresh = Metrics()
    by_name: dict[str, dict[Labels, float]] = defaultdict(dict)
    for name, known in SERIES_FROM_THE_START.items():
        by_name[name] = {tuple(sorted(labels.items())): 0.0 for labels in known}
    for (name, labels), value in [*fresh.totals().items(), *totals.items()]:
        by_name[name][labels] = value
    for family in fresh.registry.collect():
        shown = Metric(family.name, family.documentation, family.type)
        for name, every_label in sample_names(family).items():
            for labels, value in in_order(by_name[name]):
                if {label for label, _ in labels} == every_label:
                    shown.add_sample(name, dict(labels), value)
        yield shown


def sample_names(family: Metric) -> dict[str, set[str]]:
    """The samples of a family in the order of the format, and the labels that each must have."""
    if family.type == "histogram":
        ends: Mapping[str, set[str]] = {"_bucket": {"le"}, "_count": set(), "_sum": set()}
        return {f"{family.name}{end}": labels for end, labels in ends.items()}
    return {f"{family.name}_total": set(COUNTER_LABELS[family.name])}


def in_order(values: Mapping[Labels, float]) -> list[tuple[Labels, float]]:
    """By label values; buckets by their edge, as the format wants them."""

    def key(item: tuple[Labels, float]) -> tuple[float, list[str]]:
        labels = dict(item[0])
        edge = labels.pop("le", "0")
        return as_number(edge), sorted(labels.values())

    return sorted(values.items(), key=key)


def as_number(edge: str) -> float:
    try:
        return float(edge)
    except ValueError:
        return 0.0


def queue_gauges(readings: QueueReadings) -> Iterator[Metric]:
    main, backfill = readings.main, readings.backfill
    states = {
        QueueState.QUEUED: main.queued,
        QueueState.STARTED: main.started,
        QueueState.SCHEDULED: main.scheduled,
        QueueState.FAILED: main.failed + backfill.failed,
        QueueState.BACKFILL: backfill.queued + backfill.started + backfill.scheduled,
    }
    yield gauge(QUEUE_DEPTH, {state.value: value for state, value in states.items()})
    yield gauge(OLDEST_QUEUED, main.oldest_queued_seconds or 0.0)
    yield gauge(WORKERS, main.workers + backfill.workers)
    yield gauge(SCANNER_UP, 0 if readings.scanner == "down" else 1)
    sweep = readings.sweep
    if sweep is not None and time.time() - sweep.at < SWEEP_FRESH_SECONDS:
        yield gauge(STUCK_MANIFESTS, sweep.stuck)


def status_gauge(rows: Mapping[IndexStatus, int]) -> Metric:
    return gauge(STATUS_ROWS, {STATUS_LABELS[status]: count for status, count in rows.items()})


def gauge(definition: GaugeDefinition, value: float | Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(definition.name, definition.help, labels=definition.labels)
    if isinstance(value, Mapping):
        for label, number in value.items():
            family.add_metric([label], number)
    else:
        family.add_metric([], value)
    return family


def render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The text and its content type, in the format that the scraper prefers."""
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type
