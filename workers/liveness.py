"""A sign of life for probes: every worker's main loop touches a file, and a probe looks at its age.

`python -m workers.liveness <worker>` (rescanworker, sweepworker, ..) exits 0 for a worker whose
loop went round within LONGEST_SILENCE_SECONDS, else 1 and one sentence. Without a worker it looks
at all that were started here. It imports nothing else of the project: a probe runs every half
minute.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

# A worker that waits touches its file all the while; the longest round at work is a large sweep's.
LONGEST_SILENCE_SECONDS = 300.0
TOUCH_SECONDS = 5.0
PREFIX, SUFFIX = "quay-rescan-", ".alive"


def alive_file(worker: str) -> Path:
    """Where the worker called `worker` leaves its sign of life, in the directory for such files."""
    return Path(tempfile.gettempdir()) / f"{PREFIX}{worker}{SUFFIX}"


def known_workers() -> list[str]:
    """The workers that have given a sign of life in this container, by name."""
    files = Path(tempfile.gettempdir()).glob(f"{PREFIX}*{SUFFIX}")
    return sorted(file.name.removeprefix(PREFIX).removesuffix(SUFFIX) for file in files)


def silence(worker: str) -> float | None:
    """Seconds since the last sign of life; None when there was none."""
    try:
        return max(0.0, time.time() - alive_file(worker).stat().st_mtime)
    except FileNotFoundError:
        return None


def main(arguments: list[str]) -> int:
    if len(arguments) > 1:
        print("usage: python -m workers.liveness [WORKER]", file=sys.stderr)
        return 2
    workers = arguments or known_workers()
    complaints = [each for each in map(complaint, workers) if each is not None]
    if not workers:
        complaints.append("no worker has given a sign of life")
    for each in complaints:
        print(each, file=sys.stderr)
    return 1 if complaints else 0


def complaint(worker: str) -> str | None:
    """What is wrong with the worker, in one sentence; None for one that is alive."""
    seconds = silence(worker)
    if seconds is None:
        return f"{worker} has given no sign of life"
    if seconds > LONGEST_SILENCE_SECONDS:
        return f"{worker} has been silent for {seconds:.0f} s"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
