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
# Take the job, enter the scanner's gate, leave it, end the job.
SCRIPTS = 4


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


def scripts_run(redis: Redis) -> int:
    return int(redis.info("commandstats")["cmdstat_evalsha"]["calls"])


def test_rescan_costs_five_statements_and_four_commands(
    quay: Pipeline, redis: Redis, count_statements: Callable[[], list[str]]
) -> None:
    """With every further job: what a worker does at its start or when idle isn't a job's."""
    statements: list[list[str]] = []
    commands: list[int] = []
    for name, jobs in (("first", 1), ("one", 1), ("more", 6)):
        manifests = [complete(quay, f"{name}{number}") for number in range(jobs)]
        quay.queue.enqueue_rescans(manifests, Reason.EVENT, timeout=60)
        worker = quay.prepare_rescan_worker()
        worker.next_round = float("inf")
        before, scripts = len(count_statements()), scripts_run(redis)
        worker.work(burst=True, logging_level=None)
        statements.append([each.split()[0] for each in count_statements()[before:]])
        commands.append(scripts_run(redis) - scripts)
        assert {quay.status(each) for each in manifests} == {IndexStatus.COMPLETED}
    assert statements == [STATEMENTS, STATEMENTS, STATEMENTS * 6]
    assert commands[2] - commands[1] == 5 * SCRIPTS
