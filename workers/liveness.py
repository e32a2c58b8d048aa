"""A sign of life for probes: every worker's main loop touches a file, and a probe looks at its age.

`python -m workers.liveness <worker>` (rescanworker, sweepworker, ..) exits 0 for a worker whose
loop went round within LONGEST_SILENCE_SECONDS, else 1 and one sentence. It imports nothing else of
the project: a probe runs every half minute.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

# The slowest loop is the sweep's: a round every RESCAN_SWEEP_INTERVAL, 60 s unless set otherwise.
LONGEST_SILENCE_SECONDS = 300.0
TOUCH_SECONDS = 5.0


def alive_file(worker: str) -> Path:
    """Where the worker called `worker` leaves its sign of life, in the directory for such files."""
    return Path(tempfile.gettempdir()) / f"quay-rescan-{worker}.alive"


def silence(worker: str) -> float | None:
    """Seconds since the last sign of life; None when there was none."""
    try:
        return max(0.0, time.time() - alive_file(worker).stat().st_mtime)
    except FileNotFoundError:
        return None


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m workers.liveness WORKER", file=sys.stderr)
        return 2
    seconds = silence(arguments[0])
    if seconds is None:
        print(f"{arguments[0]} has given no sign of life", file=sys.stderr)
        return 1
    if seconds > LONGEST_SILENCE_SECONDS:
        print(f"{arguments[0]} has been silent for {seconds:.0f} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
