"""Pushes a process's metrics to a Pushgateway, as Quay's own workers push theirs.

Every 30 s, under the job PROMETHEUS_NAMESPACE, grouped by host, process name and process id. A
gateway that isn't there or doesn't answer is worth one warning, and never holds up the work.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

import structlog
from prometheus_client import CollectorRegistry, push_to_gateway

log = structlog.get_logger()

PUSH_SECONDS = 30.0
TIMEOUT_SECONDS = 5.0


@contextmanager
def pushing(
    registry: CollectorRegistry,
    *,
    url: str | None,
    job: str,
    process_name: str,
    every: float = PUSH_SECONDS,
) -> Iterator[None]:
    """Pushes the registry for as long as the block lasts, and once more at its end.

    The end waits for nothing: the thread is a daemon. No `url`: nothing is pushed.
    """
    if url is None:
        yield
        return
    ended = threading.Event()
    grouping = {
        "host": socket.gethostname(),
        "process_name": process_name,
        "pid": str(os.getpid()),
    }
    pusher = threading.Thread(
        target=push_until, args=(ended, registry, url, job, grouping, every), daemon=True
    )
    pusher.start()
    try:
        yield
    finally:
        ended.set()
        pusher.join(2.0)


def push_until(
    ended: threading.Event,
    registry: CollectorRegistry,
    url: str,
    job: str,
    grouping: dict[str, str],
    every: float,
) -> None:
    answered = True
    while not ended.wait(every):
        answered = push(registry, url, job, grouping, warn=answered)
    if answered:
        push(registry, url, job, grouping, warn=False)


def push(
    registry: CollectorRegistry, url: str, job: str, grouping: dict[str, str], *, warn: bool
) -> bool:
    """True when the gateway took it."""
    try:
        push_to_gateway(
            url, job=job, registry=registry, grouping_key=grouping, timeout=TIMEOUT_SECONDS
        )
    except (OSError, HTTPException, ValueError) as error:
        if warn:
            log.warning("metrics not pushed", gateway=url, error=str(error))
        return False
    return True
