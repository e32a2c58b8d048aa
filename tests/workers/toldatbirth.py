"""Tells children of the supervisor to stop as soon as they are forked; exits 1 when one doesn't.

A program of its own: a fork of the tests' process, with its threads, may wait for ever for a lock.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from data.settings import build_settings
from workers.process import STOPPING, Process, Stop
from workers.supervisor import Child, Running, start

TIMES = 150


def work_until_stopped(current: Process) -> None:
    if not current.stop.wait(30):
        raise RuntimeError("nobody told it to stop")


def main() -> int:
    storage = {"default": ["LocalStorage", {"storage_path": "/nowhere"}]}
    config = {"DB_URI": "sqlite:///nowhere", "DISTRIBUTED_STORAGE_CONFIG": storage}
    settings = build_settings(config, Path("/nowhere"))
    process = Process(worker=None, settings=settings, config=None, burst=False, stop=Stop())
    for _ in range(TIMES):
        running = Running(Child("child", work_until_stopped))
        start(running, process)
        assert running.pid is not None
        os.kill(running.pid, signal.SIGTERM)
        if os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1]) != 0:
            return 1
    return int(not signal.pthread_sigmask(signal.SIG_BLOCK, ()).isdisjoint(STOPPING))


if __name__ == "__main__":
    sys.exit(main())
