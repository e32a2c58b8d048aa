"""The embedded Quay does what Quay does, and what the demo reads from it is right."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.models import ManifestSecurityStatus, QueueItem, database_proxy
from data.proxycache import (
    PulledManifest,
    create_repository,
    load_proxied_repository,
    pull_manifest,
)
from data.storage import open_storage
from data.upstream import UpstreamClient
from queues.blobwork import BlobWork, put_blob_work
from queues.workqueue import WorkQueue
from workers.demo.images import Image
from workers.demo.imagestore import ImageStore
from workers.demo.quaydatabase import (
    LOCATION,
    count_items_due,
    create_quay,
    make_items_available,
    registry_places_blob,
    security_worker_passes,
    status_of,
)
from workers.demo.sampleimages import alpine_image, helm_chart
from workers.demo.upstreamregistry import UpstreamRegistry

ITEMS = WorkQueue("proxycacheblob")


@pytest.fixture
def upstream() -> Iterator[UpstreamRegistry]:
    with UpstreamRegistry(ImageStore()) as registry:
        yield registry


@pytest.fixture
def quay(tmp_path: Path, upstream: UpstreamRegistry) -> Iterator[Path]:
    path = tmp_path / "quay.db"
    create_quay(path, upstream.host, ("proxy",))
    yield path
    database_proxy.close()


def pull(upstream: UpstreamRegistry, image: Image) -> tuple[int, PulledManifest]:
    upstream.store.add(image)
    repository_id = create_repository("proxy", image.name)
    repository = load_proxied_repository(repository_id, None)
    assert repository is not None
    client = UpstreamClient(repository.upstream, allowed_hosts=frozenset({"127.0.0.1"}))
    try:
        return repository_id, pull_manifest(repository, image.tag, client)
    finally:
        client.close()


def place_config(tmp_path: Path, repository_id: int, image: Image) -> None:
    storage = open_storage({LOCATION: ("LocalStorage", {"storage_path": str(tmp_path / "blobs")})})
    digest = image.config_digest
    assert digest is not None
    registry_places_blob(storage.preferred, repository_id, digest, image.blobs[digest])


def put_items(count: int, available_after: float = 3600) -> None:
    for number in range(count):
        work = BlobWork(digest=f"sha256:{number:064x}", repository_id=1, namespace="proxy")
        put_blob_work(ITEMS, work, available_after=available_after)


def test_security_worker_stores_unsupported_as_quay_does(
    quay: Path, upstream: UpstreamRegistry
) -> None:
    _, pulled = pull(upstream, alpine_image("library/tool"))
    assert status_of(pulled.manifest_id) is None
    security_worker_passes(pulled.manifest_id)
    row = ManifestSecurityStatus.get()
    assert (row.index_status, row.indexer_hash, row.indexer_version) == (-2, "none", 4)
    assert (row.error_json, row.metadata_json) == ("{}", "{}")


def test_security_worker_stores_nothing_of_an_image_whose_config_is_there(
    quay: Path, upstream: UpstreamRegistry, tmp_path: Path
) -> None:
    image = alpine_image("library/tool")
    repository_id, pulled = pull(upstream, image)
    place_config(tmp_path, repository_id, image)
    security_worker_passes(pulled.manifest_id)
    assert status_of(pulled.manifest_id) is None


def test_a_chart_is_unsupported_whatever_is_there(
    quay: Path, upstream: UpstreamRegistry, tmp_path: Path
) -> None:
    image = helm_chart("charts/app")
    repository_id, pulled = pull(upstream, image)
    place_config(tmp_path, repository_id, image)
    security_worker_passes(pulled.manifest_id)
    assert status_of(pulled.manifest_id) == -2


def test_items_become_available_while_others_write(quay: Path) -> None:
    put_items(300)
    stop, writes = threading.Event(), threading.Event()

    def write() -> None:
        with sqlite3.connect(quay, timeout=30, isolation_level=None) as other:
            while not stop.is_set():
                other.execute("UPDATE user SET email = hex(randomblob(8))")
                writes.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert writes.wait(10)
        make_items_available()
    finally:
        stop.set()
        writer.join()
    assert ITEMS.claim() is not None
    assert len({item.state_id for item in QueueItem.select()}) == 300


def test_due_is_what_waits_or_is_in_work_and_not_what_was_given_back(quay: Path) -> None:
    assert count_items_due(60) == 0
    put_items(1, available_after=5)
    assert count_items_due(60) == 1
    make_items_available()
    item = ITEMS.claim()
    assert item is not None
    assert count_items_due(60) == 1  # in work
    ITEMS.give_back(item, retry_after=300, restore_retry=False)
    assert count_items_due(60) == 0


def test_an_item_without_a_retry_left_is_not_due(quay: Path) -> None:
    ITEMS.put(("proxy", "1", "sha256:0"), {}, available_after=0, retries=0)
    assert count_items_due(60) == 0
