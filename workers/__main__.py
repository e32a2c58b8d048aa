"""`python -m workers`: all worker types of a small site under one parent.

RESCAN_WORKERS names the types. Each runs as a process of its own, as it would alone; the parent
restarts a dead one with backoff, passes SIGTERM and SIGINT on and waits for the work in hand.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data.errors import SettingsError
from data.settings import WorkerType, read_settings
from workers.logs import set_up_logs
from workers.process import (
    EXIT_DONE,
    EXIT_WRONG_USE,
    MODULES,
    ChildFailed,
    Process,
    Stop,
    run_until_stopped,
)
from workers.supervisor import Child, supervise


def become_worker(process: Process, *, worker: WorkerType) -> None:
    """Replaces this process by the worker's own, as `python -m workers.<type>` starts it."""
    config = ["--config", str(process.config)] if process.config else []
    os.execv(sys.executable, [sys.executable, "-m", f"workers.{MODULES[worker]}", *config])


def supervise_workers(process: Process) -> None:
    workers = process.settings.rescan.workers
    supervise(process, [Child(each.value, become_worker, {"worker": each}) for each in workers])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m workers", description="Runs the worker types of RESCAN_WORKERS."
    )
    parser.add_argument("--config", type=Path, help="Quay's config.yaml (default: Quay's own)")
    arguments = parser.parse_args(argv)
    set_up_logs(worker="parent")
    stop = Stop()
    stop.listen()
    try:
        settings = read_settings(arguments.config)
        process = Process(
            worker=None, settings=settings, config=arguments.config, burst=False, stop=stop
        )
        run_until_stopped(process, supervise_workers)
    except SettingsError as error:
        print(f"workers: {error}", file=sys.stderr)
        return EXIT_WRONG_USE
    except ChildFailed as error:
        print(f"workers: {error}", file=sys.stderr)
        return error.code
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
