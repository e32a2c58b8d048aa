"""How far the walks over manifest ids have come, in Redis, so that one that was cut short goes on.

One hash for all walks of a sweep or a backfill: the walk's name -> the last id that was looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis
from redis.exceptions import ResponseError


@dataclass(frozen=True, slots=True)
class WalkCursor:
    """The cursors under `key`. What no program of ours wrote reads as a walk that begins."""

    connection: Redis
    key: str

    def read(self, walk: str) -> int:
        """The id to go on after; 0 at the beginning."""
        try:
            value = self.connection.hget(self.key, walk)
        except ResponseError:  # no hash, so no cursor could ever be kept under it
            self.clear()
            return 0
        return int(value) if value is not None and value.isdigit() and len(value) < 19 else 0

    def write(self, walk: str, manifest_id: int) -> None:
        self.connection.hset(self.key, walk, manifest_id)

    def forget(self, walk: str) -> None:
        self.connection.hdel(self.key, walk)

    def clear(self) -> None:
        self.connection.delete(self.key)
