"""Which manifests were found to be no images, so that nobody parses them again today.

One bit a manifest in a Redis bitmap a day, so a million of them take 125 kB and go away by
themselves. A manifest counts as known for the rest of the day and the next, 24 hours at least;
should Redis lose it all, each one costs one more parse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from redis import Redis

KEPT_SECONDS = 2 * 86400


@dataclass(frozen=True, slots=True)
class Unscannable:
    """The memory of one rescan queue, whose name is `name`."""

    connection: Redis
    name: str

    def add(self, manifest_ids: Sequence[int]) -> None:
        key = self.key(datetime.now(UTC))
        with self.connection.pipeline(transaction=False) as pipeline:
            for manifest_id in manifest_ids:
                pipeline.setbit(key, manifest_id, 1)
            if manifest_ids:
                pipeline.expire(key, KEPT_SECONDS)
            pipeline.execute()

    def without(self, manifest_ids: Sequence[int]) -> list[int]:
        """`manifest_ids` without the known ones. One round trip."""
        if not manifest_ids:
            return []
        now = datetime.now(UTC)
        keys = (self.key(now), self.key(now - timedelta(days=1)))
        with self.connection.pipeline(transaction=False) as pipeline:
            for key in keys:
                bits = pipeline.bitfield(key)
                for manifest_id in manifest_ids:
                    bits.get("u1", manifest_id)
                bits.execute()
            today, yesterday = pipeline.execute()
        return [
            manifest_id
            for manifest_id, one, other in zip(manifest_ids, today, yesterday, strict=True)
            if not one and not other
        ]

    def key(self, day: datetime) -> str:
        return f"rescan:{self.name}:unscannable:{day:%Y-%m-%d}"
