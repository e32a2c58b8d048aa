"""An ops server on real servers, on an address of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis

from data.settings import Settings, WorkerType, build_settings
from tests.systemtools import CHROMIUM
from tests.waiting import wait_for
from tests.workers.ops.opsdata import Filled, fill
from workers import opsserver
from workers.process import Process, Stop

TOKEN = "a token of the tests"

# Said in one line by tests/conftest.py; CI has a browser.
collect_ignore = [] if CHROMIUM.path else ["test_page.py"]


@dataclass(frozen=True, slots=True)
class Running:
    """The ops server's address and settings, and a way to ask it."""

    url: str
    settings: Settings
    filled: Filled | None = None

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=10, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return requests.post(self.url + path, timeout=10, **options)

    def ask(self, body: Any, token: str = TOKEN) -> requests.Response:
        return self.post("/rescans", json=body, headers={"Authorization": f"Bearer {token}"})

    def story(self, manifest_id: object, token: str = TOKEN) -> requests.Response:
        return self.get(f"/rescans/{manifest_id}", headers={"Authorization": f"Bearer {token}"})


def ops_config(database_uri: str, redis: Redis, directory: Path) -> dict[str, Any]:
    port = redis.connection_pool.connection_kwargs["port"]
    return {
        "DB_URI": database_uri,
        "DISTRIBUTED_STORAGE_CONFIG": {
            "default": ["LocalStorage", {"storage_path": str(directory / "storage")}]
        },
        "FEATURE_SECURITY_SCANNER": True,
        "FEATURE_PROXY_CACHE": True,
        "SETUP_COMPLETE": True,
        "SECURITY_SCANNER_V4_ENDPOINT": "http://127.0.0.1:9",
        "RESCAN_REDIS": {"host": "127.0.0.1", "port": port},
        "PROMETHEUS_PUSHGATEWAY_URL": None,
        "RESCAN_OPS_LISTEN": "127.0.0.1:0",
        "RESCAN_OPS_TOKEN": TOKEN,
    }


@contextmanager
def serving(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, filled: Filled | None = None
) -> Iterator[Running]:
    """The whole worker in a thread, as its process would run it."""
    addresses: list[str] = []
    listen = opsserver.listen

    def listen_and_tell(address: Any) -> Any:
        listener = listen(address)
        addresses.append(f"http://127.0.0.1:{listener.getsockname()[1]}")
        return listener

    monkeypatch.setattr(opsserver, "listen", listen_and_tell)
    stop = Stop()
    process = Process(worker=WorkerType.OPS, settings=settings, config=None, burst=False, stop=stop)
    thread = threading.Thread(target=opsserver.work, args=(process,))
    thread.start()
    try:
        assert wait_for(lambda: addresses or not thread.is_alive())
        running = Running(addresses[0], settings, filled)
        assert wait_for(lambda: is_settled(running))
        yield running
    finally:
        stop.final = True
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def is_settled(running: Running) -> bool:
    """Whether it answers, and has looked at the database once."""
    try:
        return "not asked yet" not in running.get("/readyz").text
    except requests.ConnectionError:
        return False


@pytest.fixture
def config(sqlite_database: str, redis: Redis, tmp_path: Path) -> dict[str, Any]:
    return ops_config(sqlite_database, redis, tmp_path)


@pytest.fixture
def ops(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    """An ops server beside an empty Quay."""
    with serving(build_settings(config, tmp_path), monkeypatch) as running:
        yield running


@pytest.fixture
def busy(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    """An ops server beside a Quay in full swing."""
    settings = build_settings(config, tmp_path)
    filled = fill(settings)
    with serving(settings, monkeypatch, filled) as running:
        yield running
