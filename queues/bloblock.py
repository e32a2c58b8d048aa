"""Quay's own lock between placing a blob and deleting it: `BLOB_DELETE_<digest>` in its Redis.

Quay takes it with the library python-redis-lock, expiry 30 s, on USER_EVENTS_REDIS, and goes on
without it where it can't be had. So do we: a lock that isn't there must not keep images unscanned.
Ours expires sooner and is renewed, so that one whose holder died keeps nobody for long. The library
would renew it in a thread of its own, which costs a small blob more than its download.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from redis import Redis
from redis.exceptions import RedisError
from redis_lock import Lock, NotAcquired, NotExpirable

from queues.renewals import Renewals

log = structlog.get_logger()

EXPIRY_SECONDS = 8
# So often in turn somebody waits for it, for EXPIRY_SECONDS: the library refuses to wait longer.
WAITS = 2
RENEWALS = Renewals(EXPIRY_SECONDS / 4)


@dataclass(frozen=True, slots=True)
class RedisBlobLock:
    """`data.placement.BlobLock` on Quay's Redis; None: Quay has a cluster, which we don't speak."""

    connection: Redis | None

    @contextmanager
    def __call__(self, digest: str) -> Iterator[None]:
        lock = self.acquire(digest)
        if lock is None:
            yield
            return
        try:
            with RENEWALS.renewing(lambda: renew(lock, digest)):
                yield
        finally:
            release(lock, digest)

    def acquire(self, digest: str) -> Lock | None:
        if self.connection is None:
            return None
        lock = Lock(self.connection, f"BLOB_DELETE_{digest}", expire=EXPIRY_SECONDS)
        try:
            for _ in range(WAITS):
                if lock.acquire(timeout=EXPIRY_SECONDS):
                    return lock
        except RedisError as error:
            log.warning("blob lock not available", digest=digest, error=str(error))
            return None
        log.warning("blob lock not available", digest=digest, error="held by somebody else")
        return None


def renew(lock: Lock, digest: str) -> bool:
    """Whether it is to be renewed again: it isn't once it was lost."""
    try:
        lock.extend()
    except RedisError as error:
        log.warning("blob lock not renewed", digest=digest, error=str(error))
    except (NotAcquired, NotExpirable) as error:
        log.warning("blob lock lost", digest=digest, error=str(error))
        return False
    return True


def release(lock: Lock, digest: str) -> None:
    try:
        lock.release()
    except (NotAcquired, RedisError) as error:
        log.warning("blob lock not released", digest=digest, error=str(error))
