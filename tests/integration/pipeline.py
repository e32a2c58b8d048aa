"""The whole pipeline in one process, on real servers, each step taken when the test says so.

Quay's own parts are played as its code does them: what the registry writes when a client fetches a
blob, and what the security worker stores when it looks too early.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from data.blob_records import find_blobs, record_placement
from data.models import (
    ImageStorageLocation,
    Manifest,
    ManifestSecurityStatus,
    QueueItem,
    utcnow,
)
from data.proxycache import (
    PulledManifest,
    create_proxy_organization,
    create_repository,
    load_proxied_repository,
    pull_manifest,
)
from data.secscan.status import IndexStatus
from data.settings import Settings, WorkerType, build_settings
from data.upstream import UpstreamClient
from queues.blobwork import BlobWork, put_blob_work
from queues.rescanqueue import RescanQueue
from queues.workqueue import due_in
from workers import rescanworker
from workers.demo.imagestore import ImageStore
from workers.demo.layerserver import LayerServer
from workers.demo.scannerreports import KnownVulnerability
from workers.demo.scannerstandin import ScannerStandIn
from workers.demo.upstreamregistry import UpstreamRegistry
from workers.process import Process, Stop
from workers.proxycacheblobworker import BlobWorker, build_worker
from workers.rescanprocess import RescanProcess

SECRET = b"a secret of the tests"
# One that is worth a notification, and one that isn't.
VULNERABILITIES = [
    KnownVulnerability(id="1", package="libc6", name="CVE-2026-1", severity="Critical"),
    KnownVulnerability(id="2", package="bash", name="CVE-2026-2", severity="Low"),
]


class Pipeline:
    """One Quay with its workers, an upstream registry and a scanner stand-in."""

    def __init__(
        self,
        *,
        config: dict[str, Any],
        directory: Path,
        upstream: UpstreamRegistry,
        scanner: ScannerStandIn,
        redis: Redis,
    ) -> None:
        self.config = config
        self.settings: Settings = build_settings(config, directory)
        self.upstream = upstream
        self.scanner = scanner
        self.queue = RescanQueue("rescan", connection=redis)
        self.blob_worker: BlobWorker = build_worker(self.settings, Stop())

    @property
    def storage_path(self) -> Path:
        return Path(str(self.settings.storage.config["default"][1]["storage_path"]))

    def move_layer_server_away(self) -> None:
        """From now on Clair is given addresses where nothing answers."""
        nowhere = {"layer_server_url": "http://127.0.0.1:9"}
        rescan = self.settings.rescan.model_copy(update=nowhere)
        self.settings = self.settings.model_copy(update={"rescan": rescan})

    def publish(self, image: Any) -> None:
        self.upstream.store.add(image)

    def pull(self, organization: str, image: Any, reference: str | None = None) -> PulledManifest:
        """What Quay writes when a client asks for the image: rows, placeholders, queue items."""
        repository_id = create_repository(organization, image.name)
        repository = load_proxied_repository(repository_id, None)
        assert repository is not None
        client = UpstreamClient(repository.upstream, allowed_hosts=frozenset({"127.0.0.1"}))
        pulled = pull_manifest(repository, reference or image.tag, client)
        for digest in pulled.layer_digests:
            work = BlobWork(digest=digest, repository_id=repository_id, namespace=organization)
            put_blob_work(self.blob_worker.items, work, available_after=0)
        client.close()
        return pulled

    def fetch_blob_in_request(self, organization: str, image: Any, digest: str) -> None:
        """What the registry does when a client asks for a blob: store it and place it."""
        store = self.blob_worker.downloads.placer.storage.preferred
        content = b"".join(image.blobs[digest].pieces())
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
        with store.open_write(digest) as writer:
            writer.write(content)
            writer.commit()
        record_placement(
            digest,
            repository_id=create_repository(organization, image.name),
            location=store.location,
            size=len(content),
            keep_seconds=3600,
        )

    def run_blob_worker(self, items: int | None = None) -> None:
        """Has the blob worker do all available items, or so many, one after the other."""
        worker, done = self.blob_worker, 0
        while (items is None or done < items) and (hands := worker.claim(1)):
            worker.downloads.download(hands[0])
            worker.finish(hands, worker.place(hands))
            done += 1
        worker.reporter.tell()

    def run_rescan_worker(self, *, backfill: bool = False) -> None:
        """Has a rescan worker do what is queued on one lane, in this process."""
        self.prepare_rescan_worker(backfill=backfill).work(burst=True, logging_level=None)

    def prepare_rescan_worker(self, *, backfill: bool = False) -> RescanProcess:
        process = Process(
            worker=WorkerType.RESCAN,
            settings=self.settings,
            config=None,
            burst=True,
            stop=Stop(),
        )
        return rescanworker.prepare(process, backfill=backfill)

    def run(self) -> None:
        self.run_blob_worker()
        self.run_rescan_worker()

    def security_worker_looks_too_early(self, manifest_id: int) -> None:
        """Quay's worker on a manifest whose config it can't read: an unconditional -2."""
        manifest = Manifest.get_by_id(manifest_id)
        delete = ManifestSecurityStatus.delete()  # type: ignore[misc]
        delete.where(ManifestSecurityStatus.manifest_id == manifest_id).execute()
        self.store_status(manifest.id, manifest.repository_id, IndexStatus.MANIFEST_UNSUPPORTED)

    def store_status(
        self, manifest_id: int, repository_id: int, status: IndexStatus, **columns: Any
    ) -> None:
        values = {
            "indexer_hash": "none",
            "indexer_version": 4,
            "last_indexed": utcnow(),
            "error_json": "{}",
            "metadata_json": "{}",
            **columns,
        }
        ManifestSecurityStatus.insert(
            manifest_id=manifest_id, repository_id=repository_id, index_status=status, **values
        ).execute()

    def store_claim_of_somebody_else(self, manifest_id: int, **columns: Any) -> None:
        """Quay's worker is indexing it, as far as anybody can see."""
        delete = ManifestSecurityStatus.delete()  # type: ignore[misc]
        delete.where(ManifestSecurityStatus.manifest_id == manifest_id).execute()
        repository_id = Manifest.get_by_id(manifest_id).repository_id
        values = {"indexer_hash": "in_progress", **columns}
        self.store_status(manifest_id, repository_id, IndexStatus.IN_PROGRESS, **values)

    def status(self, manifest_id: int) -> IndexStatus | None:
        row = ManifestSecurityStatus.get_or_none(ManifestSecurityStatus.manifest_id == manifest_id)
        return None if row is None else IndexStatus(row.index_status)

    def row(self, manifest_id: int) -> ManifestSecurityStatus:
        return ManifestSecurityStatus.get(ManifestSecurityStatus.manifest_id == manifest_id)

    def row_of_manifest(self, manifest_id: int) -> Manifest:
        return Manifest.get_by_id(manifest_id)

    def is_placed(self, digest: str) -> bool:
        return any(not blob.placeholder for blob in find_blobs(digest))

    def items(self) -> list[QueueItem]:
        return list(QueueItem.select().order_by(QueueItem.id))

    def make_items_available(self) -> None:
        """The wait after a failure is over."""
        QueueItem.update(available_after=due_in(0)).execute()


@contextmanager
def pipeline(
    database_uri: str, redis: Redis, directory: Path, **changes: Any
) -> Iterator[Pipeline]:
    """A pipeline on a database with Quay's tables that is already bound.

    `changes` are keys of its config.yaml; by default its one location, `default`, is LocalStorage.
    """
    storage = directory / "storage"
    with (
        UpstreamRegistry(ImageStore()) as upstream,
        ScannerStandIn(vulnerabilities=VULNERABILITIES) as scanner,
        LayerServer(storage, SECRET) as layers,
    ):
        port = redis.connection_pool.connection_kwargs["port"]
        config: dict[str, Any] = {
            "DB_URI": database_uri,
            "DISTRIBUTED_STORAGE_CONFIG": {
                "default": ["LocalStorage", {"storage_path": str(storage)}]
            },
            "FEATURE_PROXY_CACHE": True,
            "FEATURE_SECURITY_SCANNER": True,
            "SETUP_COMPLETE": True,
            "SECURITY_SCANNER_V4_ENDPOINT": scanner.endpoint,
            "RESCAN_REDIS": {"host": "127.0.0.1", "port": port},
            "USER_EVENTS_REDIS": {"host": "127.0.0.1", "port": port},
            "SSRF_ALLOWED_HOSTS": ["127.0.0.1"],
            "RESCAN_LAYER_SERVER_URL": layers.base_url,
            "RESCAN_LAYER_SERVER_SECRET": SECRET.decode(),
            **changes,
        }
        for location in config["DISTRIBUTED_STORAGE_CONFIG"]:
            ImageStorageLocation.create(name=location)
        for organization in ("proxy", "mirror"):
            create_proxy_organization(organization, upstream.host, insecure=True)
        yield Pipeline(
            config=config, directory=directory, upstream=upstream, scanner=scanner, redis=redis
        )
