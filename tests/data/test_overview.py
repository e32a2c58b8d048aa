"""What an operator asks of the whole database, in a bounded number of statements."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from data.blob_records import record_placement
from data.models import ImageStorageLocation, Manifest, ManifestSecurityStatus, utcnow
from data.overview import (
    MOST_ITEMS,
    NOTHING_WAITS,
    count_status_rows,
    find_failed_manifests,
    find_waiting,
    last_completed,
    load_names,
)
from data.proxycache import create_proxy_organization
from data.secscan.status import IndexStatus
from queues.blobwork import BlobWork, put_blob_work
from queues.workqueue import WorkQueue
from tests.workers.ops.opsdata import REJECTED, REPOSITORIES, Filled, add_repository, digest_of

QUEUE = "proxycacheblob"


@pytest.fixture
def filled(sqlite_database: str) -> Filled:
    del sqlite_database
    return fill_database()


def fill_database() -> Filled:
    """Seven repositories of three organisations, four manifests each."""
    ImageStorageLocation.create(name="default")
    filled = Filled()
    for organization in sorted({name.partition("/")[0] for name in REPOSITORIES}):
        create_proxy_organization(organization, "registry.example", insecure=False)
    for name in REPOSITORIES:
        add_repository(name, filled)
    return filled


def test_each_engine_tells_the_same(database: str) -> None:
    del database
    filled = fill_database()
    assert count_status_rows()[IndexStatus.COMPLETED] == len(filled.done)
    newest = last_completed()
    assert newest is not None
    assert timedelta(0) < utcnow() - newest < timedelta(minutes=2)
    failed = find_failed_manifests(10)
    assert sorted(each.manifest_id for each in failed) == sorted(filled.failed)
    waiting = find_waiting(QUEUE, 10)
    assert [each.manifest_id for each in waiting.manifests] == filled.waiting
    assert waiting.count == len(filled.waiting)
    assert waiting.oldest_due_seconds is not None
    assert 15 < waiting.oldest_due_seconds < 60
    assert load_names([filled.done[0]])[filled.done[0]][0] == "docker-hub/library/nginx"


def test_empty_quay_has_nothing_to_tell(sqlite_database: str) -> None:
    del sqlite_database
    assert set(count_status_rows().values()) == {0}
    assert last_completed() is None
    assert find_failed_manifests(10) == []
    assert find_waiting(QUEUE, 10) == NOTHING_WAITS


def test_every_status_is_counted(filled: Filled) -> None:
    counts = count_status_rows()
    assert counts[IndexStatus.COMPLETED] == len(filled.done)
    assert counts[IndexStatus.FAILED] == len(filled.failed)
    assert set(counts) == set(IndexStatus)


def test_status_that_we_do_not_know_is_left_out(filled: Filled) -> None:
    update = ManifestSecurityStatus.update(index_status=7)
    update.where(ManifestSecurityStatus.manifest_id == filled.done[0]).execute()
    assert sum(count_status_rows().values()) == len(filled.done) + len(filled.failed) - 1


def test_failed_manifests_are_named_with_their_reason_newest_first(filled: Filled) -> None:
    exhausted = ManifestSecurityStatus.update(
        index_status=IndexStatus.SCAN_RETRIES_EXHAUSTED, last_indexed=utcnow(), error_json="{}"
    )
    exhausted.where(ManifestSecurityStatus.manifest_id == filled.done[0]).execute()
    first, *others = find_failed_manifests(10)
    assert (first.manifest_id, first.error) == (filled.done[0], "")
    assert sorted(each.manifest_id for each in others) == sorted(filled.failed)
    assert {each.error for each in others} == {REJECTED}
    assert {each.repository for each in others} == {"ghcr/platform/api", "ghcr/platform/web"}
    assert others[0].retry_count == 1
    assert len(find_failed_manifests(2)) == 2


def test_waiting_manifests_tell_how_many_layers_are_placed(filled: Filled) -> None:
    waiting = find_waiting(QUEUE, 10)
    progress = {each.manifest_id: (each.placed, each.total) for each in waiting.manifests}
    assert progress == dict(zip(filled.waiting, [(1, 7), (3, 7), (5, 7)], strict=True))
    assert (waiting.blobs, waiting.more) == (6 + 4 + 2, False)


def test_manifest_whose_layers_are_all_placed_waits_for_nothing(filled: Filled) -> None:
    for digest in (digest_of(f"docker-hub/library/nginx:3 layer {n}") for n in range(7)):
        record_placement(digest, repository_id=1, location="default", size=9, keep_seconds=3600)
    waiting = [each.manifest_id for each in find_waiting(QUEUE, 10).manifests]
    assert sorted(waiting) == filled.waiting[1:]


def test_all_that_wait_are_counted_though_few_are_listed(filled: Filled) -> None:
    waiting = find_waiting(QUEUE, 2)
    assert [each.manifest_id for each in waiting.manifests] == filled.waiting[:2]
    assert (waiting.count, waiting.more) == (3, False)


def test_placed_manifests_of_the_same_blob_crowd_nobody_out(filled: Filled) -> None:
    """An item stays a while after the registry placed its blob; its manifests wait no more."""
    for n in range(7):
        digest = digest_of(f"docker-hub/library/nginx:3 layer {n}")
        record_placement(digest, repository_id=1, location="default", size=9, keep_seconds=3600)
    waiting = find_waiting(QUEUE, 1)
    assert [each.manifest_id for each in waiting.manifests] == [filled.waiting[1]]
    assert waiting.count == 2


def test_items_of_other_queues_and_of_nobody_are_passed_over(filled: Filled) -> None:
    del filled
    before = find_waiting(QUEUE, 10)
    WorkQueue("proxycacheblobs").put(("org", "1", digest_of("x")), {})
    WorkQueue(QUEUE).put(("nonsense",), {})
    WorkQueue(QUEUE).put(("org", "one", digest_of("x")), {})
    after = find_waiting(QUEUE, 10)
    assert (after.blobs, after.manifests) == (before.blobs, before.manifests)


def test_long_queue_is_read_up_to_a_limit(
    filled: Filled, count_statements: Callable[[], list[str]]
) -> None:
    del filled
    for n in range(MOST_ITEMS):
        work = BlobWork(digest=digest_of(f"more {n}"), repository_id=1, namespace="docker-hub")
        put_blob_work(WorkQueue(QUEUE), work, available_after=0)
    before = len(count_statements())
    waiting = find_waiting(QUEUE, 10)
    assert waiting.more
    assert waiting.blobs == MOST_ITEMS
    assert len(count_statements()) - before <= 3 + 10


def test_names_of_manifests_that_are_there(filled: Filled) -> None:
    manifest_id = filled.done[0]
    digest = Manifest.get_by_id(manifest_id).digest
    assert load_names([manifest_id, 4711]) == {manifest_id: ("docker-hub/library/nginx", digest)}
