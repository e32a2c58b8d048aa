"""The whole path on object storage: written to a bucket, and fetched by the scanner from its links.

moto's server is the store, and rclone's, which looks at the signature of every link. The scanner
stand-in fetches each layer as Clair does: from the link that it was told, with the headers that it
was told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from data.blob_records import find_blobs, record_placement
from data.proxycache import create_repository
from data.secscan.status import IndexStatus
from data.storage import BlobStore, Storage
from queues.wiring import build_layer_links
from tests.data.storage.servers import moto
from tests.data.storage.targets import (
    S3Account,
    open_moto_account,
    rclone_account,
    s3_target,
)
from tests.integration.pipeline import Pipeline, pipeline
from workers.demo.images import Image
from workers.demo.sampleimages import debian_image

IMAGE = debian_image("library/app")


@pytest.fixture(scope="module", params=["moto", "rclone"])
def account(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Account]:
    if request.param == "moto":
        with moto() as url:
            yield open_moto_account(url)
    else:
        with rclone_account(tmp_path_factory.mktemp("rclone")) as account:
            yield account


@pytest.fixture
def quay(
    sqlite_database: str, redis: Redis, tmp_path: Path, account: S3Account
) -> Iterator[Pipeline]:
    """Two locations in one bucket, of which `near` is preferred; no layer server of ours."""
    engine, parameters = s3_target(account).config
    locations: dict[str, list[Any]] = {
        name: [engine, {**parameters, "storage_path": f"/{name}/{uuid4()}"}]
        for name in ("far", "near")
    }
    changes = {
        "DISTRIBUTED_STORAGE_CONFIG": locations,
        "DISTRIBUTED_STORAGE_PREFERENCE": ["near", "far"],
        "RESCAN_LAYER_SERVER_URL": None,
        "RESCAN_LAYER_SERVER_SECRET": None,
    }
    with pipeline(sqlite_database, redis, tmp_path, **changes) as whole:
        whole.publish(IMAGE)
        yield whole


def storage_of(quay: Pipeline) -> Storage:
    return quay.blob_worker.downloads.placer.storage


def put(store: BlobStore, image: Image, digest: str) -> None:
    """What another Quay, for which this location is the first, did for a client."""
    content = b"".join(image.blobs[digest].pieces())
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
    with store.open_write(digest) as writer:
        writer.write(content)
        writer.commit()
    record_placement(
        digest,
        repository_id=create_repository("proxy", image.name),
        location=store.location,
        size=len(content),
        keep_seconds=3600,
    )


def link(quay: Pipeline, digest: str) -> str:
    """Where the scanner is told to fetch the layer."""
    links = build_layer_links(quay.settings, storage_of(quay))
    return links.locate("proxy", IMAGE.name, digest).uri


def test_blobs_go_to_the_first_location_and_the_scanner_fetches_them_from_there(
    quay: Pipeline, account: S3Account
) -> None:
    pulled = quay.pull("proxy", IMAGE)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED
    for digest in IMAGE.layer_digests:
        assert [blob.locations for blob in find_blobs(digest)] == [("near",)]
        assert link(quay, digest).startswith(f"{account.url}/quay/near/")
        assert "X-Amz-Signature=" in link(quay, digest)
    (request,) = quay.scanner.requests.of(IMAGE.digest)
    assert request.status == 201
    assert request.packages > 0, "the layers were fetched and read"


def test_layer_is_read_from_whichever_location_holds_it(quay: Pipeline, account: S3Account) -> None:
    pulled = quay.pull("proxy", IMAGE)
    elsewhere, *others = IMAGE.layer_digests
    put(storage_of(quay).stores["far"], IMAGE, elsewhere)
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED
    assert link(quay, elsewhere).startswith(f"{account.url}/quay/far/")
    assert all(link(quay, digest).startswith(f"{account.url}/quay/near/") for digest in others)


def test_blob_whose_object_is_gone_is_fetched_again(quay: Pipeline) -> None:
    """Only its placement in `far` is left: nobody can read it, so it is placed anew in `near`."""
    pulled = quay.pull("proxy", IMAGE)
    lost = IMAGE.layer_digests[0]
    record_placement(
        lost,
        repository_id=create_repository("proxy", IMAGE.name),
        location="far",
        size=1,
        keep_seconds=3600,
    )
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED
    assert storage_of(quay).stores["near"].exists(lost)
    assert [blob.locations for blob in find_blobs(lost)] == [("far", "near")]
