"""What the scanner stand-in can be told to do wrong, for tests.

A fault is a value; `Faults` says to which calls it applies. Each mimics something that Clair, its
host or a proxy in between does: see the class.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field, replace
from enum import Enum

from workers.demo.scannerhttp import ClosingConnection, Dripping, Reply, error_reply

__all__ = [
    "Busy",
    "Call",
    "ClosingConnection",
    "Delayed",
    "Dripping",
    "Failing",
    "Fault",
    "Faults",
    "Garbage",
    "Held",
    "Redirecting",
    "WithoutEtag",
    "WrongState",
]


class Call(Enum):
    """The calls of Clair's API that the stand-in answers."""

    INDEX_STATE = "index_state"
    INDEX = "index"
    GET_INDEX_REPORT = "get_index_report"
    VULNERABILITY_REPORT = "vulnerability_report"


@dataclass(frozen=True, slots=True)
class Busy:
    """429: more index requests than Clair takes. Clair itself sends no Retry-After."""

    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Failing:
    """An error status with Clair's error body: 500 when its database is away, say."""

    status: int = 500
    message: str = "the stand-in was told to fail"


@dataclass(frozen=True, slots=True)
class Redirecting:
    """302 to another address, as a proxy that wants a login does."""

    location: str


@dataclass(frozen=True, slots=True)
class Garbage:
    """A good status with a body that is no report, as a page of a proxy."""

    body: bytes = b"<html>it works</html>"


@dataclass(frozen=True, slots=True)
class WrongState:
    """A report with this state in place of the right one."""

    state: str


@dataclass(frozen=True, slots=True)
class WithoutEtag:
    """The right answer, its etag dropped by a proxy that compresses."""


@dataclass(frozen=True, slots=True)
class Delayed:
    """The right answer, worked out `seconds` later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Held:
    """The call is held before anything is worked out, until a test lets it go."""

    arrived: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def wait_for_call(self, timeout: float = 10) -> bool:
        """Has a call come to be held? Waits for one."""
        return self.arrived.wait(timeout)

    def release(self) -> None:
        """Let the held call go on, and those that come after it."""
        self.released.set()


Fault = (
    Busy
    | Failing
    | Redirecting
    | Garbage
    | WrongState
    | WithoutEtag
    | Dripping
    | ClosingConnection
    | Delayed
    | Held
)


@dataclass(slots=True)
class _Rule:
    fault: Fault
    call: Call | None
    digest: str | None
    left: int | None

    def fits(self, call: Call, digest: str | None) -> bool:
        return (
            self.call in (None, call)
            and self.digest in (None, digest)
            and (self.left is None or self.left > 0)
        )


class Faults:
    """The faults in force; the one added first wins."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()

    def add(
        self,
        fault: Fault,
        *,
        call: Call | None = Call.INDEX,
        digest: str | None = None,
        times: int | None = None,
    ) -> None:
        """Have `call` (None: every call) go wrong, for one manifest or all, `times` times or on."""
        with self._lock:
            self._rules.append(_Rule(fault, call, digest, times))

    def clear(self) -> None:
        """Do everything right again. A held call stays held until it is released."""
        with self._lock:
            self._rules.clear()

    def take(self, call: Call, digest: str | None) -> Fault | None:
        """The fault for this call, if any; counts it as used."""
        with self._lock:
            for rule in self._rules:
                if rule.fits(call, digest):
                    if rule.left is not None:
                        rule.left -= 1
                    return rule.fault
            return None


def replaced(fault: Fault | None) -> Reply | None:
    """Let the fault take effect before the work; a reply where there is to be no work."""
    match fault:
        case Held():
            fault.arrived.set()
            fault.released.wait()
        case Delayed(seconds=seconds):
            time.sleep(seconds)
        case Busy(retry_after=retry_after):
            headers = {} if retry_after is None else {"Retry-After": retry_after}
            return error_reply(429, "server handling too many requests", headers)
        case Failing(status=status, message=message):
            return error_reply(status, message)
        case Redirecting(location=location):
            return Reply(status=302, headers={"Location": location})
        case Garbage(body=body):
            return Reply(status=200, body=body)
    return None


def spoiled(reply: Reply, fault: Fault | None) -> Reply:
    """The right reply as the fault leaves it."""
    match fault:
        case WrongState(state=state):
            body = json.dumps({**json.loads(reply.body), "state": state}).encode()
            return replace(reply, body=body)
        case WithoutEtag():
            headers = {name: value for name, value in reply.headers.items() if name != "Etag"}
            return replace(reply, headers=headers)
        case Dripping() | ClosingConnection():
            return replace(reply, wire_fault=fault)
    return reply
