"""What the scanner stand-in was asked to index, and when: for measuring and for tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRequest:
    """One index request.

    `arrived_ns` is the wall clock (`time.time_ns`, comparable between processes of a machine),
    `arrived_monotonic_ns` the monotonic one; both were read when the request's body had come.
    `status` and `ended_ns` are None while it is under way; `packages` counts what was found.
    """

    number: int
    digest: str | None
    layers: tuple[str, ...] = ()
    arrived_ns: int
    arrived_monotonic_ns: int
    ended_ns: int | None = None
    status: int | None = None
    state: str | None = None
    packages: int = 0


class IndexRequests:
    """All index requests in the order of their arrival, refused ones included."""

    def __init__(self) -> None:
        self._requests: list[IndexRequest] = []
        self._changed = threading.Condition()
        self._open = 0
        self._most_open = 0

    def __len__(self) -> int:
        return len(self.all())

    def arrive(self) -> int:
        """A request has come; returns its number, which `update` and `end` take."""
        with self._changed:
            number = len(self._requests)
            self._requests.append(
                IndexRequest(
                    number=number,
                    digest=None,
                    arrived_ns=time.time_ns(),
                    arrived_monotonic_ns=time.monotonic_ns(),
                )
            )
            self._open += 1
            self._most_open = max(self._most_open, self._open)
            self._changed.notify_all()
            return number

    def update(self, number: int, **changes: Any) -> None:
        """More is known about a request."""
        with self._changed:
            self._requests[number] = replace(self._requests[number], **changes)
            self._changed.notify_all()

    def end(self, number: int, status: int) -> None:
        """The request is about to be answered with `status`."""
        with self._changed:
            self._open -= 1
        self.update(number, status=status, ended_ns=time.time_ns())

    def all(self) -> tuple[IndexRequest, ...]:
        """The requests so far."""
        with self._changed:
            return tuple(self._requests)

    def of(self, digest: str) -> tuple[IndexRequest, ...]:
        """The requests for one manifest so far."""
        return tuple(request for request in self.all() if request.digest == digest)

    @property
    def most_open(self) -> int:
        """The largest number of index requests that were open at once."""
        return self._most_open

    def wait_for(
        self, satisfied: Callable[[Sequence[IndexRequest]], bool], timeout: float = 10
    ) -> bool:
        """Wait until the requests satisfy this; False when `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: satisfied(tuple(self._requests)), timeout)

    def as_json(self) -> dict[str, Any]:
        """For other processes: `GET /stand-in/requests`."""
        return {
            "requests": [asdict(request) for request in self.all()],
            "most_open": self.most_open,
        }
