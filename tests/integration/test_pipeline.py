"""A proxied pull ends scanned: the whole path, on real servers, on every database."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data.models import ExternalNotificationEvent, RepositoryNotification
from data.secscan import indexer, status_rows
from data.secscan.status import IndexStatus, Reason
from data.settings import build_settings
from tests.integration.pipeline import Pipeline
from workers.demo.sampleimages import debian_image
from workers.demo.scannerfaults import Call, Failing


def test_all_blobs_downloaded_for_manifest(quay: Pipeline) -> None:
    image = debian_image("library/app")
    quay.publish(image)
    quay.pull("proxy", image)
    assert not any(quay.is_placed(digest) for digest in image.blobs)
    quay.run_blob_worker()
    assert all(quay.is_placed(digest) for digest in image.blobs)
    assert quay.items() == []


def test_reset_security_status_after_blob_download(quay: Pipeline) -> None:
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run()
    row = quay.row(pulled.manifest_id)
    assert row.index_status == IndexStatus.COMPLETED
    assert (row.indexer_hash, row.indexer_version) == ("stand-in-1", 4)
    assert (row.error_json, row.metadata_json) == ('""', "{}")


def test_partial_blob_download_does_not_reset_status(quay: Pipeline) -> None:
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    assert image.config_digest is not None
    quay.fetch_blob_in_request("proxy", image, image.config_digest)
    quay.run_blob_worker(items=2)
    assert len(quay.items()) == 1, "one layer is missing, and nothing else"
    assert quay.queue.depth().queued == 0
    quay.run_rescan_worker()
    assert quay.status(pulled.manifest_id) is IndexStatus.MANIFEST_UNSUPPORTED
    assert len(quay.scanner.requests) == 0


def test_proxy_cache_triggers_security_scan_after_blob_download(quay: Pipeline) -> None:
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    quay.run_blob_worker()
    assert quay.queue.depth().queued == 1
    quay.run_rescan_worker()
    (request,) = quay.scanner.requests.of(image.digest)
    assert request.layers == image.layer_digests
    assert request.packages > 0
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED


def test_proxy_cache_partial_then_full_pull_triggers_scan(quay: Pipeline) -> None:
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run_blob_worker(items=1)
    quay.run_rescan_worker()
    assert quay.status(pulled.manifest_id) is IndexStatus.MANIFEST_UNSUPPORTED
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED
    assert len(quay.scanner.requests) == 1


def test_first_index_notifies_as_quay_would(quay: Pipeline) -> None:
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    event = ExternalNotificationEvent.create(name="vulnerability_found")
    wish = RepositoryNotification.create(
        repository_id=quay.row_of_manifest(pulled.manifest_id).repository_id, event_id=event.id
    )
    quay.run()
    (item,) = quay.items()
    assert item.queue_name == "notification/proxy/library/app/vulnerability_found/"
    body = json.loads(item.body)
    assert (body["notification_uuid"], body["performer_data"]) == (wish.uuid, {})
    assert body["event_data"]["tags"] == [image.tag]
    assert body["event_data"]["repository"] == "proxy/library/app"
    assert body["event_data"]["vulnerability"]["id"] == "CVE-2026-1"
    assert body["event_data"]["vulnerability"]["priority"] == "Critical"


@pytest.mark.parametrize(
    ("changes", "notified"),
    [
        ({"NOTIFICATION_MIN_SEVERITY_ON_NEW_INDEX": "Low"}, ["CVE-2026-1", "CVE-2026-2"]),
        ({"FEATURE_SECURITY_SCANNER_NOTIFY_ON_NEW_INDEX": False}, []),
    ],
)
def test_first_index_notifies_as_the_switches_say(
    quay: Pipeline, changes: dict[str, Any], notified: list[str]
) -> None:
    """And a second index, by force, doesn't."""
    quay.settings = build_settings(quay.config | changes, quay.storage_path)
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    event = ExternalNotificationEvent.create(name="vulnerability_found")
    repository_id = quay.row_of_manifest(pulled.manifest_id).repository_id
    RepositoryNotification.create(repository_id=repository_id, event_id=event.id)
    quay.run()
    quay.queue.enqueue_rescan(pulled.manifest_id, Reason.FORCED, timeout=660)
    quay.run_rescan_worker()
    assert len(quay.scanner.requests) == 2, "indexed again"
    bodies = [json.loads(item.body) for item in quay.items()]
    told = [body["event_data"]["vulnerability"]["id"] for body in bodies]
    assert told == notified


def test_scan_is_done_though_nobody_can_be_notified(quay: Pipeline) -> None:
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    event = ExternalNotificationEvent.create(name="vulnerability_found")
    repository_id = quay.row_of_manifest(pulled.manifest_id).repository_id
    RepositoryNotification.create(repository_id=repository_id, event_id=event.id)
    quay.scanner.faults.add(Failing(status=500), call=Call.VULNERABILITY_REPORT)
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED
    assert quay.items() == []


def test_stale_word_of_quays_that_comes_just_after_the_result_is_overwritten(
    quay: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quay's worker writes its -2 without a look at what is there."""
    image = debian_image("library/app")
    quay.publish(image)
    manifest_id = quay.pull("proxy", image).manifest_id
    look = status_rows.find_statuses_of_digest

    def look_after_quay_wrote(digest: str) -> dict[int, int | None]:
        quay.security_worker_looks_too_early(manifest_id)
        return look(digest)

    monkeypatch.setattr(indexer, "find_statuses_of_digest", look_after_quay_wrote)
    quay.run()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED
