"""The rows of a blob: found and placed, several blobs at once, on every engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from data.blob_records import (
    NewPlacement,
    find_blobs,
    find_blobs_of_digests,
    record_placements,
)
from data.errors import SettingsError
from data.models import (
    ImageStorage,
    ImageStorageLocation,
    ImageStoragePlacement,
    UploadedBlob,
    utcnow,
)
from data.proxycache import create_proxy_organization, create_repository

KEEP_SECONDS = 600


@pytest.fixture
def repository_id(database: str) -> int:
    del database
    ImageStorageLocation.create(name="near")
    ImageStorageLocation.create(name="far")
    create_proxy_organization("proxy", "upstream.example", insecure=True)
    return create_repository("proxy", "app")


def blob(digest: str, size: int | None = 9) -> int:
    row = ImageStorage.create(content_checksum=digest, image_size=size)
    return int(row.id)


def placement(digest: str, repository_id: int) -> NewPlacement:
    return NewPlacement(
        digest=digest,
        repository_id=repository_id,
        location="near",
        size=9,
        keep_seconds=KEEP_SECONDS,
    )


def test_blobs_are_found_by_their_digests(repository_id: int) -> None:
    first, second, twin = blob("sha256:1"), blob("sha256:2"), blob("sha256:1")
    record_placements([placement("sha256:2", repository_id)])
    found = find_blobs_of_digests(["sha256:2", "sha256:1", "sha256:3", "sha256:2"])
    assert {digest: [each.id for each in blobs] for digest, blobs in found.items()} == {
        "sha256:1": [first, twin],
        "sha256:2": [second],
        "sha256:3": [],
    }
    assert found["sha256:2"] == find_blobs("sha256:2")
    assert found["sha256:2"][0].locations == ("near",)
    assert find_blobs_of_digests([]) == {}


def test_many_placements_cost_what_one_does(
    repository_id: int, count_statements: Callable[[], list[str]]
) -> None:
    digests = [f"sha256:{number}" for number in range(6)]
    for digest in digests:
        blob(digest)
    costs = []
    for group in (digests[:1], digests[1:]):
        before = len(count_statements())
        record_placements([placement(digest, repository_id) for digest in group])
        costs.append(len(count_statements()) - before)
    assert costs[0] == costs[1]
    assert all(each.locations == ("near",) for digest in digests for each in find_blobs(digest))


def test_blob_is_kept_on_behalf_of_whoever_it_was_fetched_for(repository_id: int) -> None:
    """Also where two fetched it at once: placed once, kept for both."""
    other = create_repository("proxy", "other")
    blob_id = blob("sha256:1")
    record_placements([placement("sha256:1", each) for each in (repository_id, other)])
    assert ImageStoragePlacement.select().count() == 1
    links = list(UploadedBlob.select().order_by(UploadedBlob.id))
    assert [(link.repository_id, link.blob_id) for link in links] == [
        (repository_id, blob_id),
        (other, blob_id),
    ]
    for link in links:
        assert link.expires_at - link.uploaded_at == timedelta(seconds=KEEP_SECONDS)
        assert abs(link.uploaded_at - utcnow()) < timedelta(seconds=60)


def test_saying_it_again_places_nothing_twice(repository_id: int) -> None:
    blob("sha256:1")
    record_placements([placement("sha256:1", repository_id)])
    record_placements([replace(placement("sha256:1", repository_id), location="far")])
    record_placements([placement("sha256:1", repository_id)])
    assert [each.locations for each in find_blobs("sha256:1")] == [("near", "far")]


def test_size_that_nobody_knew_is_filled_in(repository_id: int) -> None:
    blob("sha256:1", None)
    blob("sha256:2", 7)
    record_placements([placement(digest, repository_id) for digest in ("sha256:1", "sha256:2")])
    sizes = [each.size for digest in ("sha256:1", "sha256:2") for each in find_blobs(digest)]
    assert sizes == [9, 7]


def test_blob_that_is_gone_is_passed_over(repository_id: int) -> None:
    blob("sha256:1")
    record_placements([placement(digest, repository_id) for digest in ("sha256:1", "sha256:2")])
    assert [each.locations for each in find_blobs("sha256:1")] == [("near",)]
    record_placements([placement("sha256:2", repository_id)])
    record_placements([])


def test_location_that_quay_does_not_know_places_none_of_them(repository_id: int) -> None:
    blob("sha256:1")
    blob("sha256:2")
    unknown = replace(placement("sha256:2", repository_id), location="nowhere")
    with pytest.raises(SettingsError, match="knows no storage location nowhere"):
        record_placements([placement("sha256:1", repository_id), unknown])
    assert ImageStoragePlacement.select().count() == 0
    assert UploadedBlob.select().count() == 0
