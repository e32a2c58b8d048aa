"""The life of a worker process: start, idle reasons, stop, end.

A worker is started as Quay starts its own (`python -m workers.<type> --config PATH`), runs until
SIGTERM or SIGINT, finishes or hands back what it has in hand, and exits 0. With `--burst` it ends
when there is nothing left to do. A wrong configuration is exit 2 and one sentence. SIGHUP has it
finish what is in hand, read the configuration again and go on; one that is wrong changes nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

import structlog

from data.authorities import trust_extra_authorities
from data.errors import SettingsError
from data.settings import RegistryState, Settings, WorkerType, conf_directory, read_settings
from workers.liveness import TOUCH_SECONDS, alive_file
from workers.logs import set_up_logs

log = structlog.get_logger()

# A worker that waits or idles gives a sign of life this often.
LONGEST_WAIT_SECONDS = 30.0

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_WRONG_USE = 2


class ChildFailed(Exception):
    """A child process can't be kept alive. `code` is what the parent is to exit with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def build_wakes() -> tuple[socket.socket, socket.socket]:
    """Two ends; what is sent into the second has whoever waits for the first wake."""
    first, second = socket.socketpair()
    second.setblocking(False)
    return first, second


@dataclass(slots=True)
class Stop:
    """Set by SIGTERM, SIGINT or, to `reload`, by SIGHUP; what waits for it wakes at once.

    A flag and a pair of sockets, and no `threading.Event`: its lock may be held by the very code
    that a signal interrupts, and a signal that comes just before it begins to wait doesn't end
    the wait. Both happened, once in some hundred stops.
    """

    requested: bool = False
    reload: bool = False
    final: bool = False
    alive_file: Path | None = None  # touched by `wait`, for `workers.liveness`
    touched: float = 0.0
    wakes: tuple[socket.socket, socket.socket] = field(default_factory=build_wakes)

    def request(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if signum == signal.SIGHUP:
            self.reload = True
        else:
            self.final = True
        self.set()

    def set(self) -> None:
        """Asks for a stop; what waits for it, in whatever thread, wakes."""
        self.requested = True
        with suppress(BlockingIOError):  # full: whoever waits has enough to wake for
            self.wakes[1].send(b"\0")

    def listen(self) -> None:
        """Makes the signals ask for a stop; to be called in the main thread, in a fork anew."""
        self.wakes = build_wakes()  # those of the process that this one was forked from are its own
        signal.set_wakeup_fd(self.wakes[1].fileno(), warn_on_full_buffer=False)
        for signum in STOPPING:
            signal.signal(signum, self.request)

    def take_reload(self) -> bool:
        """Whether work is to go on with the configuration read again; clears the wish."""
        if self.final or not self.reload:
            return False
        self.reload = False
        self.requested = False
        return not self.final

    def wait(self, seconds: float | None = None) -> bool:
        """Waits so long, or until a stop is asked for; True when it was. Gives signs of life."""
        end = None if seconds is None else time.monotonic() + seconds
        while not self.requested:
            self.touch()
            left = LONGEST_WAIT_SECONDS if end is None else end - time.monotonic()
            if left <= 0:
                break
            self.wakes[0].settimeout(min(left, LONGEST_WAIT_SECONDS))
            with suppress(TimeoutError):
                self.wakes[0].recv(4096)
        return self.requested

    def touch(self) -> None:
        now = time.monotonic()
        if self.alive_file is None or now - self.touched < TOUCH_SECONDS:
            return
        self.touched = now
        try:
            self.alive_file.touch()
        except OSError as error:
            log.warning("no sign of life", file=str(self.alive_file), error=str(error))
            self.alive_file = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What every worker knows of itself."""

    worker: WorkerType | None  # None: the parent of several
    settings: Settings
    config: Path | None
    burst: bool
    stop: Stop


def parse_arguments(program: str, description: str, argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--config", type=Path, help="Quay's config.yaml (default: Quay's own)")
    parser.add_argument("--burst", action="store_true", help="end when there is nothing left to do")
    return parser.parse_args(argv)


def run_worker(
    worker: WorkerType,
    description: str,
    work: Callable[[Process], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Runs `work` for the life of the process and returns its exit code.

    While there is a reason to idle, it is logged once and `work` isn't called.
    """
    program = f"workers.{MODULES[worker]}"
    arguments = parse_arguments(program, description, sys.argv[1:] if argv is None else argv)
    set_up_logs(worker=worker.value)
    stop = Stop(alive_file=alive_file(MODULES[worker]))
    stop.listen()
    try:
        trust_extra_authorities(conf_directory(arguments.config, os.environ), os.environ)
        settings = read_settings(arguments.config)
        process = Process(
            worker=worker,
            settings=settings,
            config=arguments.config,
            burst=arguments.burst,
            stop=stop,
        )
        run_until_stopped(process, lambda current: work_or_idle(current, worker, work))
    except SettingsError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return EXIT_WRONG_USE
    except ChildFailed as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.code
    log.info("worker ended")
    return EXIT_DONE


def run_until_stopped(process: Process, work: Callable[[Process], None]) -> None:
    """Calls `work` until it ends for good; after a SIGHUP again, with the settings read anew.

    Settings that can't be read, or that `work` can't begin with, leave the old ones in place.
    """
    work(process)
    while process.stop.take_reload():
        before = process
        try:
            process = replace(process, settings=read_settings(process.config))
            log.info("configuration read again")
            work(process)
        except SettingsError as error:
            log.error("configuration not taken up, the old one stays", error=str(error))
            process = before
            work(process)


def work_or_idle(process: Process, worker: WorkerType, work: Callable[[Process], None]) -> None:
    reason = idle_reason(process.settings, worker)
    # The ops server serves on: it is whom people and probes ask why the others idle.
    if reason is None or worker is WorkerType.OPS:
        work(process)
    else:
        idle(process, reason)


MODULES = {
    WorkerType.BLOB: "proxycacheblobworker",
    WorkerType.RESCAN: "rescanworker",
    WorkerType.SECURITY: "securityworker",
    WorkerType.SWEEP: "sweepworker",
    WorkerType.OPS: "opsserver",
}


def idle(process: Process, reason: str) -> None:
    """Says why, once, and does nothing until it is stopped, as Quay's workers do."""
    log.warning("worker idles", reason=reason)
    if not process.burst:
        process.stop.wait()


def idle_reason(settings: Settings, worker: WorkerType) -> str | None:
    """Why this worker may not work with these settings, in the words of config.yaml."""
    features = settings.features
    if features.account_recovery_mode:
        return "ACCOUNT_RECOVERY_MODE is true"
    if features.registry_state is RegistryState.READONLY:
        return "REGISTRY_STATE is readonly"
    if not features.setup_complete:
        return "SETUP_COMPLETE is not true"
    if worker is WorkerType.BLOB:
        if not features.proxy_cache:
            return "FEATURE_PROXY_CACHE is not true"
        if not features.proxy_cache_blob_download:
            return "FEATURE_PROXY_CACHE_BLOB_DOWNLOAD is false"
    elif worker is not WorkerType.OPS:
        if not features.security_scanner:
            return "FEATURE_SECURITY_SCANNER is not true"
        if settings.scanner.endpoint is None:
            return "SECURITY_SCANNER_V4_ENDPOINT is not set"
    return None
