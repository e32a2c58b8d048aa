"""RESCAN_POLICY as real workers follow it, before and after its file was changed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from data.secscan.status import IndexStatus, Reason
from tests.integration.pipeline import Pipeline, pipeline
from tests.servers import wait_until
from tests.workers.test_processes import running, says
from workers.demo.sampleimages import debian_image

IMAGE = debian_image("library/app")
OFF = {"organizations": {"pro*": "off", "mirror": "immediate"}}
# The rule for the repository is the more specific one, so it decides.
IMMEDIATE = OFF | {"repositories": {"proxy/library/*": "immediate"}}


@pytest.fixture
def quay(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline(sqlite_database, redis, tmp_path) as whole:
        yield whole


@pytest.fixture
def stuck(quay: Pipeline) -> int:
    """A complete manifest whose row says -2; nothing is queued."""
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    quay.run_blob_worker()
    quay.queue.empty()  # type: ignore[no-untyped-call]
    quay.security_worker_looks_too_early(pulled.manifest_id)
    return pulled.manifest_id


def write(quay: Pipeline, path: Path, policy: dict[str, Any]) -> None:
    ours = {"RESCAN_POLICY": policy, "RESCAN_MAX_CONCURRENT_INDEXES": 1}
    path.write_text(yaml.safe_dump(quay.config | ours))


def test_sweep_follows_a_changed_policy_after_sighup(
    quay: Pipeline, stuck: int, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    write(quay, path, OFF)
    with running("sweepworker", path) as (process, log):
        wait_until(says(log, "swept"), 20, "the first sweep is over")
        assert quay.queue.depth().queued == 0
        write(quay, path, IMMEDIATE)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: quay.queue.depth().queued == 1, 20, "the sweep enqueues it")


def test_rescan_follows_a_changed_policy_after_sighup(
    quay: Pipeline, stuck: int, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    write(quay, path, OFF)
    with running("rescanworker", path) as (process, log):
        quay.queue.enqueue_rescan(stuck, Reason.EVENT, timeout=60)
        wait_until(says(log, "policy_off"), 20, "the rescan is left alone")
        assert quay.status(stuck) is IndexStatus.MANIFEST_UNSUPPORTED
        write(quay, path, IMMEDIATE)
        process.send_signal(signal.SIGHUP)
        wait_until(says(log, "configuration read again"), 20, "the file is read again")
        quay.queue.enqueue_rescan(stuck, Reason.EVENT, timeout=60)
        wait_until(lambda: quay.status(stuck) is IndexStatus.COMPLETED, 30, "it is scanned")
