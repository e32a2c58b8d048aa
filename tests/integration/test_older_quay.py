"""Beside a Quay of 3.9, whose tables lack what later versions added."""

from __future__ import annotations

import pytest

from data.models import (
    NEWER_COLUMNS,
    ExternalNotificationEvent,
    RepositoryNotification,
    database_proxy,
)
from data.secscan.giving_up import give_up
from data.secscan.status import IndexStatus
from queues.commands.doctor import check_schema
from tests.integration.pipeline import Pipeline
from tests.integration.test_three_ways import sweep
from workers.demo.sampleimages import debian_image

IMAGE = debian_image("library/app")


@pytest.fixture
def manifest_id(quay: Pipeline) -> int:
    """An image that somebody pulled and wishes to hear of, in tables as old as Quay 3.9."""
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    event = ExternalNotificationEvent.create(name="vulnerability_found")
    repository_id = quay.row_of_manifest(pulled.manifest_id).repository_id
    RepositoryNotification.create(repository_id=repository_id, event_id=event.id)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    for table, columns in NEWER_COLUMNS.items():
        for column in columns:
            database_proxy.execute_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
    return pulled.manifest_id


def test_event_path_ends_completed_and_notifies(quay: Pipeline, manifest_id: int) -> None:
    quay.run()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED
    (item,) = quay.items()
    assert item.queue_name.startswith("notification/")


def test_sweep_finds_what_is_stuck(quay: Pipeline, manifest_id: int) -> None:
    quay.run_blob_worker()
    quay.queue.empty()  # type: ignore[no-untyped-call]
    sweep(quay)
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED


def test_job_that_kills_its_workers_is_set_aside(quay: Pipeline, manifest_id: int) -> None:
    assert give_up(manifest_id, f"rescan-{manifest_id}")
    assert quay.status(manifest_id) is IndexStatus.FAILED


def test_doctor_finds_all_that_is_needed(quay: Pipeline, manifest_id: int) -> None:
    assert check_schema().endswith("tables as expected")
