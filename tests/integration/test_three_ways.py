"""The three ways to share the blobs with Quay: in all of them every manifest ends COMPLETED."""

from __future__ import annotations

from enum import Enum

import pytest

from data.secscan.status import IndexStatus
from queues.blobwork import read_blob_work
from queues.unscannable import Unscannable
from queues.wiring import build_policy
from tests.integration.pipeline import Pipeline
from workers.demo.sampleimages import alpine_image, debian_image
from workers.sweepworker import Sweeper

IMAGES = [debian_image("library/web"), alpine_image("library/tool")]


class Way(Enum):
    OURS_ALONE = "a"
    SIDE_BY_SIDE = "b"
    QUAYS_ALONE = "c"


def quays_blob_worker_takes(quay: Pipeline, items: int | None = None) -> None:
    """Claims as ours does, fetches what is missing, deletes the item, and tells nobody."""
    blobs = {digest: image for image in IMAGES for digest in image.blobs}
    done = 0
    while items is None or done < items:
        item = quay.blob_worker.items.claim()
        if item is None:
            return
        digest = read_blob_work(item).digest
        if not quay.is_placed(digest):
            quay.fetch_blob_in_request("proxy", blobs[digest], digest)
        quay.blob_worker.items.complete(item)
        done += 1


def sweep(quay: Pipeline) -> None:
    redis = quay.queue.connection
    swept = Sweeper(
        redis=redis,
        queue=quay.queue,
        items=quay.blob_worker.items,
        unscannable=Unscannable(redis, "rescan"),
        decide_policy=build_policy(quay.settings),
        timeout=660,
    ).sweep(lambda: False)
    assert swept is not None


@pytest.mark.parametrize("way", Way)
def test_every_manifest_ends_completed(quay: Pipeline, way: Way) -> None:
    pulled = []
    for image in IMAGES:
        quay.publish(image)
        pulled.append(quay.pull("proxy", image))
    for each in pulled:
        quay.security_worker_looks_too_early(each.manifest_id)
    if way is Way.SIDE_BY_SIDE:
        quay.run_blob_worker(items=2)
        quays_blob_worker_takes(quay, items=2)
        quay.run_blob_worker()
    elif way is Way.QUAYS_ALONE:
        quays_blob_worker_takes(quay)
    else:
        quay.run_blob_worker()
    quay.run_rescan_worker()
    if way is not Way.OURS_ALONE:
        sweep(quay)
        quay.run_rescan_worker()
    statuses = {quay.status(each.manifest_id) for each in pulled}
    assert statuses == {IndexStatus.COMPLETED}
