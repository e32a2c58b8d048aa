"""Everything the demo runs on, started together and gone together.

A real Valkey, a SQLite database with Quay's tables, the stand-ins, and the workers as the separate
processes that they are in production.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from redis import Redis

from data.storage import Storage, open_storage
from queues.rescanqueue import RescanQueue
from workers.demo.imagestore import ImageStore
from workers.demo.interruption import Interruption
from workers.demo.layerserver import LayerServer
from workers.demo.processes import WORKERS, Workers, running_valkey
from workers.demo.quaydatabase import LOCATION, create_quay
from workers.demo.scannerstandin import ScannerStandIn
from workers.demo.upstreamregistry import UpstreamRegistry

ORGANIZATIONS = ("proxy", "mirror")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The running demo."""

    interruption: Interruption
    upstream: UpstreamRegistry
    scanner: ScannerStandIn
    storage: Storage
    rescans: RescanQueue
    workers: Workers


@contextmanager
def running_environment(
    interruption: Interruption, log: list[str], say: Callable[[str], object]
) -> Iterator[Environment]:
    """Starts it all; at the end, however it comes, stops all and removes every file.

    `log` is filled with the lines of the workers' logs; `say` is told what is being started.
    """
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="quay-rescan-demo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        say("Starting a Valkey server")
        port = stack.enter_context(running_valkey(directory, interruption))
        say("Starting an upstream registry, a scanner stand-in and a layer server")
        upstream = stack.enter_context(UpstreamRegistry(ImageStore()))
        scanner = stack.enter_context(ScannerStandIn())
        secret = secrets.token_hex(16)
        blobs = directory / "storage"
        layers = stack.enter_context(LayerServer(blobs, secret.encode()))
        storage = {LOCATION: ("LocalStorage", {"storage_path": str(blobs)})}
        config = directory / "config.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "DB_URI": create_quay(directory / "quay.db", upstream.host, ORGANIZATIONS),
                    "DISTRIBUTED_STORAGE_CONFIG": {key: [*it] for key, it in storage.items()},
                    "USER_EVENTS_REDIS": {"host": "127.0.0.1", "port": port},
                    "SECURITY_SCANNER_V4_ENDPOINT": scanner.endpoint,
                    "RESCAN_LAYER_SERVER_URL": layers.base_url,
                    "RESCAN_LAYER_SERVER_SECRET": secret,
                    **SWITCHES,
                }
            )
        )
        say(f"Starting the workers: {', '.join(WORKERS)}")
        workers = Workers(config=config, directory=directory, interruption=interruption, log=log)
        environment = Environment(
            interruption=interruption,
            upstream=upstream,
            scanner=scanner,
            storage=open_storage(storage),
            rescans=RescanQueue("rescan", connection=stack.enter_context(Redis(port=port))),
            workers=workers,
        )
        stack.enter_context(workers.running())
        yield environment


SWITCHES: dict[str, Any] = {
    "FEATURE_PROXY_CACHE": True,
    "FEATURE_SECURITY_SCANNER": True,
    "SETUP_COMPLETE": True,
    "SSRF_ALLOWED_HOSTS": ["127.0.0.1"],
    "PROMETHEUS_PUSHGATEWAY_URL": None,
}
