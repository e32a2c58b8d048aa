"""A worker takes the next job as one ends: not when it is to stop, nor when the queue is paused."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from data.secscan.status import IndexStatus, Reason
from queues.rescanqueue import RescanQueue
from tests.faults.site import image_of_its_own
from tests.integration.pipeline import Pipeline, pipeline
from workers.demo.scannerfaults import Held
from workers.rescanprocess import RescanProcess

LONG_SECONDS = 30


@pytest.fixture
def quay(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline(sqlite_database, redis, tmp_path) as whole:
        yield whole


def stop(worker: RescanProcess) -> None:
    worker.stop.request(signal.SIGTERM, None)


def pause(worker: RescanProcess) -> None:
    worker.lane.pause()


def open_circuit(worker: RescanProcess) -> None:
    worker.lane.connection.set(worker.circuit_key, "busy", ex=600)


@pytest.mark.parametrize("act", [stop, pause, open_circuit])
def test_job_that_may_not_begin_stays_queued(
    quay: Pipeline, redis: Redis, act: Callable[[RescanProcess], None]
) -> None:
    """While the first job runs, something happens after which no other is to begin."""
    images = [image_of_its_own(name) for name in ("first", "second")]
    manifests = []
    for image in images:
        quay.publish(image)
        manifests.append(quay.pull("proxy", image).manifest_id)
        for digest in image.blobs:
            quay.fetch_blob_in_request("proxy", image, digest)
    held = Held()
    quay.scanner.faults.add(held, digest=images[0].digest, times=1)
    quay.queue.enqueue_rescans(manifests, Reason.EVENT, timeout=60)
    worker = quay.prepare_rescan_worker()

    def interfere() -> None:
        assert held.wait_for_call(LONG_SECONDS)
        act(worker)
        held.release()

    thread = threading.Thread(target=interfere)
    thread.start()
    worker.work(burst=True, logging_level=None)
    thread.join()
    assert quay.status(manifests[0]) is IndexStatus.COMPLETED
    assert quay.status(manifests[1]) is None
    lane: RescanQueue = worker.lane
    assert redis.lrange(lane.key, 0, -1) == [f"rescan-{manifests[1]}".encode()]
    assert redis.zcard("rq:wip:rescan") == 0
    assert redis.llen(lane.intermediate_queue_key) == 0
