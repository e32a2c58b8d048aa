"""RESCAN_POLICY where it is carried out: what is reset, what is indexed, and by whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from data.models import ImageStoragePlacement
from data.policy import Policy, PolicySettings
from data.secscan.status import IndexStatus, Reason
from queues.rescanjob import RescanJob
from queues.rescanqueue import job_id_of
from tests.integration.pipeline import Pipeline, pipeline
from workers.demo import registryfaults
from workers.demo.sampleimages import alpine_image

IMAGE = alpine_image("library/app")


@pytest.fixture
def quay(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline(sqlite_database, redis, tmp_path) as whole:
        yield whole


def set_policy(quay: Pipeline, policy: Policy) -> None:
    rules = {"policy": PolicySettings(default=policy)}
    rescan = quay.settings.rescan.model_copy(update=rules)
    quay.settings = quay.settings.model_copy(update={"rescan": rescan})


def complete(quay: Pipeline) -> int:
    """A manifest at -2 whose blobs, the config too, the registry has placed."""
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    for digest in IMAGE.blobs:
        quay.fetch_blob_in_request("proxy", IMAGE, digest)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    return pulled.manifest_id


def outcome_of(quay: Pipeline, manifest_id: int) -> object:
    job = RescanJob.fetch(job_id_of(manifest_id), connection=quay.queue.connection)
    result = job.return_value()
    return result["outcome"] if isinstance(result, dict) else None


def test_off_leaves_the_row_as_it_is(quay: Pipeline) -> None:
    set_policy(quay, Policy.OFF)
    manifest_id = complete(quay)
    quay.run()
    assert outcome_of(quay, manifest_id) == "policy_off"
    assert quay.status(manifest_id) is IndexStatus.MANIFEST_UNSUPPORTED
    assert len(quay.scanner.requests) == 0


def test_cycle_resets_the_row_and_leaves_the_index_to_the_security_worker(quay: Pipeline) -> None:
    set_policy(quay, Policy.CYCLE)
    manifest_id = complete(quay)
    quay.run()
    assert outcome_of(quay, manifest_id) == "policy_off"
    assert quay.status(manifest_id) is None
    assert len(quay.scanner.requests) == 0


def test_cycle_resets_no_row_of_a_manifest_that_lacks_a_layer(quay: Pipeline) -> None:
    """Its layer was collected between the event and the job."""
    set_policy(quay, Policy.CYCLE)
    manifest_id = complete(quay)
    quay.run_blob_worker()
    ImageStoragePlacement.delete().execute()  # type: ignore[misc]
    quay.run_rescan_worker()
    assert outcome_of(quay, manifest_id) == "incomplete"
    assert quay.status(manifest_id) is IndexStatus.MANIFEST_UNSUPPORTED


def test_cycle_indexes_what_quays_worker_cannot(quay: Pipeline) -> None:
    """It reads the config, and would say -2 again each time the row is reset."""
    set_policy(quay, Policy.CYCLE)
    quay.publish(IMAGE)
    assert IMAGE.config_digest is not None
    quay.upstream.troubles.add(registryfaults.Failing(404), reference=IMAGE.config_digest)
    pulled = quay.pull("proxy", IMAGE)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED


@pytest.mark.parametrize("policy", [Policy.OFF, Policy.CYCLE])
def test_a_persons_request_asks_no_policy(quay: Pipeline, policy: Policy) -> None:
    set_policy(quay, policy)
    manifest_id = complete(quay)
    quay.queue.enqueue_rescan(manifest_id, Reason.MANUAL, timeout=60)
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED
