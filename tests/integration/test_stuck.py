"""The ways in which Quay's own fix leaves a manifest at -2 for ever, and the early -1: each healed.

Quay's fix resets the row when its blob worker itself downloaded a blob and then all blobs of a
manifest in that repository are placed. Every test here is one of the cases that it misses.
"""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from data.models import utcnow
from data.policy import Policy, PolicySettings
from data.secscan.status import CLAIM_LIFETIME, IndexStatus
from data.settings import FeatureSettings
from tests.integration.pipeline import Pipeline
from workers.demo import registryfaults, scannerfaults
from workers.demo.sampleimages import debian_image, images_sharing_last_layer


def test_manifest_only_client(quay: Pipeline) -> None:
    """HEAD or GET of the manifest: Quay never queues the config blob, so it is never placed."""
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED
    assert image.config_digest is not None
    assert quay.is_placed(image.config_digest), "Quay needs the config when it indexes again"


def test_config_that_cannot_be_had_is_no_obstacle_and_is_tried_again(quay: Pipeline) -> None:
    image = debian_image("library/app")
    quay.publish(image)
    assert image.config_digest is not None
    quay.upstream.troubles.add(registryfaults.Failing(404), reference=image.config_digest)
    pulled = quay.pull("proxy", image)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED
    (item,) = quay.items()
    assert image.config_digest in item.queue_name
    assert (item.retries_remaining, item.available_after > utcnow()) == (5, True)
    quay.upstream.troubles.clear()
    quay.make_items_available()
    quay.run_blob_worker()
    assert quay.is_placed(image.config_digest)
    assert quay.items() == []


def test_ordinary_pull_that_finishes_before_the_queue_items_run(quay: Pipeline) -> None:
    """The registry placed every blob in the client's requests; the worker finds nothing to do."""
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    for digest in image.blobs:
        quay.fetch_blob_in_request("proxy", image, digest)
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED
    assert quay.upstream.count(registryfaults.Call.BLOB) == 0, "nothing was downloaded twice"


def test_download_that_fails_is_given_back_and_tried_again(quay: Pipeline) -> None:
    image = debian_image("library/app")
    quay.publish(image)
    last = image.layer_digests[-1]
    quay.upstream.troubles.add(registryfaults.Failing(404), reference=last, times=1)
    pulled = quay.pull("proxy", image)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run()
    (item,) = quay.items()
    assert (item.retries_remaining, item.available) == (4, True)
    assert quay.status(pulled.manifest_id) is IndexStatus.MANIFEST_UNSUPPORTED
    quay.make_items_available()
    quay.run()
    assert quay.items() == []
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED


def test_last_blob_placed_through_another_repository(quay: Pipeline) -> None:
    one, other = images_sharing_last_layer("library/one", "library/other")
    quay.publish(one)
    quay.publish(other)
    first = quay.pull("proxy", one)
    second = quay.pull("mirror", other)
    for pulled in (first, second):
        quay.security_worker_looks_too_early(pulled.manifest_id)
    shared = one.layer_digests[-1]
    for digest in other.layer_digests[:-1]:
        quay.fetch_blob_in_request("mirror", other, digest)
    shared_of_second = [item for item in quay.items() if "mirror" in item.queue_name]
    for item in shared_of_second:
        item.delete_instance()
    quay.run()
    assert quay.is_placed(shared)
    assert quay.status(first.manifest_id) is IndexStatus.COMPLETED
    assert quay.status(second.manifest_id) is IndexStatus.COMPLETED


def test_security_worker_writes_its_stale_word_after_the_reset(quay: Pipeline) -> None:
    """Quay's -2 is a DELETE and an INSERT that ask nobody; it lands while Clair works for us."""
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run_blob_worker()
    held = scannerfaults.Held()
    quay.scanner.faults.add(held)
    states: list[IndexStatus | None] = []

    def interfere() -> None:
        assert held.wait_for_call()
        states.append(quay.status(pulled.manifest_id))
        quay.security_worker_looks_too_early(pulled.manifest_id)
        held.release()

    interference = threading.Thread(target=interfere)
    interference.start()
    quay.run_rescan_worker()
    interference.join()
    assert states == [IndexStatus.IN_PROGRESS], "readers saw the claim, never a gap"
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED


@pytest.mark.parametrize("policy", [Policy.IMMEDIATE, Policy.CYCLE])
def test_v2_indexer_visits_only_rows_that_exist(quay: Pipeline, policy: Policy) -> None:
    """Under FEATURE_SECURITY_SCANNER_V2 a row that is deleted and left to the cycle stays away."""
    quay.settings = quay.settings.model_copy(
        update={
            "features": FeatureSettings(security_scanner=True, security_scanner_v2=True),
            "rescan": quay.settings.rescan.model_copy(
                update={"policy": PolicySettings(default=policy)}
            ),
        }
    )
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED


def test_early_failure_is_reset_once_the_layers_are_there(quay: Pipeline) -> None:
    """Config there, layers missing: Quay has Clair fetch what isn't there, and stores -1."""
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    assert image.config_digest is not None
    quay.fetch_blob_in_request("proxy", image, image.config_digest)
    quay.store_status(
        pulled.manifest_id,
        quay.row_of_manifest(pulled.manifest_id).repository_id,
        IndexStatus.FAILED,
        indexer_hash="api_failure",
        metadata_json='{"retry_count": 1}',
    )
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED


def test_claim_of_a_dead_worker_is_retaken(quay: Pipeline) -> None:
    """A worker of Quay's died while indexing; Quay lets its claim stand for 6 hours."""
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    quay.store_status(
        pulled.manifest_id,
        quay.row_of_manifest(pulled.manifest_id).repository_id,
        IndexStatus.IN_PROGRESS,
        indexer_hash="in_progress",
        last_indexed=utcnow() - CLAIM_LIFETIME - timedelta(seconds=1),
    )
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED


def test_live_claim_of_somebody_else_is_waited_for(quay: Pipeline) -> None:
    image = debian_image("library/app")
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    quay.store_status(
        pulled.manifest_id,
        quay.row_of_manifest(pulled.manifest_id).repository_id,
        IndexStatus.IN_PROGRESS,
        indexer_hash="in_progress",
    )
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.IN_PROGRESS
    assert quay.queue.depth().scheduled == 1, "the job looks again until the claim has ended"
    assert len(quay.scanner.requests) == 0
