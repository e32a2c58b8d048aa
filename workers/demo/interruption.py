"""Ctrl-C, SIGTERM and a closed terminal: noted as they come, acted on where nothing can be lost.

A KeyboardInterrupt wherever the signal happens to come would now and then fall between the start of
a process and the note that it must be stopped, and a second one into the stopping itself.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Interruption:
    """Whether somebody wants the demo to end. Once they do, they are not heard again."""

    requested: bool = False
    raises: bool = False

    def listen(self) -> None:
        """To be called in the main thread, before anything is started."""
        for signum in SIGNALS:
            signal.signal(signum, self.note)

    def stop_listening(self) -> None:
        """When nothing is left to interrupt: Python's own end isn't cut short either."""
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)

    def note(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self.requested = True
        if self.raises:
            self.raises = False
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raises KeyboardInterrupt if the demo is to end; called wherever it waits."""
        if self.requested:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal interrupts at any point: for long work that has nothing to stop."""
        self.raises = True
        try:
            self.check()
            yield
        finally:
            self.raises = False
