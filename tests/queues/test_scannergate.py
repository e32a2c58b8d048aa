"""The gate before the scanner on a real Valkey: slots, budgets, the circuit, whose trouble."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
from redis import Redis

from data.errors import (
    ScannerBusy,
    ScannerDenied,
    ScannerError,
    ScannerFetchFailed,
    ScannerRejectedManifest,
    ScannerUnavailable,
)
from data.secscan.status import Reason
from queues import scannergate
from queues.errors import BudgetSpent, CircuitOpen, DigestBusy, NoSlotFree
from queues.scannergate import LEASE_SECONDS, LONGEST_PAUSE_SECONDS, RedisScannerGate

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
SLOTS = "rescan:rescan:slots"
CIRCUIT = "rescan:rescan:circuit"
BUDGET = f"rescan:rescan:indexes:{DIGEST}"

MakeGate = Callable[..., RedisScannerGate]


@pytest.fixture
def gate_of(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> MakeGate:
    """A gate as a process of its own would have it; nobody waits for a slot here."""
    monkeypatch.setattr(scannergate, "SLOT_WAIT_SECONDS", 0.0)

    def make(*, limit: int = 4, a_day: int = 5, backfill: bool = False) -> RedisScannerGate:
        return RedisScannerGate(
            connection=redis, name="rescan", limit=limit, indexes_per_day=a_day, backfill=backfill
        )

    return make


def enter(
    gate: RedisScannerGate, digest: str = DIGEST, reason: Reason = Reason.EVENT
) -> AbstractContextManager[object]:
    return gate.enter(digest, reason)


def call(gate: RedisScannerGate, error: ScannerError | None = None, digest: str = DIGEST) -> None:
    """One index request that ends with this error."""
    with enter(gate, digest):
        gate.charge(digest)
        if error is not None:
            raise error


def fail(gate: RedisScannerGate, error: ScannerError, digest: str = DIGEST) -> None:
    with pytest.raises(type(error)):
        call(gate, error, digest)


def test_all_workers_together_never_hold_more_slots_than_the_limit(
    gate_of: MakeGate, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scannergate, "SLOT_WAIT_SECONDS", 10.0)
    open_now, most_open, lock, full = 0, 0, threading.Lock(), threading.Event()

    def work(number: int) -> None:
        nonlocal open_now, most_open
        with enter(gate_of(limit=3), f"sha256:{number:064}"):
            with lock:
                open_now += 1
                most_open = max(most_open, open_now)
                if open_now >= 3:
                    full.set()
            assert full.wait(20)
            with lock:
                open_now -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most_open == 3
    assert redis.zcard(SLOTS) == 0


def test_slot_of_a_dead_holder_is_free_when_its_lease_ends(
    gate_of: MakeGate, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisScannerGate, "start_renewal", lambda _: None)  # the dead renew nothing
    abandoned = enter(gate_of(limit=1))
    abandoned.__enter__()
    with pytest.raises(NoSlotFree), enter(gate_of(limit=1), OTHER):
        pass
    for key in (SLOTS, "rescan:rescan:digests"):
        leases: Any = redis.zrange(key, 0, -1)
        redis.zadd(key, dict.fromkeys(leases, 1))  # the time of the lease passes
    with enter(gate_of(limit=1), DIGEST):
        pass


def test_holder_that_lives_keeps_its_slot_even_when_redis_forgot_everything(
    gate_of: MakeGate, redis: Redis
) -> None:
    gate = gate_of(limit=1)
    with enter(gate):
        redis.flushall()
        gate.renew()
        with pytest.raises(NoSlotFree), enter(gate_of(limit=1), OTHER):
            pass
        with pytest.raises(DigestBusy), enter(gate_of(limit=2), DIGEST):
            pass
    assert redis.zcard(SLOTS) == 0


def test_lease_of_a_clock_that_was_set_back_is_drawn_near(gate_of: MakeGate, redis: Redis) -> None:
    now = int(redis.time()[0])
    redis.zadd(SLOTS, {"lease": (now + 10**8) * 1000})
    with enter(gate_of(limit=2)):
        pass
    assert (redis.zscore(SLOTS, "lease") or 0) <= (now + LEASE_SECONDS + 2) * 1000


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (2, 1), (4, 2), (5, 2)])
def test_backfill_takes_at_most_half_and_leaves_the_rest_to_events(
    gate_of: MakeGate, limit: int, most: int
) -> None:
    with ExitStack() as stack:
        for number in range(most):
            backfill = gate_of(limit=limit, backfill=True)
            stack.enter_context(enter(backfill, f"sha256:{number:064}"))
        with pytest.raises(NoSlotFree), enter(gate_of(limit=limit, backfill=True), DIGEST):
            pass
        for number in range(most, limit):
            stack.enter_context(enter(gate_of(limit=limit), f"sha256:{number:064}"))


def test_one_request_a_digest_at_a_time(gate_of: MakeGate) -> None:
    with enter(gate_of()), pytest.raises(DigestBusy), enter(gate_of()):
        pass
    with enter(gate_of()):
        pass


def test_day_is_charged_for_requests_alone_and_forced_ones_pass(
    gate_of: MakeGate, redis: Redis
) -> None:
    for _ in range(20):  # a job that looks whether somebody else's claim has ended
        with enter(gate_of(a_day=2)):
            pass
    call(gate_of(a_day=2))
    call(gate_of(a_day=2))
    with pytest.raises(BudgetSpent) as spent, enter(gate_of(a_day=2)):
        pass
    assert spent.value.retry_in == 3600
    assert 86_390 < int(redis.ttl(BUDGET)) <= 86_400
    with enter(gate_of(a_day=2), reason=Reason.FORCED):
        pass


@pytest.mark.parametrize(
    "error", [ScannerBusy("429"), ScannerUnavailable("500"), ScannerDenied("401")], ids=repr
)
def test_request_that_the_scanner_did_not_work_on_is_none_of_the_days(
    gate_of: MakeGate, redis: Redis, error: ScannerError
) -> None:
    fail(gate_of(), error)
    assert redis.get(BUDGET) is None


@pytest.mark.parametrize("error", [ScannerFetchFailed("no layer"), ScannerRejectedManifest("no")])
def test_request_that_the_scanner_worked_on_is_one_of_the_days(
    gate_of: MakeGate, redis: Redis, error: ScannerError
) -> None:
    fail(gate_of(), error)
    assert redis.get(BUDGET) == b"1"
    assert redis.get(CIRCUIT) is None, "the scanner is well"


def test_request_that_took_long_is_one_of_the_days(
    gate_of: MakeGate, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have fetched every layer before it gave up."""
    monkeypatch.setattr(scannergate, "WORKED_SECONDS", 0.0)
    fail(gate_of(), ScannerUnavailable("no answer within 600 s"))
    assert redis.get(BUDGET) == b"1"


@pytest.mark.parametrize("error", [ScannerUnavailable("500"), ScannerDenied("401")], ids=repr)
def test_scanner_that_is_down_opens_the_circuit_for_all(
    gate_of: MakeGate, redis: Redis, error: ScannerError
) -> None:
    fail(gate_of(), error)
    assert redis.get(CIRCUIT) == b"down"
    with pytest.raises(CircuitOpen), enter(gate_of(), OTHER):
        pass


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [(None, 2), (0.0, 2), (7.0, 7), (10.0**9, LONGEST_PAUSE_SECONDS)]
)
def test_scanner_that_is_busy_gets_the_pause_it_asks_for_and_none_of_years(
    gate_of: MakeGate, redis: Redis, retry_after: float | None, seconds: float
) -> None:
    fail(gate_of(), ScannerBusy("429", retry_after))
    assert redis.get(CIRCUIT) == b"busy"
    assert seconds - 1 < int(redis.pttl(CIRCUIT)) / 1000 <= seconds
    assert not gate_of().may_work(lambda: pytest.fail("a busy scanner isn't asked for signs"))


def test_one_probe_at_a_time_finds_out_when_the_scanner_is_back(
    gate_of: MakeGate, redis: Redis
) -> None:
    probes: list[str] = []

    def down() -> None:
        probes.append("down")
        raise ScannerUnavailable("no connection")

    assert gate_of().may_work(down), "as long as nobody met trouble, nobody asks"
    fail(gate_of(), ScannerUnavailable("500"))
    assert [gate_of().may_work(down) for _ in range(5)] == [False] * 5
    assert probes == ["down"]
    redis.delete("rescan:rescan:probe")  # 2 s pass
    assert gate_of().may_work(lambda: probes.append("up"))
    assert probes == ["down", "up"]
    assert [gate_of().may_work(down) for _ in range(5)] == [True] * 5


def test_silence_is_the_scanners_until_it_has_answered_others_since(
    gate_of: MakeGate, redis: Redis
) -> None:
    """A manifest on which the scanner alone breaks down must not hold up all others."""

    def silence(digest: str) -> bool:
        """One request without an answer; whether that was the manifest's own trouble."""
        gate = gate_of()
        try:
            with enter(gate, digest):
                gate.charge(digest)
                if gate.is_manifests_own(digest):
                    raise ScannerFetchFailed("answers others, but not here")
                raise ScannerUnavailable("500")
        except ScannerFetchFailed:
            return True
        except ScannerUnavailable:
            return not redis.delete(CIRCUIT)

    assert not silence(DIGEST)
    assert not silence(DIGEST), "nobody else was answered either"
    call(gate_of(), digest=OTHER)
    assert silence(DIGEST)
    assert not silence(DIGEST), "it takes another answer each time, or the scanner is down now"
    call(gate_of(), digest=OTHER)
    assert silence(DIGEST)
    call(gate_of(), digest=DIGEST)
    call(gate_of(), digest=OTHER)
    assert not silence(DIGEST), "an answer of its own is forgiven"
