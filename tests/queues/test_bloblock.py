"""Quay's lock around a placement: its name, how long it lasts, and a Redis that is away."""

from __future__ import annotations

import threading

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis_lock import Lock
from structlog.testing import capture_logs

from queues import bloblock
from queues.bloblock import RedisBlobLock
from queues.renewals import Renewals
from tests.servers import free_port, wait_until

DIGEST = "sha256:" + "a" * 64


def test_it_is_the_lock_that_quays_garbage_collector_takes(redis: Redis) -> None:
    ours, quays = RedisBlobLock(redis), Lock(redis, f"BLOB_DELETE_{DIGEST}", expire=30)
    held = ours.acquire(DIGEST)
    assert held is not None
    (key,) = redis.keys("lock:*")
    assert key == f"lock:BLOB_DELETE_{DIGEST}".encode()
    assert 0 < redis.ttl(key) <= 30, "one whose holder died is anybody's as soon as Quay's own"
    assert not quays.acquire(blocking=False)
    ours.release([held])
    assert quays.acquire(blocking=False)


def test_release_wakes_whoever_waits_for_the_lock(redis: Redis) -> None:
    """Quay's garbage collector waits as the library does: for a sign, not by asking again."""
    ours, quays = RedisBlobLock(redis), Lock(redis, f"BLOB_DELETE_{DIGEST}", expire=30)
    held = ours.acquire(DIGEST)
    assert held is not None
    waiting = threading.Thread(target=quays.acquire)
    waiting.start()
    wait_until(lambda: "blpop" in commands_of_clients(redis), 20, "somebody waits for the lock")
    ours.release([held])
    waiting.join(10)
    assert quays.get_owner_id() == quays.id


def commands_of_clients(redis: Redis) -> list[str]:
    return [client["cmd"] for client in redis.client_list()]


def test_many_locks_are_released_in_one_round_trip(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bloblock, "RENEWALS", Renewals(60))
    ours = RedisBlobLock(redis)
    held = [ours.acquire(f"sha256:{n}") for n in range(5)]
    before = round_trips(redis)
    ours.release([each for each in held if each is not None])
    assert round_trips(redis) - before == 1 + 1, "the release, and the question how many there were"
    assert redis.keys("lock:*") == []


def round_trips(redis: Redis) -> int:
    return int(redis.info("stats")["total_reads_processed"])


def test_lock_that_another_took_over_is_not_released(redis: Redis) -> None:
    """Ours had ended, for a pause of this process for instance; others of ours are released."""
    ours = RedisBlobLock(redis)
    lost, kept = ours.acquire(DIGEST), ours.acquire("sha256:1")
    assert lost is not None
    assert kept is not None
    redis.delete(f"lock:BLOB_DELETE_{DIGEST}")
    theirs = Lock(redis, f"BLOB_DELETE_{DIGEST}", expire=30)
    theirs.acquire()
    with capture_logs() as logs:
        ours.release([lost, kept])
    assert [(each["event"], each["digest"]) for each in logs] == [
        ("blob lock lost before its release", DIGEST)
    ]
    assert theirs.get_owner_id() == theirs.id
    assert not redis.exists("lock:BLOB_DELETE_sha256:1")


@pytest.mark.parametrize("away", [True, False], ids=["away", "cluster"])
def test_without_its_redis_it_goes_on_as_quay_does(away: bool) -> None:
    nobody = Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    lock = RedisBlobLock(nobody if away else None)
    assert lock.acquire(DIGEST) is None
    lock.release([])


def test_redis_that_went_away_meanwhile_keeps_nobody(redis: Redis) -> None:
    lock = RedisBlobLock(redis)
    held = lock.acquire(DIGEST)
    assert held is not None
    nobody = Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    RedisBlobLock(nobody, renewed=lock.renewed).release([held])
    assert lock.renewed == {}, "nobody renews it any more"
