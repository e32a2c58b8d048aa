"""Clair fails on a manifest again and again: the waits grow, end, and a day costs five calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from data.secscan.status import IndexStatus, Reason
from queues.rescanjob import RescanJob
from tests.integration.pipeline import Pipeline, pipeline
from workers.demo.sampleimages import alpine_image
from workers.demo.scannerfaults import Busy, Failing
from workers.demo.scannerstandin import FetchFailure

IMAGE = alpine_image("library/app")
OTHER = alpine_image("library/other", payload=3000)
SCHEDULED = "rq:scheduled:rescan"


@pytest.fixture
def quay(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline(sqlite_database, redis, tmp_path) as whole:
        yield whole


def complete(quay: Pipeline, image: Any = IMAGE) -> int:
    """A manifest at -2 whose blobs the registry has placed."""
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    for digest in image.blobs:
        quay.fetch_blob_in_request("proxy", image, digest)
    return pulled.manifest_id


def enqueue(quay: Pipeline, manifest_id: int, reason: Reason = Reason.EVENT) -> None:
    quay.queue.enqueue_rescan(manifest_id, reason, timeout=60)


def wait_of(quay: Pipeline, manifest_id: int) -> float | None:
    """Seconds until the job's next run; None when there is none."""
    redis = quay.queue.connection
    due = redis.zscore(SCHEDULED, f"rescan-{manifest_id}")
    seconds, microseconds = redis.time()
    return None if due is None else round(float(due) - seconds - microseconds / 1e6)


def let_the_wait_pass(quay: Pipeline, manifest_id: int) -> None:
    quay.queue.connection.zadd(SCHEDULED, {f"rescan-{manifest_id}": 0}, xx=True)


@pytest.mark.parametrize("reason", [Reason.EVENT, Reason.SWEEP])
@pytest.mark.parametrize(
    ("failure", "failed_hash"),
    [(FetchFailure.REPORT, "stand-in-1"), (FetchFailure.STATUS, "server_error")],
    ids=["IndexError", "500"],
)
def test_failures_of_the_manifest_are_tried_again_with_growing_waits_and_end(
    quay: Pipeline, reason: Reason, failure: FetchFailure, failed_hash: str
) -> None:
    manifest_id = complete(quay)
    quay.scanner.fetch_failure = failure
    quay.move_layer_server_away()
    enqueue(quay, manifest_id, reason)
    waits = []
    for count in range(1, 6):
        quay.run_rescan_worker()
        row = quay.row(manifest_id)
        assert row.index_status == IndexStatus.FAILED
        assert "failed to fetch layers" in json.loads(row.error_json)
        metadata = {"retry_count": count, "last_failed_hash": failed_hash}
        assert json.loads(row.metadata_json) == metadata, "in Quay's form"
        waits.append(wait_of(quay, manifest_id))
        let_the_wait_pass(quay, manifest_id)
    assert waits == [40, 160, 640, 2560, None]
    job = RescanJob.fetch(f"rescan-{manifest_id}", connection=quay.queue.connection)
    result = job.return_value()
    assert result is not None
    assert result["outcome"] == "failed"
    assert len(quay.scanner.requests) == 5
    assert quay.queue.connection.get("rescan:rescan:circuit") is None, "Clair is well"


def test_no_manifest_costs_more_than_its_index_calls_a_day_but_by_force(quay: Pipeline) -> None:
    manifest_id = complete(quay)
    quay.move_layer_server_away()
    for _ in range(8):
        enqueue(quay, manifest_id, Reason.MANUAL)
        quay.run_rescan_worker()
    assert len(quay.scanner.requests) == 5
    assert wait_of(quay, manifest_id) == 3600, "the job looks again every hour"
    enqueue(quay, manifest_id, Reason.FORCED)
    quay.run_rescan_worker()
    assert len(quay.scanner.requests) == 6


def test_waiting_for_somebody_elses_claim_costs_nothing_of_the_day(quay: Pipeline) -> None:
    manifest_id = complete(quay)
    quay.store_claim_of_somebody_else(manifest_id)
    enqueue(quay, manifest_id)
    for _ in range(8):
        quay.run_rescan_worker()
        assert wait_of(quay, manifest_id) == 10
        let_the_wait_pass(quay, manifest_id)
    quay.security_worker_looks_too_early(manifest_id)
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED


def test_manifest_on_which_clair_alone_breaks_down_fails_and_holds_up_nobody(
    quay: Pipeline,
) -> None:
    """500 for this one and answers for others: recorded as its failure, not Clair's."""
    manifest_id, other = complete(quay), complete(quay, OTHER)
    quay.scanner.faults.add(Failing(500, "panic"), digest=IMAGE.digest)
    enqueue(quay, manifest_id)
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is None, "for all we know, Clair is down"
    quay.queue.connection.delete("rescan:rescan:circuit")
    enqueue(quay, other)
    quay.run_rescan_worker()
    assert quay.status(other) is IndexStatus.COMPLETED
    let_the_wait_pass(quay, manifest_id)
    quay.run_rescan_worker()
    row = quay.row(manifest_id)
    assert row.index_status == IndexStatus.FAILED
    assert "answers for others" in json.loads(row.error_json)
    assert quay.queue.connection.get("rescan:rescan:circuit") is None
    assert wait_of(quay, manifest_id) == 40


def test_pause_of_years_that_a_scanner_asks_for_is_not_believed(quay: Pipeline) -> None:
    manifest_id = complete(quay)
    quay.scanner.faults.add(Busy("999999999"))
    enqueue(quay, manifest_id)
    quay.run_rescan_worker()
    assert wait_of(quay, manifest_id) == 60


def test_event_does_not_wait_with_a_job_that_may_reset_less(quay: Pipeline) -> None:
    """The sweep's job waits for a claim of Quay's, which fails; the sweep may not reset that."""
    manifest_id = complete(quay)
    quay.store_claim_of_somebody_else(manifest_id)
    enqueue(quay, manifest_id, Reason.SWEEP)
    quay.run_rescan_worker()
    assert wait_of(quay, manifest_id) == 10
    row = quay.row(manifest_id)
    row.index_status = IndexStatus.FAILED.value
    row.save()
    enqueue(quay, manifest_id, Reason.EVENT)
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED
