"""Worker programs as processes of their own, without the price of a start.

Python takes half a second of processor time to import a worker. These are forked from a process
that has imported all of them, so a test of what a worker does once it runs costs a tenth of that;
the start itself, by `python -m`, is tried once for each worker in `tests.workers.test_processes`.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = ("proxycacheblobworker", "rescanworker", "securityworker", "sweepworker", "opsserver")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([f"workers.{each}" for each in PROGRAMS] + ["workers.__main__"])


class Program:
    """`python -m <module> <arguments>`, its standard error in `log`; used as a Popen is.

    Nothing that it writes may make a file larger than `largest_file` bytes.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
        largest_file: int | None = None,
    ) -> None:
        self.log = log
        log.write_text("")
        self.process = CONTEXT.Process(
            target=run, args=(module, arguments, log, environment or {}, largest_file)
        )
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"it hasn't ended within {seconds} s"
        return self.process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def run(
    module: str,
    arguments: tuple[str, ...],
    log: Path,
    environment: Mapping[str, str],
    largest_file: int | None,
) -> None:
    """What the forked process does, in a session of its own."""
    os.setsid()
    os.environ.update(environment)
    limit_files(largest_file)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.argv = [module, *arguments]
    program = importlib.import_module(f"{module}.__main__" if module == "workers" else module)
    sys.exit(program.main())


def limit_files(largest: int | None) -> None:
    """Writing more to a file fails from now on; it can be lifted again."""
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
