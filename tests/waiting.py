"""Bounded waiting for what has no event to wait on, such as a file of another process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def wait_for(satisfied: Callable[[], object], timeout: float = 30, interval: float = 0.01) -> bool:
    """Look every `interval` seconds whether it holds; False if it never did in `timeout` ones."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout
    while not satisfied():
        if time.monotonic() > deadline:
            return False
        pause.wait(interval)
    return True
