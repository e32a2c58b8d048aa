"""Bad input and bad answers: the message names the thing, and nothing is changed or lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from redis import Redis
from structlog.testing import capture_logs

from data.models import Manifest, ManifestSecurityStatus
from data.secscan.status import IndexStatus, Reason
from data.settings import build_settings
from data.storage.blobstore import blob_path
from queues.rescanjob import RescanJob
from queues.rescanqueue import job_id_of
from tests.integration.pipeline import Pipeline, pipeline
from workers.demo import registryfaults, scannerfaults
from workers.demo.sampleimages import debian_image
from workers.demo.scannerstandin import FetchFailure

IMAGE = debian_image("library/app")


@pytest.fixture
def quay(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Pipeline]:
    """On SQLite alone: the engine plays no part in these."""
    with pipeline(sqlite_database, redis, tmp_path) as whole:
        yield whole


@pytest.fixture(autouse=True)
def default_logs() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def complete(quay: Pipeline) -> int:
    """A manifest whose blobs are placed, its row at -2, its rescan queued."""
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run_blob_worker()
    assert quay.queue.depth().queued == 1
    return pulled.manifest_id


def result_of(quay: Pipeline, manifest_id: int) -> dict[str, object]:
    job = RescanJob.fetch(job_id_of(manifest_id), connection=quay.queue.connection)
    result = job.return_value()
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (registryfaults.Failing(401), "401"),
        (registryfaults.Failing(404), "404"),
        (registryfaults.Failing(500), "500"),
        (registryfaults.WrongBytes(), "have sha256"),
        (registryfaults.Truncated(after=100), "ended the connection"),
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "status", "")),
)
def test_blob_that_cannot_be_had_is_given_back(
    quay: Pipeline, fault: registryfaults.Fault, message: str
) -> None:
    quay.publish(IMAGE)
    digest = IMAGE.layer_digests[0]
    quay.upstream.troubles.add(fault, call=registryfaults.Call.BLOB, reference=digest)
    quay.pull("proxy", IMAGE)
    with capture_logs() as logs:
        quay.run_blob_worker()
    (error,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert message in error["error"]
    assert digest in error["item"]
    (item,) = quay.items()
    assert (item.retries_remaining, item.available) == (4, True)
    assert not quay.is_placed(digest)
    assert not quay.blob_worker.downloads.placer.storage.preferred.exists(digest)


def test_upstream_that_is_busy_uses_up_no_retry(quay: Pipeline) -> None:
    quay.publish(IMAGE)
    quay.upstream.troubles.add(
        registryfaults.Failing(429, {"Retry-After": "77"}), call=registryfaults.Call.BLOB
    )
    quay.pull("proxy", IMAGE)
    quay.run_blob_worker()
    assert [item.retries_remaining for item in quay.items()] == [5, 5, 5]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("not json", "no JSON"),
        ("[]", "lacks"),
        (json.dumps({"digest": "sha256:../../x", "repo_id": 1, "namespace": "proxy"}), "digest"),
        (json.dumps({"digest": "sha256:" + "a" * 64, "repo_id": "1", "namespace": 2}), "lacks"),
        (json.dumps({"digest": "sha256:" + "a" * 64, "repo_id": True, "namespace": "x"}), "number"),
        (json.dumps({"digest": "sha256:" + "a" * 64, "repo_id": 2**64, "namespace": "x"}), "no id"),
        (json.dumps({"digest": "sha256:" + "a" * 64, "repo_id": -1, "namespace": "x"}), "no id"),
    ],
)
def test_queue_item_that_nobody_can_read_is_dropped(
    quay: Pipeline, body: str, message: str
) -> None:
    quay.blob_worker.items.put(["proxy", "1", "x"], {}, available_after=0)
    item = quay.items()[0]
    item.body = body
    item.save()
    with capture_logs() as logs:
        quay.run_blob_worker()
    assert message in logs[0]["error"]
    assert quay.items() == []


def test_manifest_that_cannot_be_parsed_is_left_as_it_is(quay: Pipeline) -> None:
    manifest_id = complete(quay)
    update = Manifest.update(manifest_bytes='{"schemaVersion": 2}')
    update.where(Manifest.id == manifest_id).execute()
    quay.run_rescan_worker()
    result = result_of(quay, manifest_id)
    assert result["outcome"] == "unsupported"
    assert "config" in str(result["error"])
    assert quay.status(manifest_id) is IndexStatus.MANIFEST_UNSUPPORTED


def test_job_for_a_manifest_that_is_gone(quay: Pipeline) -> None:
    quay.queue.enqueue_rescan(4711, Reason.EVENT, timeout=60)
    quay.run_rescan_worker()
    assert result_of(quay, 4711)["outcome"] == "gone"
    assert ManifestSecurityStatus.select().count() == 0


@pytest.mark.parametrize("reason", [Reason.EVENT, Reason.MANUAL, Reason.FORCED])
def test_job_for_a_manifest_that_lacks_a_layer(quay: Pipeline, reason: Reason) -> None:
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run_blob_worker(items=2)
    quay.queue.enqueue_rescan(pulled.manifest_id, reason, timeout=60)
    quay.run_rescan_worker()
    result = result_of(quay, pulled.manifest_id)
    assert (result["outcome"], result["error"]) == ("incomplete", "waiting for 1 of its layers")
    assert quay.status(pulled.manifest_id) is IndexStatus.MANIFEST_UNSUPPORTED
    assert len(quay.scanner.requests) == 0


def test_word_of_the_scanner_on_the_manifest_is_recorded(quay: Pipeline) -> None:
    manifest_id = complete(quay)
    quay.scanner.faults.add(scannerfaults.Failing(400, "bogus manifest"))
    quay.run_rescan_worker()
    row = quay.row(manifest_id)
    assert row.index_status == IndexStatus.FAILED
    assert row.indexer_hash == "api_failure"
    assert "bogus manifest" in json.loads(row.error_json)
    assert json.loads(row.metadata_json) == {"retry_count": 1, "last_failed_hash": "api_failure"}
    assert result_of(quay, manifest_id)["outcome"] == "failed"
    assert quay.queue.depth().scheduled == 0, "another try would change nothing"


def test_index_error_is_recorded_and_tried_again_later(quay: Pipeline) -> None:
    manifest_id = complete(quay)
    store = quay.blob_worker.downloads.placer.storage.preferred
    with store.open_write(IMAGE.layer_digests[0]) as writer:
        writer.write(b"no layer at all")
        writer.commit()
    quay.run_rescan_worker()
    row = quay.row(manifest_id)
    assert row.index_status == IndexStatus.FAILED
    assert json.loads(row.error_json)
    assert json.loads(row.metadata_json)["retry_count"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        scannerfaults.Busy(),
        scannerfaults.Busy(retry_after="3"),
        scannerfaults.Failing(500),
        scannerfaults.Garbage(),
        scannerfaults.ClosingConnection(),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_trouble_of_the_scanner_is_not_the_manifests(
    quay: Pipeline, fault: scannerfaults.Fault
) -> None:
    manifest_id = complete(quay)
    quay.scanner.faults.add(fault)
    with capture_logs() as logs:
        quay.run_rescan_worker()
    (later,) = [entry for entry in logs if entry["event"] == "rescan again later"]
    assert later["why"]
    assert quay.status(manifest_id) is None, "the claim was taken back, anybody may index it"
    depth = quay.queue.depth()
    assert (depth.scheduled, depth.failed) == (1, 0)
    quay.scanner.faults.clear()
    quay.queue.connection.delete("rescan:rescan:circuit")
    quay.queue.enqueue_rescan(manifest_id, Reason.MANUAL, timeout=60)
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED


def test_scanner_that_is_away(quay: Pipeline) -> None:
    manifest_id = complete(quay)
    quay.scanner.go_down()
    quay.run_rescan_worker()
    assert quay.queue.depth().scheduled == 1
    assert quay.status(manifest_id) is None
    quay.scanner.come_up()
    quay.queue.connection.delete("rescan:rescan:probe")  # the time of the next probe has come
    quay.queue.enqueue_rescan(manifest_id, Reason.MANUAL, timeout=60)
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED


def test_placed_blob_whose_file_is_gone_is_fetched_again(quay: Pipeline) -> None:
    manifest_id = complete(quay)
    digest = IMAGE.layer_digests[1]
    store = quay.blob_worker.downloads.placer.storage.preferred
    (quay.storage_path / blob_path(digest)).unlink()
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is None
    (item,) = quay.items()
    assert digest in item.queue_name
    quay.run_blob_worker()
    assert store.exists(digest)
    quay.queue.enqueue_rescan(manifest_id, Reason.MANUAL, timeout=60)
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED


def test_rescan_whose_retries_ran_out_leaves_a_reason_that_a_person_reads(quay: Pipeline) -> None:
    manifest_id = complete(quay)
    quay.settings = build_settings(quay.config | {"RESCAN_MAX_RETRIES": 0}, quay.storage_path)
    digest = IMAGE.layer_digests[1]
    (quay.storage_path / blob_path(digest)).unlink()
    quay.run_rescan_worker()
    row = quay.row(manifest_id)
    assert row.index_status == IndexStatus.FAILED
    assert "its rescan failed: " in row.error_json
    assert digest in row.error_json
    assert json.loads(row.metadata_json) == {"retry_count": 1, "last_failed_hash": "unknown_state"}
    quay.run_blob_worker()  # it was asked to fetch the layer again, and that is an event
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED


def test_layer_that_the_scanner_cannot_fetch_counts_against_the_manifest(quay: Pipeline) -> None:
    manifest_id = complete(quay)
    quay.scanner.fetch_failure = FetchFailure.STATUS
    quay.move_layer_server_away()
    quay.run_rescan_worker()
    row = quay.row(manifest_id)
    assert row.index_status == IndexStatus.FAILED
    assert json.loads(row.metadata_json) == {"retry_count": 1, "last_failed_hash": "server_error"}
    assert quay.queue.connection.get("rescan:rescan:circuit") is None, "Clair is well"
    assert quay.queue.depth().scheduled == 1
