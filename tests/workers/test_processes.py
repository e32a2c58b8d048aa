"""Worker processes as they are started in production: real ones, with real signals."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from tests import servers
from tests.programs import Program
from tests.servers import wait_until
from workers.rescanprocess import WORKER_LIFE_SECONDS

NO_PATH = {"default": ["LocalStorage", {}]}
WORKERS = ["proxycacheblobworker", "rescanworker", "securityworker", "sweepworker"]


@pytest.fixture
def config(sqlite_database: str, redis: Redis, tmp_path: Path) -> dict[str, Any]:
    """A config.yaml with which every worker may work; there is nothing to do."""
    address = {"host": "127.0.0.1", "port": redis.connection_pool.connection_kwargs["port"]}
    return {
        "DB_URI": sqlite_database,
        "DISTRIBUTED_STORAGE_CONFIG": {
            "default": ["LocalStorage", {"storage_path": str(tmp_path / "storage")}]
        },
        "FEATURE_PROXY_CACHE": True,
        "FEATURE_SECURITY_SCANNER": True,
        "SETUP_COMPLETE": True,
        "SECURITY_SCANNER_V4_ENDPOINT": "http://127.0.0.1:9",
        "RESCAN_REDIS": address,
        "USER_EVENTS_REDIS": address,
        "RESCAN_MAX_CONCURRENT_INDEXES": 1,
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    path = tmp_path / "config.yaml"

    def write_config(config: dict[str, Any]) -> Path:
        path.write_text(yaml.safe_dump(config))
        return path

    return write_config


def command(worker: str, path: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", module(worker), "--config", str(path), *options]


def module(worker: str) -> str:
    return f"workers.{worker}".rstrip(".")


@contextmanager
def running(worker: str, path: Path) -> Iterator[tuple[Program, Path]]:
    """The worker and the file that its log goes to."""
    program = Program(module(worker), "--config", str(path), log=path.with_suffix(".log"))
    try:
        yield program, program.log
    finally:
        program.kill()


def run_to_its_end(worker: str, path: Path, *options: str) -> tuple[int, str]:
    """The worker's exit status, and what it said."""
    log = path.with_suffix(".log")
    program = Program(module(worker), "--config", str(path), *options, log=log)
    try:
        return program.wait(30), log.read_text()
    finally:
        program.kill()


def says(log: Path, text: str) -> Callable[[], bool]:
    return lambda: text in log.read_text()


@pytest.mark.parametrize("worker", WORKERS)
def test_worker_is_started_as_quay_starts_its_own_and_runs_until_a_signal(
    worker: str, config: dict[str, Any], write: Callable[[dict[str, Any]], Path]
) -> None:
    path = write(config)
    log = path.with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen(command(worker, path), stderr=stream)
    try:
        wait_until(says(log, "worker ready"), 20, "the worker is ready")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("worker", WORKERS)
def test_interrupted_worker_exits_0(
    worker: str, config: dict[str, Any], write: Callable[[dict[str, Any]], Path]
) -> None:
    with running(worker, write(config)) as (process, log):
        wait_until(says(log, "worker ready"), 20, "the worker is ready")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, log.read_text()


@pytest.mark.parametrize("worker", WORKERS)
def test_burst_ends_when_there_is_nothing_left_to_do(
    worker: str, config: dict[str, Any], write: Callable[[dict[str, Any]], Path]
) -> None:
    status, said = run_to_its_end(worker, write(config), "--burst")
    assert status == 0, said


@pytest.mark.parametrize("worker", WORKERS)
def test_wrong_configuration_is_one_sentence_and_exit_2(
    worker: str, config: dict[str, Any], write: Callable[[dict[str, Any]], Path]
) -> None:
    path = write(config | {"RESCAN_JOB_TIMEOUT": "soon"})
    status, said = run_to_its_end(worker, path)
    assert status == 2
    (line,) = said.splitlines()
    assert "RESCAN_JOB_TIMEOUT" in line


@pytest.mark.parametrize(
    ("worker", "change"),
    [
        ("proxycacheblobworker", {"DISTRIBUTED_STORAGE_CONFIG": NO_PATH}),
        ("rescanworker", {"DISTRIBUTED_STORAGE_CONFIG": NO_PATH}),
        ("rescanworker", {"SECURITY_SCANNER_V4_PSK": "***"}),
        (
            "rescanworker",
            {
                "INSTANCE_SERVICE_KEY_KID_LOCATION": "/nowhere/quay.kid",
                "INSTANCE_SERVICE_KEY_LOCATION": __file__,
            },
        ),
        ("securityworker", {"SECURITY_SCANNER_V4_PSK": "***"}),
    ],
)
def test_value_that_cannot_be_used_is_one_sentence_and_exit_2(
    worker: str,
    change: dict[str, Any],
    config: dict[str, Any],
    write: Callable[[dict[str, Any]], Path],
) -> None:
    """Each by itself is well formed: what uses it can't."""
    path = write(config | change)
    status, said = run_to_its_end(worker, path)
    assert status == 2, said
    (line,) = said.splitlines()
    assert next(iter(change)) in line


@pytest.mark.parametrize(
    ("worker", "change", "reason"),
    [
        ("proxycacheblobworker", {"FEATURE_PROXY_CACHE": False}, "FEATURE_PROXY_CACHE"),
        (
            "proxycacheblobworker",
            {"FEATURE_PROXY_CACHE_BLOB_DOWNLOAD": False},
            "FEATURE_PROXY_CACHE_BLOB_DOWNLOAD",
        ),
        ("rescanworker", {"FEATURE_SECURITY_SCANNER": False}, "FEATURE_SECURITY_SCANNER"),
        ("rescanworker", {"REGISTRY_STATE": "readonly"}, "REGISTRY_STATE"),
        ("rescanworker", {"ACCOUNT_RECOVERY_MODE": True}, "ACCOUNT_RECOVERY_MODE"),
        ("rescanworker", {"SETUP_COMPLETE": False}, "SETUP_COMPLETE"),
        ("sweepworker", {"SECURITY_SCANNER_V4_ENDPOINT": None}, "SECURITY_SCANNER_V4_ENDPOINT"),
    ],
)
def test_worker_that_may_not_work_idles_and_says_why_once(
    worker: str,
    change: dict[str, Any],
    reason: str,
    config: dict[str, Any],
    write: Callable[[dict[str, Any]], Path],
) -> None:
    with running(worker, write(config | change)) as (process, log):
        wait_until(says(log, "worker idles"), 20, "the worker idles")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert log.read_text().count(reason) == 1


def test_security_worker_begins_a_cycle_every_interval(
    config: dict[str, Any], write: Callable[[dict[str, Any]], Path]
) -> None:
    """SECURITY_SCANNER_INDEXING_INTERVAL; Clair is away, so each cycle is a short one."""
    path = write(config | {"SECURITY_SCANNER_INDEXING_INTERVAL": 1})
    with running("securityworker", path) as (_, log):
        wait_until(lambda: log.read_text().count("cycle cut short") >= 3, 20, "three cycles")


def test_changed_configuration_is_taken_up_on_sighup(
    config: dict[str, Any], write: Callable[[dict[str, Any]], Path]
) -> None:
    path = write(config | {"SETUP_COMPLETE": False})
    with running("proxycacheblobworker", path) as (process, log):
        wait_until(says(log, "worker idles"), 20, "the worker idles")
        write({"RESCAN_QUEUE_NAME": "not a name"})
        process.send_signal(signal.SIGHUP)
        wait_until(says(log, "the old one stays"), 20, "a wrong configuration changes nothing")
        write(config)
        process.send_signal(signal.SIGHUP)
        wait_until(says(log, "worker ready"), 20, "the right configuration is taken up")
        write(config | {"DISTRIBUTED_STORAGE_CONFIG": NO_PATH})
        process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: log.read_text().count("worker ready") == 2,
            20,
            "it goes on with the old one, though the new one could be read",
        )
        assert process.poll() is None


def test_parent_restarts_a_dead_child(
    config: dict[str, Any], write: Callable[[dict[str, Any]], Path], redis: Redis
) -> None:
    with running("rescanworker", write(config)) as (process, log):
        wait_until(lambda: redis.scard("rq:workers:rescan") == 1, 20, "a worker is registered")
        (key,) = redis.smembers("rq:workers:rescan")
        pid = int(redis.hget(key, "pid") or 0)
        assert pid not in {0, process.pid}
        wait_until(lambda: 0 < redis.ttl(key) <= WORKER_LIFE_SECONDS, 20, "it gives signs of life")
        subprocess.run(["kill", "-9", str(pid)], check=True)
        wait_until(says(log, "child died"), 20, "the parent notices")
        wait_until(lambda: redis.scard("rq:workers:rescan") == 2, 20, "another one is registered")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_workers_end_soon_though_redis_is_away(
    config: dict[str, Any], write: Callable[[dict[str, Any]], Path]
) -> None:
    """Under the 60 s that supervisord gives them, each in the middle of its work on Redis."""
    own_settings = {
        "RESCAN_WORKERS": ["blob", "rescan", "security", "sweep"],
        "RESCAN_SWEEP_INTERVAL": 1,
        "SECURITY_SCANNER_INDEXING_INTERVAL": 1,
    }
    with servers.valkey() as server:
        port = server.port
        address = {"host": "127.0.0.1", "port": port}
        own = Redis(port=port)
        both = {"RESCAN_REDIS": address, "USER_EVENTS_REDIS": address}
        with running("", write(config | own_settings | both)) as (process, log):
            wait_until(lambda: log.read_text().count('"worker ready"') >= 5, 30, "all are ready")
            own.shutdown(nosave=True)
            wait_until(lambda: refuses(port), 20, "Valkey is gone")
            gone = time.monotonic()
            wait_until(lambda: time.monotonic() > gone + 3, 5, "each of them waits for it")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()


def refuses(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) != 0


def test_children_die_with_their_parent(
    config: dict[str, Any], write: Callable[[dict[str, Any]], Path], redis: Redis
) -> None:
    with running("rescanworker", write(config)) as (process, _):
        wait_until(lambda: redis.scard("rq:workers:rescan") == 1, 20, "a worker is registered")
        (key,) = redis.smembers("rq:workers:rescan")
        pid = int(redis.hget(key, "pid") or 0)
        process.kill()
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20, "the child is gone")


def test_small_site_runs_all_its_workers_with_one_command(
    config: dict[str, Any], write: Callable[[dict[str, Any]], Path]
) -> None:
    path = write(config | {"RESCAN_WORKERS": ["blob", "rescan", "sweep"]})
    with running("", path) as (process, log):
        wait_until(lambda: log.read_text().count("worker ready") >= 3, 30, "all are ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()


def test_child_with_a_wrong_configuration_ends_the_parent(
    config: dict[str, Any], write: Callable[[dict[str, Any]], Path]
) -> None:
    path = write(config | {"RESCAN_WORKERS": ["blob"], "DISTRIBUTED_STORAGE_CONFIG": NO_PATH})
    status, said = run_to_its_end("", path)
    assert status == 2
    assert "DISTRIBUTED_STORAGE_CONFIG" in said
