"""Keeps child processes alive: starts them, restarts a dead one with backoff, passes a stop on.

A child that dies MOST_DEATHS times in a row, or says that its configuration is wrong, can't be kept
alive: then the others are stopped and the parent ends with a failure, for whoever watches it.

Children are forked from a parent that has imported everything and opened nothing, so one is ready
within milliseconds and shares the parent's memory. A child dies with its parent (on Linux): an
orphan would go on working at a job that somebody else has been given.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from redis.exceptions import RedisError

from data.errors import DataError
from workers.process import EXIT_FAILED, EXIT_WRONG_USE, STOPPING, ChildFailed, Process

log = structlog.get_logger()

PR_SET_PDEATHSIG = 1
FIRST_BACKOFF_SECONDS = 0.1
LAST_BACKOFF_SECONDS = 15.0
# A child that lived this long was fine, so its next death starts the backoff anew.
HEALTHY_SECONDS = 60.0
MOST_DEATHS = 12  # in a row; with the waits between them these take two minutes
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Child:
    """One child: its name in the logs, and what it runs until it is told to stop."""

    name: str
    work: Callable[..., None]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Running:
    """A child as it is now; `pid` is None while it waits for its next start."""

    child: Child
    pid: int | None = None
    started: float = 0.0
    deaths: int = 0
    start_at: float = 0.0


def supervise(process: Process, children: Sequence[Child]) -> None:
    """Runs the children until a stop is asked for, and returns when all of them have ended.

    Raises `ChildFailed` when one can't be kept alive; the others have ended by then.
    """
    running = [Running(child) for child in children]
    try:
        keep_alive(process, running)
    finally:
        stop_all(running)


def keep_alive(process: Process, running: Sequence[Running]) -> None:
    while not process.stop.requested:
        for each in running:
            if each.pid is None and time.monotonic() >= each.start_at:
                start(each, process)
        reap(running)
        process.stop.wait(LOOK_SECONDS)


def start(running: Running, process: Process) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    # Python forgets what signals came to a child before it is set up, a stop among them; those that
    # are held back come when the child listens.
    with signals_held_back():
        pid = os.fork()
        if pid == 0:
            os._exit(run_child(running.child, process, parent))
    running.pid, running.started = pid, time.monotonic()
    log.debug("child started", child=running.child.name, pid=pid)


@contextmanager
def signals_held_back() -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def run_child(child: Child, process: Process, parent: int) -> int:
    """The child's whole life; returns its exit code."""
    die_with(parent)
    process.stop.listen()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    try:
        child.work(process, **child.arguments)
    except (DataError, RedisError) as error:
        log.error("child failed", child=child.name, error=str(error))
        return 1
    except Exception:
        log.exception("child failed", child=child.name)
        return 1
    return 0


def die_with(parent: int) -> None:
    """Asks the kernel to kill this process when its parent dies (prctl(2)); Linux only."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def reap(running: Sequence[Running]) -> None:
    """Notes which children have ended, and when each is started again; see `ChildFailed`."""
    for each in running:
        if each.pid is None:
            continue
        pid, status = os.waitpid(each.pid, os.WNOHANG)
        if pid == 0:
            continue
        now = time.monotonic()
        each.deaths = 1 if now - each.started > HEALTHY_SECONDS else each.deaths + 1
        wait = backoff(each.deaths)
        each.pid, each.start_at = None, now + wait
        code = os.waitstatus_to_exitcode(status)
        if code == EXIT_WRONG_USE or each.deaths >= MOST_DEATHS:
            exit_code = code if code == EXIT_WRONG_USE else EXIT_FAILED
            raise ChildFailed(f"{each.child.name} can't be kept alive (exit {code})", exit_code)
        log.error("child died", child=each.child.name, pid=pid, code=code, restart_in=wait)


def backoff(deaths: int) -> float:
    """Seconds before the next start after so many deaths in a row: 0.1, 0.2, 0.4 .. 15."""
    return float(min(FIRST_BACKOFF_SECONDS * 2 ** min(deaths - 1, 10), LAST_BACKOFF_SECONDS))


def stop_all(running: Sequence[Running]) -> None:
    """Passes the stop on and waits for the work in hand, which has time limits of its own."""
    pids = [each.pid for each in running if each.pid is not None]
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    for each in running:
        if each.pid is not None:
            os.waitpid(each.pid, 0)
            each.pid = None
