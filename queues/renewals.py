"""Renews what is held for as long as it is held: one thread for all of a process.

A thread for each lock and each item costs a blob of a few kilobytes more than its download does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Held:
    """Something that is held; `renew` returns False once there is nothing more to renew."""

    renew: Callable[[], bool]
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def renew_once(self) -> None:
        with self.lock:
            if not self.ended:
                self.ended = not self.renew()

    def end(self) -> None:
        """Afterwards it is renewed no more; a renewal under way has ended."""
        with self.lock:
            self.ended = True


class Renewals:
    """Calls `renew` of everything that is held every so many seconds, or sooner the first time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.held: set[Held] = set()
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None

    def begin(self, renew: Callable[[], bool]) -> Held:
        """Has `renew` called from now on, until `end`. It must raise nothing."""
        held = Held(renew)
        with self.lock:
            self.held.add(held)
            if self.thread is None or not self.thread.is_alive():  # also after a fork
                self.thread = threading.Thread(target=self.run, name="renewals", daemon=True)
                self.thread.start()
        return held

    def end(self, held: Held) -> None:
        """Afterwards its `renew` is called no more; a call under way has ended."""
        held.end()
        with self.lock:
            self.held.discard(held)

    def run(self) -> None:
        """Ends once nothing was held for a whole turn; what is held next starts it again."""
        pause = threading.Event()
        while True:
            pause.wait(self.seconds)
            with self.lock:
                every = list(self.held)
                if not every:
                    self.thread = None
                    return
            for held in every:
                held.renew_once()
