"""Watches a run of a job from a thread: its heart beats, and it ends when its time is over.

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

import structlog
from redis.exceptions import RedisError
from rq.executions import Execution

from queues.rescanruns import HEARTBEAT_SECONDS, RescanRuns

log = structlog.get_logger()

# How long past its time limit a job may run on before the process is killed.
GRACE_SECONDS = 3


@contextmanager
def watched(
    runs: RescanRuns, run: Execution, seconds: float, show_life: Callable[[], object]
) -> Iterator[None]:
    """Beats the run's heart every HEARTBEAT_SECONDS while the block lasts, `seconds` at most.

    `show_life` is called with every beat, for whoever watches the worker itself.
    """
    ended = threading.Event()
    thread = threading.Thread(
        target=watch,
        args=(runs, run, seconds + GRACE_SECONDS, show_life, ended),
        name="heartbeat",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def watch(
    runs: RescanRuns,
    run: Execution,
    limit: float,
    show_life: Callable[[], object],
    ended: threading.Event,
) -> None:
    end = time.monotonic() + limit
    while not ended.wait(max(0.0, min(HEARTBEAT_SECONDS, end - time.monotonic()))):
        try:
            if time.monotonic() >= end:
                runs.let_go(run)
            else:
                runs.beat(run)
                show_life()
        except RedisError as error:
            log.warning("heartbeat missed", job=run.job_id, error=str(error))
        if time.monotonic() >= end:
            log.error("job hangs, worker ends itself", job=run.job_id, seconds=limit)
            os.kill(os.getpid(), signal.SIGKILL)
