"""Named points at which a test has a process die, to prove that nothing is lost there.

`reach` does nothing unless QUAY_RESCAN_FAULT_POINT names the point. Its value is `<point>@<file>`:
of all processes that inherit it, the first to make the file dies, by SIGKILL, as a machine would
take it away; so whatever is started in its place goes on. tests/faults hits them one by one.
"""

from __future__ import annotations

import os
import signal
from enum import Enum
from pathlib import Path

VARIABLE = "QUAY_RESCAN_FAULT_POINT"


class FaultPoint(Enum):
    """The steps of the pipeline between which a crash could lose something, in their order."""

    BLOB_STORED = "blob-stored"  # the bytes are under the blob's path, without a placement
    BLOB_PLACED = "blob-placed"  # nobody asked yet which manifests that completed
    COMPLETION_FOUND = "completion-found"  # the rescan isn't enqueued
    RESCAN_ENQUEUED = "rescan-enqueued"  # the blob's item isn't done
    JOB_POPPED = "job-popped"  # the job is on no queue and nobody runs it
    JOB_REGISTERED = "job-registered"  # the run is known, nothing of it is done
    CLAIMED = "claimed"  # the row says IN_PROGRESS, Clair wasn't called
    INDEXED = "indexed"  # Clair answered, nothing is recorded
    RECORDED = "recorded"  # the row says so, the job runs
    JOB_ENDED = "job-ended"  # who asked meanwhile wasn't looked at
    SWEEP_PAGE = "sweep-page"  # a page is enqueued, the cursor stands before it


def reach(point: FaultPoint) -> None:
    """Ends this process if a test said so; otherwise one look at the environment."""
    wish = os.environ.get(VARIABLE)
    if wish is not None:
        die_if_wished(point, wish)


def die_if_wished(point: FaultPoint, wish: str) -> None:
    name, _, file = wish.partition("@")
    if name != point.value:
        return
    try:
        Path(file).touch(exist_ok=False)
    except FileExistsError:
        return  # somebody died here already
    os.kill(os.getpid(), signal.SIGKILL)
