"""Watches the runs of jobs from a thread: their hearts beat, and they end when their time is over.

The time limit of a job is a signal, which a call into C code doesn't hear. A process whose job runs
on past it is killed here, and its parent starts the next; the job is given back.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from redis.exceptions import RedisError
from rq.executions import Execution

from queues.rescanruns import HEARTBEAT_SECONDS, RescanRuns

log = structlog.get_logger()

# How long past its time limit a job may run on before the process is killed.
GRACE_SECONDS = 3


# How often the watchdog looks at the clock.
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A run under watch; it is over at `end`, a time of `time.monotonic`, the grace included."""

    run: Execution
    began: float
    end: float


class Watchdog:
    """One thread for all runs of a process, which come one after the other.

    A thread for each run costs more than a statement of its SQL, and so does waking this one: it
    looks by itself, every LOOK_SECONDS. `show_life` is called with every beat, for whoever watches
    the worker itself.
    """

    def __init__(self, runs: RescanRuns, show_life: Callable[[], object]) -> None:
        self.runs = runs
        self.show_life = show_life
        self.watched: Watched | None = None
        self.beating = threading.Lock()
        self.thread: threading.Thread | None = None

    @contextmanager
    def watch(self, run: Execution, seconds: float) -> Iterator[None]:
        """Beats the run's heart every HEARTBEAT_SECONDS while the block lasts, `seconds` at most.

        The last beat is over when the block is left.
        """
        began = time.monotonic()
        self.watched = Watched(run, began, began + seconds + GRACE_SECONDS)
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self.look, name="heartbeat", daemon=True)
            self.thread.start()
        try:
            yield
        finally:
            with self.beating:
                self.watched = None

    def look(self) -> None:
        """Runs in a daemon thread of its own, from the first run to the end of the process."""
        beaten = 0.0
        while True:
            watched, left = self.watched, LOOK_SECONDS
            if watched is not None:
                left = max(0.0, watched.end - time.monotonic())
            time.sleep(min(LOOK_SECONDS, left))
            with self.beating:
                watched, now = self.watched, time.monotonic()
                if watched is None:
                    continue
                if now >= watched.end:
                    self.end_process(watched)
                elif now - max(beaten, watched.began) >= HEARTBEAT_SECONDS:
                    beaten = now
                    self.beat(watched.run)

    def beat(self, run: Execution) -> None:
        try:
            self.runs.beat(run)
            self.show_life()
        except RedisError as error:
            log.warning("heartbeat missed", job=run.job_id, error=str(error))

    def end_process(self, watched: Watched) -> None:
        run, seconds = watched.run, watched.end - watched.began
        try:
            self.runs.let_go(run)
        except RedisError as error:
            log.warning("job not given back at once", job=run.job_id, error=str(error))
        log.error("job hangs, worker ends itself", job=run.job_id, seconds=seconds)
        os.kill(os.getpid(), signal.SIGKILL)
