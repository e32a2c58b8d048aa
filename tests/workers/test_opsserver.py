"""The ops server as a process of its own, and how it bears what happens around it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from data.metrics import SERIES_FROM_THE_START, metric_names
from data.models import database_proxy
from data.settings import WorkerType, build_settings
from tests import servers
from tests.programs import Program
from tests.servers import wait_until
from tests.workers.ops.conftest import Running, ops_config, serving
from tests.workers.ops.opsdata import fill
from workers import opsserver
from workers.ops import watcher
from workers.process import Process, Stop

A_MILLION = 1_000_000


@pytest.fixture
def config(sqlite_database: str, redis: Redis, tmp_path: Path) -> dict[str, Any]:
    return ops_config(sqlite_database, redis, tmp_path)


def command(path: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "workers.opsserver", "--config", str(path), *options]


@contextmanager
def process(config: dict[str, Any], directory: Path) -> Iterator[tuple[Program, str]]:
    """The worker's process, ready, and its address."""
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    log = directory / "ops.log"
    started = Program("workers.opsserver", "--config", str(path), log=log)
    try:
        wait_until(lambda: "worker ready" in log.read_text(), 20, "the ops server is ready")
        address = log.read_text().partition("address=")[2].split()[0]
        yield started, f"http://{address}"
    finally:
        started.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_a_signal_and_exits_0(
    config: dict[str, Any], tmp_path: Path, signum: signal.Signals
) -> None:
    with process(config, tmp_path) as (started, url):
        assert requests.get(f"{url}/healthz", timeout=10).json() == {"status": "ok"}
        # A connection that is kept open must not keep the process from ending.
        with requests.Session() as session:
            session.get(f"{url}/healthz", timeout=10)
            started.send_signal(signum)
            assert started.wait(20) == 0


def test_takes_up_a_changed_configuration_on_sighup(config: dict[str, Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config["RESCAN_OPS_LISTEN"] = f"127.0.0.1:{port}"
    with process(config, tmp_path) as (started, url):
        assert "Sign in to act" in requests.get(url, timeout=10).text
        changed = config | {"RESCAN_OPS_TOKEN": None}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(changed))
        started.send_signal(signal.SIGHUP)

        def token_is_gone() -> bool:
            try:
                return "RESCAN_OPS_TOKEN isn't set" in requests.get(url, timeout=10).text
            except requests.ConnectionError:
                return False

        wait_until(token_is_gone, 20, "the new configuration is taken up on the same address")


def test_burst_ends_by_itself(config: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    done = subprocess.run(command(path, "--burst"), timeout=30, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_address_that_is_taken_is_one_sentence_and_exit_2(
    config: dict[str, Any], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = tmp_path / "config.yaml"
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        path.write_text(yaml.safe_dump(config | {"RESCAN_OPS_LISTEN": address}))
        done = subprocess.run(command(path), timeout=30, capture_output=True, text=True)
    assert done.returncode == 2
    assert "RESCAN_OPS_LISTEN" in done.stderr.splitlines()[-1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_server_with_a_dead_part_ends_to_be_started_anew(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(self: watcher.Watcher) -> None:
        del self
        raise TypeError("a fault of ours")

    monkeypatch.setattr(watcher.Watcher, "look", fault)
    monkeypatch.setattr(opsserver, "LOOK_SECONDS", 0.05)
    whole = Process(
        worker=WorkerType.OPS,
        settings=build_settings(config, tmp_path),
        config=None,
        burst=False,
        stop=Stop(),
    )
    with pytest.raises(RuntimeError, match="the thread database ended by itself"):
        opsserver.work(whole)


@pytest.fixture
def busy(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    settings = build_settings(config, tmp_path)
    filled = fill(settings)
    with serving(settings, monkeypatch, filled) as running:
        yield running


def samples_of(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_show_every_name_and_the_truth(busy: Running) -> None:
    answer = busy.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = samples_of(answer.text)
    shown = {name for name, _ in samples}
    for name in metric_names():
        assert name in shown or f"{name}_bucket" in shown, name
    expected = {
        ("quay_rescan_jobs_total", (("outcome", "completed"), ("reason", "event"))): 14,
        ("quay_rescan_jobs_total", (("outcome", "failed"), ("reason", "event"))): 2,
        ("quay_rescan_queue_depth", (("state", "queued"),)): 7,
        ("quay_rescan_queue_depth", (("state", "started"),)): 1,
        ("quay_rescan_queue_depth", (("state", "failed"),)): 1,
        ("quay_rescan_stuck_manifests", ()): 9,
        ("quay_rescan_scanner_up", ()): 1,
        ("quay_rescan_workers", ()): 4,
        ("quay_manifest_security_status_rows", (("status", "completed"),)): 14,
        ("quay_manifest_security_status_rows", (("status", "failed"),)): 2,
        ("quay_manifest_security_status_rows", (("status", "manifest_unsupported"),)): 0,
        ("quay_rescan_index_seconds_count", ()): 16,
    }
    assert {key: samples.get(key) for key in expected} == expected
    assert samples["quay_rescan_oldest_queued_seconds", ()] >= 0
    for name, series in SERIES_FROM_THE_START.items():
        for labels in series:
            assert (name, tuple(sorted(labels.items()))) in samples


def test_metrics_speak_openmetrics_where_it_is_asked_for(busy: Running) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = busy.get("/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_sweep_of_hours_ago_says_nothing_of_now(busy: Running, redis: Redis) -> None:
    redis.set("rescan:rescan:swept", f'{{"stuck": 9, "at": {time.time() - 7200}}}')
    assert "quay_rescan_stuck_manifests" not in {name for name, _ in scraped(busy)}


def scraped(busy: Running) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return samples_of(busy.get("/metrics").text)


def test_scanner_that_is_down_shows(busy: Running, redis: Redis) -> None:
    redis.set("rescan:rescan:circuit", "down")
    assert samples_of(busy.get("/metrics").text)["quay_rescan_scanner_up", ()] == 0
    assert "Clair is down" in busy.get("/").text
    redis.set("rescan:rescan:circuit", "busy")
    assert samples_of(busy.get("/metrics").text)["quay_rescan_scanner_up", ()] == 1
    assert "asked for a pause" in busy.get("/").text


def test_redis_that_goes_away_is_shown_and_survived(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.valkey() as server:
        config["RESCAN_REDIS"] = {"host": "127.0.0.1", "port": server.port}
        settings = build_settings(config, tmp_path)
        with serving(settings, monkeypatch, fill(settings)) as running:
            assert running.get("/readyz").status_code == 200
            server.stop()
            answer = running.get("/readyz")
            assert answer.status_code == 503
            assert "Redis can't be used" in answer.json()["checks"]["redis"]["reason"]
            assert answer.json()["checks"]["database"] == {"status": "ok"}
            page = running.get("/")
            assert page.status_code == 200
            assert "Redis is away" in page.text
            assert "ghcr/platform/api" in page.text, "what the database says is still there"
            shown = {name for name, _ in samples_of(running.get("/metrics").text)}
            assert "quay_rescan_queue_depth" not in shown, "no reading is not 0"
            assert "quay_manifest_security_status_rows" in shown
            assert running.ask({"manifest_id": 19}).status_code == 503
            server.start()
            wait_until(
                lambda: running.get("/readyz").status_code == 200, 20, "it is ready again by itself"
            )


def test_database_that_goes_away_is_shown_and_survived(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "LOOK_SECONDS", 0.1)
    settings = build_settings(config, tmp_path)
    filled = fill(settings)
    with serving(settings, monkeypatch, filled) as busy:
        outlive_the_database(busy)


def outlive_the_database(busy: Running) -> None:
    assert busy.get("/readyz").status_code == 200
    database_proxy.execute_sql("ALTER TABLE manifestsecuritystatus RENAME TO away")
    wait_until(lambda: busy.get("/readyz").status_code == 503, 20, "it isn't ready")
    answer = busy.get("/readyz").json()
    assert "manifestsecuritystatus" in answer["checks"]["database"]["reason"]
    page = busy.get("/")
    assert page.status_code == 200
    assert "Shown is what was read last" in page.text
    assert "ghcr/platform/api" in page.text
    shown = {name for name, _ in samples_of(busy.get("/metrics").text)}
    assert "quay_manifest_security_status_rows" not in shown
    assert "quay_rescan_queue_depth" in shown
    database_proxy.execute_sql("ALTER TABLE away RENAME TO manifestsecuritystatus")
    wait_until(lambda: busy.get("/readyz").status_code == 200, 20, "it is ready again by itself")


def soonest_answer(ops: Running, path: str) -> float:
    """Seconds; of several, since a machine that does other work too makes some of them late."""
    times = []
    for _ in range(7):
        started = time.monotonic()
        assert ops.get(path).status_code == 200
        times.append(time.monotonic() - started)
    return min(times)


def test_answers_at_a_million_jobs_as_at_ten(busy: Running, redis: Redis) -> None:
    paths = ("/", "/metrics")
    before = {path: soonest_answer(busy, path) for path in paths}
    for first in range(1, A_MILLION, 50_000):  # a script that runs for long makes Valkey refuse all
        redis.eval(
            "for n = ARGV[1], ARGV[1] + 49999, 1000 do local ids, failed = {}, {} "
            "for m = n, n + 999 do ids[#ids + 1] = 'rescan-' .. m "
            "failed[#failed + 1] = m; failed[#failed + 1] = 'rescan-' .. m end "
            "redis.call('RPUSH', 'rq:queue:rescan', unpack(ids)) "
            "if n < 100000 then redis.call('ZADD', 'rq:failed:rescan', unpack(failed)) end end",
            0,
            first,
        )
    for path in paths:
        assert soonest_answer(busy, path) < 5 * before[path] + 0.05, path
    assert "1,000,007" in busy.get("/").text
