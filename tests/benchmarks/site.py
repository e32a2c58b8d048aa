"""One site for all benchmarks: real PostgreSQL, Valkey, HTTP, and workers as processes."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from redis import Redis

from data.blob_records import record_placement
from data.database import create_tables, open_database
from data.manifests import media_types, parse_manifest
from data.models import ImageStorageLocation, database_proxy
from data.proxycache import create_proxy_organization, create_repository, write_manifest
from data.settings import Settings, build_settings
from data.storage.blobstore import blob_path
from queues.blobwork import BlobWork, put_blob_work
from queues.rescanqueue import RescanQueue
from queues.workqueue import WorkQueue
from tests import servers
from tests.benchmarks.scanner import BenchScanner
from workers.demo.images import Image, build_image
from workers.demo.layerserver import LayerServer
from workers.demo.samplelayers import tar_layer
from workers.demo.upstreamregistry import UpstreamRegistry

SECRET = "a secret of the benchmarks"
ORGANIZATION, REPOSITORY = "proxy", "bench"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
# As in production, but that the moment of each commit can be asked for.
DATABASE_SETTINGS = ("track_commit_timestamp = on",)


@dataclass(frozen=True, slots=True)
class WrittenManifest:
    """A manifest row."""

    manifest_id: int
    digest: str


@dataclass(slots=True)
class Site:
    """Everything that a benchmark works on."""

    settings: Settings
    config: Path
    redis: Redis
    upstream: UpstreamRegistry
    storage: Path
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def queue(self) -> RescanQueue:
        return RescanQueue(self.settings.rescan.queue_name, connection=self.redis)

    @property
    def items(self) -> WorkQueue:
        return WorkQueue(self.settings.registry.blob_queue_name)

    def publish(self) -> Image:
        """A new image of one layer of its own at the upstream."""
        content = f"layer {next(self.numbers)}".encode()
        image = build_image(REPOSITORY, [tar_layer({"file": content})])
        self.upstream.store.add(image)
        return image

    def pull(self, image: Image) -> int:
        """What Quay writes for a pull, its queue item available at once; the manifest's id."""
        text = image.manifest.decode()
        parsed = parse_manifest(text, image.media_type)
        repository_id = create_repository(ORGANIZATION, REPOSITORY)
        with database_proxy.atomic():
            manifest_id, _ = write_manifest(
                repository_id, image.digest, image.media_type, text, parsed
            )
            for digest in image.layer_digests:
                work = BlobWork(digest=digest, repository_id=repository_id, namespace=ORGANIZATION)
                put_blob_work(self.items, work, available_after=0)
        return manifest_id

    def write_image(
        self, layers: Sequence[str], *, repository: str = REPOSITORY
    ) -> WrittenManifest:
        """A new manifest of these layers, with a config of its own that is placed."""
        return self.write_manifest(next(self.numbers), layers, repository=repository)

    def write_manifest(
        self, number: int, layers: Sequence[str], *, repository: str
    ) -> WrittenManifest:
        """The manifest of that number, with a placed config: the same one in any repository."""
        config = f"config {number}"
        text = manifest_document(sha256(config), layers)
        parsed = parse_manifest(text, media_types.OCI_MANIFEST)
        repository_id = create_repository(ORGANIZATION, repository)
        manifest_id, _ = write_manifest(
            repository_id, sha256(text), media_types.OCI_MANIFEST, text, parsed
        )
        self.place(sha256(config))
        return WrittenManifest(manifest_id, sha256(text))

    def new_layer(self) -> str:
        """The digest of a layer that nobody has yet."""
        return sha256(f"layer {next(self.numbers)}")

    def write_complete_image(self) -> WrittenManifest:
        """A new manifest of one layer, all of it placed."""
        layer = self.new_layer()
        written = self.write_image([layer])
        self.place(layer)
        return written

    def place(self, digest: str) -> None:
        """Bytes of the blob's in the store, whatever they are, and its placement."""
        self.store(digest)
        record_placement(digest, repository_id=1, location="default", size=9, keep_seconds=60)

    def store(self, digest: str) -> None:
        path = self.storage / blob_path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"benchmark")

    def settings_with(self, **changes: Any) -> Settings:
        """Those of the config with changes to it."""
        config = yaml.safe_load(self.config.read_text()) | changes
        return build_settings(config, self.config.parent)

    @contextmanager
    def worker(
        self, name: str, *, scanner: BenchScanner | None = None, **changes: Any
    ) -> Iterator[int]:
        """The worker as a process of its own, with changes to the config; its pid."""
        if scanner is not None:
            changes["SECURITY_SCANNER_V4_ENDPOINT"] = scanner.endpoint
        config = yaml.safe_load(self.config.read_text()) | changes
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
    def rescan_workers(self, count: int, *, scanner: BenchScanner, **changes: Any) -> Iterator[int]:
        """A rescanworker with so many children for events, all of them ready; its pid."""
        changes["RESCAN_MAX_CONCURRENT_INDEXES"] = count
        with self.worker("rescanworker", scanner=scanner, **changes) as pid:
            lanes = (self.queue.name, f"{self.queue.name}-backfill")
            servers.wait_until(
                lambda: sum(self.redis.scard(f"rq:workers:{lane}") for lane in lanes) > count,
                60,
                "the workers are ready",
            )
            yield pid


def manifest_document(config: str, layers: Sequence[str]) -> str:
    document = {
        "schemaVersion": 2,
        "config": {"mediaType": media_types.OCI_CONFIG, "digest": config, "size": 2},
        "layers": [{"mediaType": LAYER_TYPE, "digest": each, "size": 9} for each in layers],
    }
    return json.dumps(document)


def sha256(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@contextmanager
def running_site() -> Iterator[Site]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rescan-bench-")))
        engine = stack.enter_context(servers.postgresql(DATABASE_SETTINGS))
        assert engine.restart is not None
        engine.restart(lambda: None)
        valkey = stack.enter_context(servers.valkey())
        upstream = stack.enter_context(UpstreamRegistry())
        storage = directory / "storage"
        storage.mkdir()
        layers = stack.enter_context(LayerServer(storage, SECRET.encode()))
        uri = engine.create()
        open_database(uri)
        create_tables()
        ImageStorageLocation.create(name="default")
        create_proxy_organization(ORGANIZATION, f"127.0.0.1:{upstream.port}", insecure=True)
        address = {"host": "127.0.0.1", "port": valkey.port}
        config = {
            "DB_URI": uri,
            "DISTRIBUTED_STORAGE_CONFIG": {
                "default": ["LocalStorage", {"storage_path": str(storage)}]
            },
            "FEATURE_PROXY_CACHE": True,
            "FEATURE_SECURITY_SCANNER": True,
            "SETUP_COMPLETE": True,
            "SSRF_ALLOWED_HOSTS": ["127.0.0.1"],
            # Each benchmark puts its own scanner in this place.
            "SECURITY_SCANNER_V4_ENDPOINT": "http://127.0.0.1:9",
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
            upstream=upstream,
            storage=storage,
        )
