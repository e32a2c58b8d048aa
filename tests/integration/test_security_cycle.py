"""The periodic cycle: a rescan's protocol, over all that Quay's own worker would visit."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from data.models import QueueItem, User, utcnow
from data.secscan import candidates
from data.secscan.status import CLAIM_LIFETIME, IndexStatus
from data.settings import ScannerSettings, WorkerType
from tests.integration.pipeline import Pipeline
from workers.demo.sampleimages import debian_image, helm_chart
from workers.process import Process, Stop
from workers.securityworker import build_cycle

IMAGE = debian_image("library/app")


def process_of(quay: Pipeline) -> Process:
    return Process(
        worker=WorkerType.SECURITY, settings=quay.settings, config=None, burst=True, stop=Stop()
    )


def cycle(quay: Pipeline) -> int:
    return build_cycle(quay.settings, Stop()).run(process_of(quay))


@pytest.fixture
def placed(quay: Pipeline) -> int:
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    QueueItem.delete().execute()  # type: ignore[misc]
    for digest in IMAGE.blobs:
        quay.fetch_blob_in_request("proxy", IMAGE, digest)
    return pulled.manifest_id


def store(quay: Pipeline, manifest_id: int, status: IndexStatus, **columns: object) -> None:
    repository_id = quay.row_of_manifest(manifest_id).repository_id
    quay.store_status(manifest_id, repository_id, status, **columns)


def long_ago(quay: Pipeline) -> datetime:
    return utcnow() - timedelta(seconds=quay.settings.scanner.reindex_threshold + 1)


def test_manifest_without_a_row_is_indexed_in_any_organisation(quay: Pipeline, placed: int) -> None:
    User.update(organization=False).execute()
    assert cycle(quay) == 1
    assert quay.status(placed) is IndexStatus.COMPLETED
    assert cycle(quay) == 0


def test_cycle_looks_at_so_many_manifests_as_it_is_told(quay: Pipeline) -> None:
    """SECURITY_SCANNER_V4_BATCH_SIZE: the newest ones, and a walk over the older in such steps."""
    manifest_ids = []
    for name in ("one", "two", "three", "four"):
        image = debian_image(f"library/{name}")
        quay.publish(image)
        manifest_ids.append(quay.pull("proxy", image).manifest_id)
    quay.settings = quay.settings.model_copy(
        update={"scanner": quay.settings.scanner.model_copy(update={"batch_size": 1})}
    )
    security_cycle = build_cycle(quay.settings, Stop())
    looks = [list(security_cycle.candidates()) for _ in range(3)]
    oldest, second, third, newest = manifest_ids
    assert looks == [[newest, oldest], [newest, second], [newest, third]]


def test_incomplete_images_keep_no_other_from_its_turn(
    quay: Pipeline, placed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get no row, so they are found again in every cycle."""
    monkeypatch.setattr(candidates, "BATCH", 2)
    for name in ("one", "two", "three", "four"):
        image = debian_image(f"library/{name}")
        quay.publish(image)
        quay.pull("proxy", image)
    image = debian_image("library/whole")
    quay.publish(image)
    complete = quay.pull("proxy", image).manifest_id
    for digest in image.blobs:
        quay.fetch_blob_in_request("proxy", image, digest)
    for name in ("five", "six"):
        image = debian_image(f"library/{name}")
        quay.publish(image)
        quay.pull("proxy", image)
    security_cycle = build_cycle(quay.settings, Stop())
    for _ in range(4):
        security_cycle.run(process_of(quay))
    assert [quay.status(each) for each in (placed, complete)] == [IndexStatus.COMPLETED] * 2


def test_failures_without_a_retry_left_keep_no_other_from_its_turn(
    quay: Pipeline, placed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "BATCH", 2)
    for days, name in enumerate(("one", "two", "three")):
        image = debian_image(f"library/{name}")
        quay.publish(image)
        store(
            quay,
            quay.pull("proxy", image).manifest_id,
            IndexStatus.FAILED,
            last_indexed=long_ago(quay) - timedelta(days=1 + days),
            metadata_json=json.dumps({"retry_count": 5}),
        )
    store(quay, placed, IndexStatus.FAILED, last_indexed=long_ago(quay))
    security_cycle = build_cycle(quay.settings, Stop())
    for _ in range(2):
        security_cycle.run(process_of(quay))
    assert quay.status(placed) is IndexStatus.COMPLETED


def test_pending_row_is_indexed(quay: Pipeline, placed: int) -> None:
    store(quay, placed, IndexStatus.PENDING)
    cycle(quay)
    assert quay.status(placed) is IndexStatus.COMPLETED


@pytest.mark.parametrize(
    ("age", "retry_count", "status"),
    [
        ("old", 1, IndexStatus.COMPLETED),
        ("young", 1, IndexStatus.FAILED),  # SECURITY_SCANNER_V4_REINDEX_THRESHOLD
        ("old", 5, IndexStatus.FAILED),  # SECURITY_SCANNER_MAX_SCAN_RETRIES
    ],
)
def test_failed_row_is_tried_again_past_its_threshold_while_retries_are_left(
    quay: Pipeline, placed: int, age: str, retry_count: int, status: IndexStatus
) -> None:
    store(
        quay,
        placed,
        IndexStatus.FAILED,
        last_indexed=long_ago(quay) if age == "old" else utcnow(),
        metadata_json=json.dumps({"retry_count": retry_count}),
    )
    cycle(quay)
    assert quay.status(placed) is status


def test_abandoned_claim_is_taken_and_a_live_one_left(quay: Pipeline, placed: int) -> None:
    store(quay, placed, IndexStatus.IN_PROGRESS, last_indexed=utcnow())
    cycle(quay)
    assert quay.status(placed) is IndexStatus.IN_PROGRESS
    row = quay.row(placed)
    row.last_indexed = utcnow() - CLAIM_LIFETIME - timedelta(seconds=1)
    row.save()
    cycle(quay)
    assert quay.status(placed) is IndexStatus.COMPLETED


def test_outdated_row_is_brought_up_to_date_while_it_stays_readable(
    quay: Pipeline, placed: int
) -> None:
    store(quay, placed, IndexStatus.COMPLETED, indexer_hash="older", last_indexed=long_ago(quay))
    cycle(quay)
    assert quay.row(placed).indexer_hash == "stand-in-1"
    assert cycle(quay) == 0


def test_artifact_is_written_down_as_unsupported(quay: Pipeline) -> None:
    chart = helm_chart("charts/app")
    quay.publish(chart)
    pulled = quay.pull("proxy", chart)
    cycle(quay)
    row = quay.row(pulled.manifest_id)
    assert (row.index_status, row.indexer_hash) == (IndexStatus.MANIFEST_UNSUPPORTED, "none")


def test_incomplete_image_gets_no_row_at_all(quay: Pipeline) -> None:
    """Here Quay's own worker stores the -2 that this project exists for."""
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    cycle(quay)
    assert quay.status(pulled.manifest_id) is None


@pytest.mark.parametrize(("limit", "too_large"), [(100, True), (10_000_000, False)])
def test_layer_above_the_limit_is_written_down_and_not_sent(
    quay: Pipeline, placed: int, limit: int, too_large: bool
) -> None:
    scanner = ScannerSettings(endpoint=quay.scanner.endpoint, maximum_layer_size=limit)
    quay.settings = quay.settings.model_copy(update={"scanner": scanner})
    cycle(quay)
    expected = IndexStatus.MANIFEST_LAYER_TOO_LARGE if too_large else IndexStatus.COMPLETED
    assert quay.status(placed) is expected
    assert len(quay.scanner.requests) == (0 if too_large else 1)


def test_scanner_that_is_away_ends_the_cycle_and_changes_nothing(
    quay: Pipeline, placed: int
) -> None:
    quay.scanner.go_down()
    with pytest.raises(Exception, match="gave no answer"):
        cycle(quay)
    assert quay.status(placed) is None
