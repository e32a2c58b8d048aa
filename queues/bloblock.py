"""Quay's own lock between placing a blob and deleting it: `BLOB_DELETE_<digest>` in its Redis.

Quay takes it with the library python-redis-lock, expiry 30 s, on USER_EVENTS_REDIS, and goes on
without it where it can't be had. So do we: a lock that isn't there must not keep images unscanned.
Ours expires sooner and is renewed, so that one whose holder died keeps nobody for long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from redis import Redis
from redis.exceptions import RedisError
from redis_lock import Lock, NotAcquired

log = structlog.get_logger()

EXPIRY_SECONDS = 8
WAIT_SECONDS = 15


@dataclass(frozen=True, slots=True)
class RedisBlobLock:
    """`data.placement.BlobLock` on Quay's Redis; None: Quay has a cluster, which we don't speak."""

    connection: Redis | None

    @contextmanager
    def __call__(self, digest: str) -> Iterator[None]:
        lock = self.acquire(digest)
        try:
            yield
        finally:
            if lock is not None:
                release(lock, digest)

    def acquire(self, digest: str) -> Lock | None:
        if self.connection is None:
            return None
        lock = Lock(
            self.connection, f"BLOB_DELETE_{digest}", expire=EXPIRY_SECONDS, auto_renewal=True
        )
        try:
            if lock.acquire(timeout=WAIT_SECONDS):
                return lock
        except RedisError as error:
            log.warning("blob lock not available", digest=digest, error=str(error))
            return None
        log.warning("blob lock not available", digest=digest, error="held by somebody else")
        return None


def release(lock: Lock, digest: str) -> None:
    try:
        lock.release()
    except (NotAcquired, RedisError) as error:
        log.warning("blob lock not released", digest=digest, error=str(error))
