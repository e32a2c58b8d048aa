"""The same digest in many repositories is one index call and many rows, where that is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from data.models import ImageStorage, Manifest, ManifestBlob, ProxyCacheConfig, User
from data.policy import Policy, PolicySettings
from data.secscan.status import IndexStatus, Reason
from queues.rescanjob import RescanJob
from queues.rescanqueue import job_id_of
from tests.integration.pipeline import Pipeline, pipeline
from workers.demo.sampleimages import alpine_image

IMAGE = alpine_image("library/app")


@pytest.fixture
def quay(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline(sqlite_database, redis, tmp_path) as whole:
        yield whole


@pytest.fixture
def other(quay: Pipeline) -> int:
    """The image in a second organisation: complete, at -2, and no event tells of it."""
    quay.publish(IMAGE)
    pulled = quay.pull("mirror", IMAGE)
    for item in quay.items():
        item.delete_instance()
    for digest in IMAGE.blobs:
        quay.fetch_blob_in_request("mirror", IMAGE, digest)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    return pulled.manifest_id


def rescan_first(quay: Pipeline) -> dict[str, object]:
    """Has the image of the first organisation rescanned, and returns the job's result."""
    manifest_id = quay.pull("proxy", IMAGE).manifest_id
    quay.queue.enqueue_rescan(manifest_id, Reason.EVENT, timeout=60)
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED
    job = RescanJob.fetch(job_id_of(manifest_id), connection=quay.queue.connection)
    result = job.return_value()
    assert isinstance(result, dict)
    return result


def test_one_index_call_completes_the_manifest_everywhere(quay: Pipeline, other: int) -> None:
    rescan_first(quay)
    assert quay.status(other) is IndexStatus.COMPLETED
    assert len(quay.scanner.requests) == 1


def is_no_proxy_any_more(quay: Pipeline, other: int) -> None:
    organization = User.get(User.username == "mirror")
    delete = ProxyCacheConfig.delete()  # type: ignore[misc]
    delete.where(ProxyCacheConfig.organization_id == organization.id).execute()


def has_policy(policy: Policy) -> Callable[[Pipeline, int], None]:
    def set_policy(quay: Pipeline, other: int) -> None:
        rules = {"policy": PolicySettings(organizations={"mirror": policy})}
        rescan = quay.settings.rescan.model_copy(update=rules)
        quay.settings = quay.settings.model_copy(update={"rescan": rescan})

    return set_policy


def is_a_child_that_nobody_pulled(quay: Pipeline, other: int) -> None:
    ManifestBlob.delete().where(ManifestBlob.manifest_id == other).execute()  # type: ignore[misc]
    Manifest.update(manifest_bytes="").where(Manifest.id == other).execute()


def links_another_row_of_a_layer(quay: Pipeline, other: int) -> None:
    """Old installations hold several rows of one blob; this one isn't placed."""
    digest = IMAGE.layer_digests[0]
    placed = ImageStorage.get(ImageStorage.content_checksum == digest)
    twin = ImageStorage.create(content_checksum=digest)
    link = (ManifestBlob.manifest_id == other) & (ManifestBlob.blob_id == placed.id)
    ManifestBlob.update(blob_id=twin.id).where(link).execute()


def has_row(status: IndexStatus) -> Callable[[Pipeline, int], None]:
    def store(quay: Pipeline, other: int) -> None:
        row = quay.row(other)
        row.index_status = status.value
        row.save()

    return store


@pytest.mark.parametrize(
    "spoil",
    [
        is_no_proxy_any_more,
        has_policy(Policy.OFF),
        has_policy(Policy.CYCLE),
        is_a_child_that_nobody_pulled,
        links_another_row_of_a_layer,
        has_row(IndexStatus.MANIFEST_LAYER_TOO_LARGE),
        has_row(IndexStatus.IN_PROGRESS),
    ],
)
def test_what_a_rescan_of_its_own_would_leave_alone_is_left_alone(
    quay: Pipeline, other: int, spoil: Callable[[Pipeline, int], None]
) -> None:
    spoil(quay, other)
    before = quay.row(other)
    rescan_first(quay)
    after = quay.row(other)
    assert (after.id, after.index_status) == (before.id, before.index_status)


def test_a_row_that_nobody_understands_is_no_trouble_of_the_first(
    quay: Pipeline, other: int
) -> None:
    row = quay.row(other)
    row.index_status = 7
    row.save()
    assert rescan_first(quay)["outcome"] == "completed"
    assert quay.row(other).index_status == 7
