"""Where the counts of all worker processes meet: a few keys in Redis, each of bounded size.

    rescan:<queue>:metrics              totals of counters and histograms, one field a series
    rescan:<queue>:events               the last EVENTS_KEPT events, newest first
    rescan:<queue>:organizations        counts by organisation, for the page
    rescan:<queue>:organizations:used   which of them were used last; ORGANIZATIONS_KEPT are kept
    rescan:<queue>:swept                what the last whole sweep found
    rescan:<queue>:samples              the last hour, a sample every SAMPLE_SECONDS

`redis-cli HGETALL rescan:rescan:metrics` shows the totals.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from redis import Redis

from data.metrics import Series
from queues.events import Event, decode_event
from queues.rescanqueue import read_script

EVENTS_KEPT = 100
ORGANIZATIONS_KEPT = 1000
SAMPLE_SECONDS = 15
SAMPLES_KEPT = 3600 // SAMPLE_SECONDS


class OrganizationCount(StrEnum):
    """What is counted for each organisation, on the page alone: a metric would name them all."""

    PLACED = "placed"  # blobs
    BYTES = "bytes"  # of these blobs
    COMPLETED = "completed"  # manifests
    FAILED = "failed"
    RESETS = "resets"


@dataclass(frozen=True, slots=True)
class Organization:
    """One organisation's counts, and when it was last used (unix seconds)."""

    name: str
    used: float
    counts: Mapping[OrganizationCount, int]


@dataclass(frozen=True, slots=True)
class SweepFound:
    """What the last whole sweep found, and when it ended (unix seconds)."""

    stuck: int
    at: float


@dataclass(frozen=True, slots=True)
class MetricStore:
    """The keys above, of the queue called `name` (RESCAN_QUEUE_NAME)."""

    connection: Redis
    name: str

    def key(self, part: str) -> str:
        return f"rescan:{self.name}:{part}"

    def record(
        self,
        amounts: Mapping[Series, float],
        events: Sequence[Event] = (),
        organizations: Mapping[tuple[str, OrganizationCount], int] | None = None,
    ) -> None:
        """Adds the amounts to the totals and notes the events. One Redis command."""
        arguments: list[Any] = [len(amounts)]
        for series, amount in amounts.items():
            arguments += [encode_series(series), repr(float(amount))]
        arguments.append(len(organizations or {}))
        for (organization, count), added in (organizations or {}).items():
            arguments += [organization, count.value, added]
        arguments += [len(events), *(event.encode() for event in events)]
        arguments += [EVENTS_KEPT, ORGANIZATIONS_KEPT, time.time()]
        parts = ("metrics", "events", "organizations", "organizations:used")
        script = self.connection.register_script(read_script("record_work"))
        script(keys=[self.key(part) for part in parts], args=arguments)

    def totals(self) -> dict[Series, float]:
        fields: Any = self.connection.hgetall(self.key("metrics"))
        return decode_totals(fields)

    def events(self) -> list[Event]:
        """Newest first."""
        texts = self.connection.lrange(self.key("events"), 0, EVENTS_KEPT - 1)
        return [event for event in map(decode_event, texts) if event is not None]

    def organizations(self, most: int) -> list[Organization]:
        """Those used last, newest first. Two Redis commands."""
        used: Any = self.connection.zrevrange(
            self.key("organizations:used"), 0, most - 1, withscores=True
        )
        if not used:
            return []
        kinds = list(OrganizationCount)
        names = [name.decode(errors="replace") for name, _ in used]
        fields = [f"{name}/{kind.value}" for name in names for kind in kinds]
        values = [read_count(v) for v in self.connection.hmget(self.key("organizations"), fields)]
        return [
            Organization(
                name,
                float(score),
                dict(zip(kinds, values[n * len(kinds) :], strict=False)),
            )
            for n, (name, (_, score)) in enumerate(zip(names, used, strict=True))
        ]

    def record_sweep(self, stuck: int) -> None:
        found = json.dumps({"stuck": stuck, "at": time.time()})
        self.connection.set(self.key("swept"), found)

    def sweep(self) -> SweepFound | None:
        match load_json(self.connection.get(self.key("swept"))):
            case {"stuck": int(stuck), "at": int() | float() as at}:
                return SweepFound(stuck, float(at))
        return None

    def take_sample_turn(self) -> bool:
        """Whether it is for this process to take the next sample; one of all ops servers is."""
        taken = self.connection.set(
            self.key("sampled"), "1", nx=True, px=int(SAMPLE_SECONDS * 1000 * 0.9)
        )
        return bool(taken)

    def add_sample(self, sample: Mapping[str, Any]) -> None:
        with self.connection.pipeline(transaction=True) as pipeline:
            pipeline.lpush(self.key("samples"), json.dumps(sample))
            pipeline.ltrim(self.key("samples"), 0, SAMPLES_KEPT - 1)
            pipeline.execute()

    def samples(self) -> list[dict[str, Any]]:
        """Of the last hour, oldest first."""
        texts = self.connection.lrange(self.key("samples"), 0, SAMPLES_KEPT - 1)
        loaded = [load_json(text) for text in reversed(texts)]
        return [sample for sample in loaded if isinstance(sample, dict)]


def read_count(value: bytes | str | None) -> int:
    """A count; 0 for what no program of ours wrote."""
    return int(value) if value is not None and value.isdigit() and len(value) < 19 else 0


def encode_series(series: Series) -> str:
    name, labels = series
    return json.dumps([name, dict(labels)])


def decode_totals(fields: Mapping[bytes, bytes]) -> dict[Series, float]:
    """Totals by series; a field that no program of ours wrote is passed over."""
    return dict(decoded_fields(fields.items()))


def decoded_fields(fields: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[Series, float]]:
    for field, value in fields:
        match load_json(field):
            case [str(name), dict(labels)]:
                pairs = ((str(key), str(label)) for key, label in labels.items())
                amount = load_json(value)
                if isinstance(amount, int | float):
                    yield (name, tuple(sorted(pairs))), float(amount)


def load_json(text: bytes | str | None) -> Any:
    """The value; None for what is no JSON."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
