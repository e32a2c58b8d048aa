"""Metrics pushed to a gateway: in the form of Quay's, and never in the way of the work."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from redis import Redis
from structlog.testing import capture_logs

from data.metrics import GAUGES, STUCK_MANIFESTS, Metrics
from tests.servers import wait_until
from tests.workers.ops.conftest import ops_config
from tests.workers.test_processes import running, says
from workers import pushgateway
from workers.pushgateway import pushing


class Gateway(HTTPServer):
    """Takes what is pushed and keeps it."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), GatewayHandler)
        self.status = status
        self.pushed: list[tuple[str, str]] = []
        self.came = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class GatewayHandler(BaseHTTPRequestHandler):
    server: Gateway

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.pushed.append((unquote(self.path), body))
        self.send_response(self.server.status)
        self.end_headers()
        self.server.came.set()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


@pytest.fixture(params=[200])
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    server = Gateway(request.param)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_pushes_as_quay_does(gateway: Gateway) -> None:
    metrics = Metrics()
    with pushing(
        metrics.registry, url=gateway.url, job="quay", process_name="rescanworker", every=0.01
    ):
        metrics.jobs.labels(outcome="completed", reason="event").inc()
        gateway.came.clear()
        assert gateway.came.wait(10)
    path, body = gateway.pushed[-1]
    assert path.startswith("/metrics/job/quay/")
    assert f"/host/{socket.gethostname()}" in path
    assert "/process_name/rescanworker" in path
    assert f"/pid/{os.getpid()}" in path
    assert 'quay_rescan_jobs_total{outcome="completed",reason="event"} 1.0' in body


def test_last_counts_are_pushed_at_the_end(gateway: Gateway) -> None:
    metrics = Metrics()
    with pushing(metrics.registry, url=gateway.url, job="quay", process_name="x", every=3600):
        metrics.jobs.labels(outcome="failed", reason="sweep").inc()
    assert len(gateway.pushed) == 1


@pytest.mark.parametrize("gateway", [500], indirect=True)
def test_gateway_that_refuses_is_worth_one_warning(gateway: Gateway) -> None:
    with (
        capture_logs() as logs,
        pushing(Metrics().registry, url=gateway.url, job="quay", process_name="x", every=0.01),
    ):
        for _ in range(3):
            gateway.came.clear()
            assert gateway.came.wait(10)
    assert [each["event"] for each in logs] == ["metrics not pushed"]


def test_gateway_that_never_answers_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushgateway, "TIMEOUT_SECONDS", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        started = time.monotonic()
        with pushing(Metrics().registry, url=url, job="quay", process_name="x", every=0.01):
            listener.accept()
        assert time.monotonic() - started < 30


def test_without_an_address_nothing_is_pushed() -> None:
    before = set(threading.enumerate())
    with pushing(Metrics().registry, url=None, job="quay", process_name="x"):
        assert set(threading.enumerate()) <= before


PUSHED = {
    "proxycacheblobworker": ["quay_proxy_cache_blob_downloads_total", "blob_bytes_total"],
    "rescanworker": ["quay_rescan_jobs_total", "quay_rescan_last_blob_to_index_seconds"],
    "securityworker": ["quay_rescan_index_seconds", "quay_proxy_cache_security_resets_total"],
    "opsserver": [gauge.name for gauge in GAUGES if gauge is not STUCK_MANIFESTS],
}


@pytest.mark.parametrize("worker", PUSHED)
def test_each_worker_pushes_what_it_knows(
    worker: str, gateway: Gateway, sqlite_database: str, redis: Redis, tmp_path: Path
) -> None:
    """At its end at the latest, as the process that it is; stuck manifests only after a sweep."""
    config = ops_config(sqlite_database, redis, tmp_path)
    config |= {
        "PROMETHEUS_PUSHGATEWAY_URL": gateway.url,
        "USER_EVENTS_REDIS": config["RESCAN_REDIS"],
        "RESCAN_MAX_CONCURRENT_INDEXES": 1,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    with running(worker, path) as (process, log):
        wait_until(says(log, "worker ready"), 20, "the worker is ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    pushed = [body for path, body in gateway.pushed if f"/process_name/{worker}" in path]
    assert pushed
    for name in PUSHED[worker]:
        assert name in pushed[-1], name
