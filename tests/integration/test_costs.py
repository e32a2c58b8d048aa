"""What one rescan costs, counted: a round trip is what a busy worker spends its time on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from data.secscan.status import IndexStatus, Reason
from tests.faults.site import image_of_its_own
from tests.integration.pipeline import Pipeline, pipeline

STATEMENTS = [
    "SELECT",  # the manifest, its names, and whether it has a row
    "SELECT",  # its blobs
    "INSERT",  # the claim
    "UPDATE",  # the claim is COMPLETED, unless somebody wishes to be notified
    "SELECT",  # whether Quay wrote over it, and who else has the digest
]
# Enter the scanner's gate, leave it, end the job and take the next one.
ROUND_TRIPS = 3


@pytest.fixture
def quay(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline(sqlite_database, redis, tmp_path) as whole:
        yield whole


def complete(quay: Pipeline, name: str) -> int:
    """The id of a manifest of its own that is complete and has no row yet."""
    image = image_of_its_own(name)
    quay.publish(image)
    pulled = quay.pull("proxy", image)
    for digest in image.blobs:
        quay.fetch_blob_in_request("proxy", image, digest)
    return pulled.manifest_id


def round_trips(redis: Redis) -> int:
    return int(redis.info("stats")["total_reads_processed"])


def test_rescan_costs_five_statements_and_three_round_trips(
    quay: Pipeline, redis: Redis, count_statements: Callable[[], list[str]]
) -> None:
    """With every further job: what a worker does at its start or when idle isn't a job's."""
    statements: list[list[str]] = []
    trips_of: list[int] = []
    for name, jobs in (("first", 1), ("one", 1), ("more", 11)):
        manifests = [complete(quay, f"{name}{number}") for number in range(jobs)]
        quay.queue.enqueue_rescans(manifests, Reason.EVENT, timeout=60)
        worker = quay.prepare_rescan_worker()
        worker.next_round = float("inf")
        before, trips = len(count_statements()), round_trips(redis)
        worker.work(burst=True, logging_level=None)
        statements.append([each.split()[0] for each in count_statements()[before:]])
        trips_of.append(round_trips(redis) - trips)
        assert {quay.status(each) for each in manifests} == {IndexStatus.COMPLETED}
    assert statements == [STATEMENTS, STATEMENTS, STATEMENTS * 11]
    # The thread that renews leases may have come by, at the one job as well as at the eleven.
    assert trips_of[2] - trips_of[1] in range(10 * ROUND_TRIPS - 5, 10 * ROUND_TRIPS + 6)
