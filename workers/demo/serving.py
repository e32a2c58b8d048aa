"""Runs a stand-in as a process of its own: says where it listens, then waits to be stopped."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path


def write_port(port_file: Path, port: int) -> None:
    """Write the port so that a reader sees all of it or no file."""
    unfinished = port_file.with_name(f".{port_file.name}.{os.getpid()}")
    unfinished.write_text(f"{port}\n", encoding="ascii")
    unfinished.replace(port_file)


def wait_to_be_stopped() -> None:
    """Return on SIGTERM or SIGINT. Call it from the main thread."""
    asked, ask = socket.socketpair()
    ask.setblocking(False)
    signal.set_wakeup_fd(ask.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    asked.recv(1)
