"""The gate before the scanner: how many index requests, for which digest, and whether at all.

Shared by all workers of all machines through Redis, by leases: a slot whose holder died is free
again after LEASE_SECONDS. The circuit opens when the scanner is down or asks for a pause; while
it is open workers leave their queue alone, and one of them at a time probes.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from redis import Redis
from redis.exceptions import RedisError

from data.errors import (
    ScannerBusy,
    ScannerDenied,
    ScannerError,
    ScannerFetchFailed,
    ScannerUnavailable,
)
from data.secscan.status import Reason
from queues.errors import BudgetSpent, CircuitOpen, DigestBusy, NoSlotFree
from queues.rescanqueue import run_script

log = structlog.get_logger()

LEASE_SECONDS = 10
RENEWAL_SECONDS = 3
# How long a worker waits for a slot with its job in hand before it lets go of the job.
SLOT_WAIT_SECONDS = 2.0
SLOT_LOOK_SECONDS = 0.02
# The scanner is asked for a sign of life this often while it is down, by one worker at a time, and
# has as long for it.
PROBE_SECONDS = 2
# How long a pause lasts when the scanner says 429 and names no time.
BUSY_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0
# A request that got no answer for longer than this may have had the scanner fetch every layer.
WORKED_SECONDS = 10.0

ENTERED, CIRCUIT_OPEN, DIGEST_BUSY, NO_SLOT, BUDGET_SPENT = range(5)


def circuit_key_of(name: str) -> str:
    """Exists while the scanner is known to be `down` or `busy`; the value says which."""
    return f"rescan:{name}:circuit"


@dataclass(slots=True, kw_only=True)
class RedisScannerGate:
    """`data.secscan.indexer.ScannerGate` on Redis. `limit` is RESCAN_MAX_CONCURRENT_INDEXES."""

    connection: Redis
    name: str  # of the main lane
    limit: int
    indexes_per_day: int
    backfill: bool = False
    leases: dict[str, str] = field(default_factory=dict)  # lease -> digest
    sent: set[str] = field(default_factory=set)  # digests of open requests
    unanswered: set[str] = field(default_factory=set)  # those of which an answer tells something
    leases_lock: threading.Lock = field(default_factory=threading.Lock)
    renewal: threading.Thread | None = None

    @contextmanager
    def enter(self, digest: str, reason: Reason) -> Iterator[None]:
        """Holds a slot for the block, and learns from how the block ends.

        Raises `CircuitOpen`, `DigestBusy`, `BudgetSpent` or, after SLOT_WAIT_SECONDS, `NoSlotFree`.
        """
        lease = uuid.uuid4().hex
        self.take_slot(lease, digest, reason)
        self.leases[lease] = digest
        self.start_renewal()
        entered, answered, spent = time.monotonic(), False, True
        try:
            yield
        except ScannerFetchFailed:
            answered = True  # the scanner is well
            raise
        except ScannerBusy as error:
            spent = False
            self.open_circuit(error.retry_after or BUSY_PAUSE_SECONDS, probe=False)
            raise
        except (ScannerUnavailable, ScannerDenied):
            spent = time.monotonic() - entered >= WORKED_SECONDS
            self.open_circuit(LONGEST_PAUSE_SECONDS, probe=True)
            raise
        else:
            answered = True
        finally:
            self.release(lease, digest, answered=answered, spent=spent)

    def charge(self, digest: str) -> None:
        """An index request for the digest is about to be sent, so the day's one that `enter` took
        isn't given back.
        """
        self.sent.add(digest)
        self.unanswered.add(digest)

    def is_manifests_own(self, digest: str) -> bool:
        """Whether that the scanner gave no answer for this digest is no trouble of the scanner's.

        It is the manifest's own when the scanner has answered others since it last gave none here.
        """
        answers = int(self.connection.get(self.answers_key) or 0)
        before = self.connection.set(self.silence_key(digest), answers, ex=86400, get=True)
        own = before is not None and answers > int(before)
        if own:
            self.unanswered.discard(digest)
        return own

    def take_slot(self, lease: str, digest: str, reason: Reason) -> None:
        deadline = time.monotonic() + SLOT_WAIT_SECONDS
        answer = self.try_to_enter(lease, digest, reason)
        while answer == NO_SLOT and time.monotonic() < deadline:
            time.sleep(SLOT_LOOK_SECONDS)
            answer = self.try_to_enter(lease, digest, reason)
        if answer == CIRCUIT_OPEN:
            raise CircuitOpen("the scanner is down or asked for a pause", retry_in=1.0)
        if answer == DIGEST_BUSY:
            raise DigestBusy(f"{digest} is being indexed for another repository", retry_in=1.0)
        if answer == NO_SLOT:
            raise NoSlotFree(f"all {self.limit} slots of the scanner are taken", retry_in=1.0)
        if answer == BUDGET_SPENT:
            raise BudgetSpent(
                f"{digest} was indexed {self.indexes_per_day} times in 24 hours; "
                "RESCAN_MAX_INDEXES_PER_DAY allows no more, --force does",
                retry_in=3600.0,
            )

    def try_to_enter(self, lease: str, digest: str, reason: Reason) -> int:
        budget = 0 if reason is Reason.FORCED else self.indexes_per_day
        keys = [
            self.slots_key,
            self.backfill_key,
            self.digests_key,
            self.circuit_key,
            self.budget_key(digest),
        ]
        arguments = [lease, digest, LEASE_SECONDS * 1000, self.limit, int(self.backfill), budget]
        return int(run_script(self.connection, "enter_scanner", keys, arguments))

    def release(self, lease: str, digest: str, *, answered: bool, spent: bool) -> None:
        """Frees the slot. If a request was sent: `answered`, the scanner answered it; `spent`, it
        is one of the day's.
        """
        with self.leases_lock:
            del self.leases[lease]
            noted = int(answered and digest in self.unanswered)
            unspent = int(not spent or digest not in self.sent)
            self.unanswered.discard(digest)
            self.sent.discard(digest)
            keys = [
                self.slots_key,
                self.backfill_key,
                self.digests_key,
                self.answers_key,
                self.silence_key(digest),
                self.budget_key(digest),
            ]
            try:
                run_script(self.connection, "leave_scanner", keys, [lease, digest, noted, unspent])
            except RedisError as error:
                # The lease ends by itself; the result of the index call matters more.
                log.warning("slot not released", error=str(error), free_in_seconds=LEASE_SECONDS)

    def start_renewal(self) -> None:
        if self.renewal is None or not self.renewal.is_alive():
            self.renewal = threading.Thread(target=self.renew_leases, daemon=True)
            self.renewal.start()

    def renew_leases(self) -> None:
        """Runs in a daemon thread of its own, from the first slot to the end of the process."""
        while True:
            time.sleep(RENEWAL_SECONDS)
            try:
                with self.leases_lock:
                    self.renew()
            except RedisError as error:
                log.warning("slot not renewed", error=str(error))

    def renew(self) -> None:
        """Also takes back what a Redis that lost everything forgot: these requests are open."""
        if not self.leases:
            return
        seconds, microseconds = self.connection.time()
        expiry = seconds * 1000 + microseconds // 1000 + LEASE_SECONDS * 1000
        with self.connection.pipeline(transaction=False) as pipeline:
            pipeline.zadd(self.slots_key, dict.fromkeys(self.leases, expiry))
            pipeline.zadd(self.digests_key, dict.fromkeys(self.leases.values(), expiry))
            if self.backfill:
                pipeline.zadd(self.backfill_key, dict.fromkeys(self.leases, expiry))
            pipeline.execute()

    def open_circuit(self, seconds: float, *, probe: bool) -> None:
        pause = int(min(max(seconds, 0.1), LONGEST_PAUSE_SECONDS) * 1000)
        self.connection.set(self.circuit_key, "down" if probe else "busy", px=pause)
        log.warning("circuit open", scanner="down" if probe else "busy", seconds=pause / 1000)

    def may_work(self, probe: Callable[[], object]) -> bool:
        """Whether jobs may be taken now. While the scanner is down, this is who finds out.

        `probe` asks the scanner for a sign of life and raises a `ScannerError` if there is none.
        """
        state = self.connection.get(self.circuit_key)
        if state is None:
            return True
        if state == b"busy" or not self.connection.set(
            self.probe_key, "1", nx=True, px=PROBE_SECONDS * 1000
        ):
            return False
        try:
            probe()
        except ScannerError as error:
            self.open_circuit(LONGEST_PAUSE_SECONDS, probe=True)
            log.info("scanner still down", error=str(error))
            return False
        self.connection.delete(self.circuit_key)
        log.info("circuit closed")
        return True

    def silence_key(self, digest: str) -> str:
        return f"rescan:{self.name}:silence:{digest}"

    @property
    def answers_key(self) -> str:
        return f"rescan:{self.name}:answers"

    def budget_key(self, digest: str) -> str:
        return f"rescan:{self.name}:indexes:{digest}"

    @property
    def slots_key(self) -> str:
        return f"rescan:{self.name}:slots"

    @property
    def backfill_key(self) -> str:
        return f"rescan:{self.name}:slots:backfill"

    @property
    def digests_key(self) -> str:
        return f"rescan:{self.name}:digests"

    @property
    def circuit_key(self) -> str:
        return circuit_key_of(self.name)

    @property
    def probe_key(self) -> str:
        return f"rescan:{self.name}:probe"
