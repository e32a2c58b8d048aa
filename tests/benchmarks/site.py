"""One site for all benchmarks: real PostgreSQL, Valkey, HTTP, and workers as processes."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from redis import Redis

from data.blob_records import record_placement
from data.database import create_tables, open_database
from data.manifests import media_types, parse_manifest
from data.models import ImageStorageLocation
from data.proxycache import create_proxy_organization, create_repository, write_manifest
from data.settings import Settings, build_settings
from tests import servers
from workers.demo.layerserver import LayerServer
from workers.demo.samplelayers import tar_layer
from workers.demo.scannerstandin import ScannerStandIn

SECRET = "a secret of the benchmarks"


@dataclass(slots=True)
class Site:
    """Everything that a benchmark works on."""

    settings: Settings
    config: Path
    redis: Redis
    scanner: ScannerStandIn
    storage: Path
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def image(self, layers: list[str] | None = None) -> tuple[int, str, str]:
        """A new manifest of one stored, not yet placed layer; (id, digest, layer's digest)."""
        number = next(self.numbers)
        layer = self.store(f"layer {number}".encode()) if layers is None else layers[0]
        config = f"sha256:{hashlib.sha256(f'config {number}'.encode()).hexdigest()}"
        document = {
            "schemaVersion": 2,
            "config": {"mediaType": media_types.OCI_CONFIG, "digest": config, "size": 2},
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": each,
                    "size": 9,
                }
                for each in layers or [layer]
            ],
        }
        text = json.dumps(document)
        digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        parsed = parse_manifest(text, media_types.OCI_MANIFEST)
        repository_id = create_repository("proxy", "bench")
        manifest_id, _ = write_manifest(
            repository_id, digest, media_types.OCI_MANIFEST, text, parsed
        )
        self.place(config)
        return manifest_id, digest, layer

    def store(self, name: bytes) -> str:
        """A small layer of its own in the store; its digest."""
        content = b"".join(tar_layer({"file": name}).blob.pieces())
        digest = hashlib.sha256(content).hexdigest()
        path = self.storage / "sha256" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"sha256:{digest}"

    def place(self, digest: str) -> int:
        """Commits the placement, and returns the moment after (unix nanoseconds)."""
        record_placement(digest, repository_id=1, location="default", size=9, keep_seconds=60)
        return time.time_ns()

    @contextmanager
    def worker(self, name: str, *, changes: dict[str, Any] | None = None) -> Iterator[int]:
        """The worker as a process of its own; its pid."""
        config = yaml.safe_load(self.config.read_text()) | (changes or {})
        path = self.config.with_name(f"{name}.yaml")
        path.write_text(yaml.safe_dump(config))
        process = subprocess.Popen(
            [sys.executable, "-m", f"workers.{name}", "--config", str(path)],
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def running_site() -> Iterator[Site]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rescan-bench-")))
        engine = stack.enter_context(servers.postgresql())
        valkey = stack.enter_context(servers.valkey())
        scanner = stack.enter_context(ScannerStandIn(concurrency=64))
        storage = directory / "storage"
        storage.mkdir()
        layers = stack.enter_context(LayerServer(storage, SECRET.encode()))
        uri = engine.create()
        open_database(uri)
        create_tables()
        ImageStorageLocation.create(name="default")
        create_proxy_organization("proxy", "upstream.example", insecure=True)
        address = {"host": "127.0.0.1", "port": valkey.port}
        config = {
            "DB_URI": uri,
            "DISTRIBUTED_STORAGE_CONFIG": {
                "default": ["LocalStorage", {"storage_path": str(storage)}]
            },
            "FEATURE_PROXY_CACHE": True,
            "FEATURE_SECURITY_SCANNER": True,
            "SETUP_COMPLETE": True,
            "SECURITY_SCANNER_V4_ENDPOINT": scanner.endpoint,
            "RESCAN_REDIS": address,
            "USER_EVENTS_REDIS": address,
            "PROMETHEUS_PUSHGATEWAY_URL": None,
            "RESCAN_LAYER_SERVER_URL": layers.base_url,
            "RESCAN_LAYER_SERVER_SECRET": SECRET,
        }
        path = directory / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        yield Site(
            settings=build_settings(config, directory),
            config=path,
            redis=Redis(port=valkey.port),
            scanner=scanner,
            storage=storage,
        )
