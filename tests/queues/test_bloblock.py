"""Quay's lock around a placement: its name, how long it lasts, and a Redis that is away."""

from __future__ import annotations

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis_lock import Lock

from queues.bloblock import RedisBlobLock
from tests.servers import free_port

DIGEST = "sha256:" + "a" * 64


def test_it_is_the_lock_that_quays_garbage_collector_takes(redis: Redis) -> None:
    quays = Lock(redis, f"BLOB_DELETE_{DIGEST}", expire=30)
    with RedisBlobLock(redis)(DIGEST):
        (key,) = redis.keys("lock:*")
        assert key == f"lock:BLOB_DELETE_{DIGEST}".encode()
        assert 0 < redis.ttl(key) <= 30, "one whose holder died is anybody's as soon as Quay's own"
        assert not quays.acquire(blocking=False)
    assert quays.acquire(blocking=False)


@pytest.mark.parametrize("away", [True, False], ids=["away", "cluster"])
def test_without_its_redis_it_goes_on_as_quay_does(away: bool) -> None:
    nobody = Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    done = []
    with RedisBlobLock(nobody if away else None)(DIGEST):
        done.append(DIGEST)
    assert done == [DIGEST]
