"""What the upstream stand-in can be told to do wrong, for tests. A fault is a value."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Call(Enum):
    """The calls that the stand-in answers."""

    PING = "ping"  # GET /v2/
    MANIFEST = "manifest"
    BLOB = "blob"
    TOKEN = "token"  # of its own token server
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Failing:
    """An error status with a registry's error body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Redirecting:
    """Another place, as registries do that keep their blobs at a CDN."""

    location: str
    status: int = 307


@dataclass(frozen=True, slots=True)
class WrongBytes:
    """The right number of bytes, the first of them another."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """The connection ends after the first `after` bytes of the body."""

    after: int


@dataclass(frozen=True, slots=True)
class Announcing:
    """A Content-Length that is not the size."""

    size: int


@dataclass(frozen=True, slots=True)
class Paced:
    """The right answer, its body `piece` bytes at a time with `interval` seconds in between."""

    piece: int
    interval: float


@dataclass(frozen=True, slots=True)
class Endless:
    """A body in chunks that never ends."""


@dataclass(frozen=True, slots=True)
class Raw:
    """These bytes in place of an HTTP answer, then the end of the connection.

    With an `interval` they drip: one byte, a wait of so many seconds, the next.
    """

    content: bytes
    interval: float = 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """The right answer, but only when a test lets it go."""

    arrived: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


Fault = Failing | Redirecting | WrongBytes | Truncated | Announcing | Paced | Endless | Raw | Held


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A fault, and the requests that meet it: all, those of one call, or of one tag or digest."""

    fault: Fault
    call: Call | None = None
    reference: str | None = None

    def meets(self, call: Call, reference: str) -> bool:
        return self.call in (None, call) and self.reference in (None, reference)


class Troubles:
    """The faults that are to come, for the use of many threads."""

    def __init__(self) -> None:
        self._pending: list[tuple[Trouble, int | None]] = []
        self._lock = threading.Lock()

    def add(
        self,
        fault: Fault,
        *,
        call: Call | None = None,
        reference: str | None = None,
        times: int | None = None,
    ) -> None:
        """Lets the next `times` requests go wrong that fit, all of them if None."""
        trouble = Trouble(fault=fault, call=call, reference=reference)
        with self._lock:
            self._pending.append((trouble, times))

    def clear(self) -> None:
        """All is well again."""
        with self._lock:
            self._pending = []

    def next(self, call: Call, reference: str) -> Fault | None:
        """The fault that this request meets; the oldest that fits, and it counts."""
        with self._lock:
            for position, (trouble, times) in enumerate(self._pending):
                if trouble.meets(call, reference):
                    left = None if times is None else times - 1
                    self._pending[position : position + 1] = [] if left == 0 else [(trouble, left)]
                    return trouble.fault
        return None
