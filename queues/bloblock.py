"""Quay's own lock between placing a blob and deleting it: `BLOB_DELETE_<digest>` in its Redis.

Quay takes it with the library python-redis-lock, expiry 30 s, on USER_EVENTS_REDIS, and goes on
without it where it can't be had. So do we: a lock that isn't there must not keep images unscanned.
Ours expires sooner and is renewed, so that one whose holder died keeps nobody for long. The library
would renew it in a thread of its own, which costs a small blob more than its download.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog
from redis import Redis
from redis.exceptions import RedisError
from redis_lock import UNLOCK_SCRIPT, Lock, NotAcquired, NotExpirable

from data.placement import HeldBlob
from queues.renewals import Held, Renewals

log = structlog.get_logger()

EXPIRY_SECONDS = 8
# So often in turn somebody waits for it, for EXPIRY_SECONDS: the library refuses to wait longer.
WAITS = 2
RENEWALS = Renewals(EXPIRY_SECONDS / 4)
# As the library has it: how long those who wait for the lock can learn that it was released.
SIGNAL_MS = 1000


@dataclass(frozen=True, slots=True)
class RedisBlobLock:
    """`data.placement.BlobLock` on Quay's Redis; None: Quay has a cluster, which we don't speak."""

    connection: Redis | None
    renewed: dict[HeldBlob, Held] = field(default_factory=dict)

    def acquire(self, digest: str) -> HeldBlob | None:
        """Waits for the lock, not for ever; None when it can't be had."""
        if self.connection is None:
            return None
        lock = Lock(self.connection, name_of(digest), expire=EXPIRY_SECONDS)
        try:
            if not take(self.connection, lock, digest):
                log.warning("blob lock not available", digest=digest, error="held by somebody else")
                return None
        except RedisError as error:
            log.warning("blob lock not available", digest=digest, error=str(error))
            return None
        held = HeldBlob(digest=digest, owner=lock.id)
        self.renewed[held] = RENEWALS.begin(lambda: renew(lock, digest))
        return held

    def release(self, blobs: Iterable[HeldBlob]) -> None:
        """Releases the locks in one round trip; one that was lost meanwhile is somebody else's."""
        held = list(blobs)
        if not held or self.connection is None:
            return
        pipeline = self.connection.pipeline(transaction=False)
        for each in held:
            RENEWALS.end(self.renewed.pop(each))
            name = name_of(each.digest)
            pipeline.eval(
                UNLOCK_SCRIPT, 2, f"lock:{name}", f"lock-signal:{name}", each.owner, SIGNAL_MS
            )
        try:
            lost = pipeline.execute()
        except RedisError as error:
            log.warning(
                "blob locks not released", digests=[each.digest for each in held], error=str(error)
            )
            return
        for each in (each for each, was_lost in zip(held, lost, strict=True) if was_lost):
            log.warning("blob lock lost before its release", digest=each.digest)


def take(connection: Redis, lock: Lock, digest: str) -> bool:
    """As the library does, but for its look, first, at whether the lock is this one's already."""
    key = f"lock:{name_of(digest)}"
    if connection.set(key, lock.id, nx=True, ex=EXPIRY_SECONDS):
        return True
    return any(lock.acquire(timeout=EXPIRY_SECONDS) for _ in range(WAITS))


def name_of(digest: str) -> str:
    return f"BLOB_DELETE_{digest}"


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
