"""What was downloaded meanwhile is settled together, and one item's trouble is its own."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from redis import Redis
from structlog.testing import capture_logs

from data.models import ImageStoragePlacement, Manifest, QueueItem, database_proxy
from data.secscan.status import IndexStatus
from data.storage.blobstore import blob_path
from queues.workqueue import MAX_RETRIES
from tests.integration.pipeline import Pipeline, pipeline
from tests.servers import wait_until
from workers.demo import registryfaults
from workers.demo.images import build_image
from workers.demo.samplelayers import tar_layer
from workers.iteminhand import ItemInHand
from workers.process import Process, Stop
from workers.proxycacheblobworker import work


@pytest.fixture
def small_quay(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Pipeline]:
    """On one engine, where what is tested has nothing to do with the database."""
    with pipeline(sqlite_database, redis, tmp_path) as whole:
        yield whole


def pull(quay: Pipeline, *names: str) -> list[int]:
    """One manifest of one layer each, with its item; their ids."""
    ids = []
    for name in names:
        image = build_image(f"library/{name}", [tar_layer({"file": name.encode()})])
        quay.publish(image)
        ids.append(quay.pull("proxy", image).manifest_id)
        assert image.config_digest is not None
        quay.fetch_blob_in_request("proxy", image, image.config_digest)
    return ids


def download(quay: Pipeline, count: int) -> list[ItemInHand]:
    hands = quay.blob_worker.claim(count)
    for each in hands:
        quay.blob_worker.downloads.download(each)
        assert each.error is None
    return hands


def settle(quay: Pipeline, hands: Sequence[ItemInHand]) -> None:
    quay.blob_worker.finish(hands, quay.blob_worker.place(hands))


def test_placements_are_recorded_once_the_blobs_would_survive_a_power_cut(
    small_quay: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is on disk before it is shown, and its name there before its placement is."""
    (_, _) = pull(small_quay, "one", "two")
    before, fsync = ImageStoragePlacement.select().count(), os.fsync
    synced: list[Path] = []

    def note(descriptor: int) -> None:
        assert ImageStoragePlacement.select().count() == before
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    hands = download(small_quay, 2)
    files = [each.name for each in synced if each.parent.name == "uploads"]
    assert len(files) == 2, "and shown only then"
    settle(small_quay, hands)
    assert ImageStoragePlacement.select().count() == before + 2
    paths = [small_quay.storage_path / blob_path(each.work.digest) for each in hands if each.work]
    assert {path.parent for path in paths} <= set(synced)


def test_many_items_cost_the_statements_of_one(
    quay: Pipeline, count_statements: Callable[[], list[str]]
) -> None:
    """From the claim to the end of the items: placed, complete, enqueued."""
    costs = []
    for names in (["one"], ["two", "three", "four", "five"]):
        manifests = pull(quay, *names)
        before = len(count_statements())
        settle(quay, download(quay, len(names)))
        costs.append(len(count_statements()) - before)
        assert quay.items() == []
        quay.run_rescan_worker()
        assert {quay.status(each) for each in manifests} == {IndexStatus.COMPLETED}
    repositories_more = 4 - 1  # each of the images has one of its own, and it is looked up
    assert costs[1] == costs[0] + repositories_more


def test_item_whose_repository_went_meanwhile_fails_alone(quay: Pipeline) -> None:
    """Quay deletes a repository while its blob comes: the row that keeps the blob has no place."""
    gone, *others = pull(quay, "gone", "two", "three")
    hands = download(quay, 3)
    delete_repository(gone)
    with capture_logs() as logs:
        settle(quay, hands)
    unexpected = [each["item"] for each in logs if each["event"] == "blob item failed unexpectedly"]
    assert unexpected == [hands[0].item.queue_name]
    (left,) = quay.items()
    assert left.queue_name == hands[0].item.queue_name
    assert (left.available, left.retries_remaining) == (True, MAX_RETRIES - 1)
    assert quay.queue.depth().queued == 2
    quay.run_rescan_worker()
    assert {quay.status(each) for each in others} == {IndexStatus.COMPLETED}
    QueueItem.update(available_after=left.available_after.replace(year=2000)).execute()
    quay.run_blob_worker()
    assert quay.items() == [], "there is nothing more to do for it"


def delete_repository(manifest_id: int) -> None:
    repository_id = Manifest.get_by_id(manifest_id).repository_id
    with database_proxy.atomic():
        for table in ("uploadedblob", "manifestblob", "tag", "manifest"):
            database_proxy.execute_sql(f"DELETE FROM {table} WHERE repository_id = {repository_id}")
        database_proxy.execute_sql(f"DELETE FROM repository WHERE id = {repository_id}")


def test_locks_are_held_until_the_placements_are_recorded(small_quay: Pipeline) -> None:
    pull(small_quay, "one", "two")
    redis = small_quay.queue.connection
    hands = download(small_quay, 2)
    assert len(redis.keys("lock:BLOB_DELETE_*")) == 2
    small_quay.blob_worker.place(hands)
    assert redis.keys("lock:BLOB_DELETE_*") == []
    assert all(small_quay.is_placed(each.work.digest) for each in hands if each.work)


def test_bytes_that_cannot_be_stored_hold_no_lock(small_quay: Pipeline) -> None:
    """A file lies where the blob's folder has to be."""
    pull(small_quay, "one")
    (item,) = small_quay.items()
    folder = small_quay.storage_path / blob_path(json.loads(item.body)["digest"])
    folder.parent.parent.mkdir(exist_ok=True)
    folder.parent.touch()
    small_quay.run_blob_worker()
    assert small_quay.queue.connection.keys("lock:BLOB_DELETE_*") == []
    (left,) = small_quay.items()
    assert left.retries_remaining == MAX_RETRIES, "it isn't the blob's fault"


def test_placements_that_cannot_be_recorded_hold_no_lock(quay: Pipeline) -> None:
    """Quay's database knows no such location: nothing is placed, and nothing stays held."""
    pull(quay, "one", "two")
    redis = quay.queue.connection
    hands = download(quay, 2)
    database_proxy.execute_sql("UPDATE imagestoragelocation SET name = 'renamed'")
    settle(quay, hands)
    assert redis.keys("lock:BLOB_DELETE_*") == []
    assert [each.retries_remaining for each in quay.items()] == [MAX_RETRIES] * 2
    assert quay.blob_worker.downloads.placer.lock.renewed == {}  # type: ignore[attr-defined]


def burst(quay: Pipeline, stop: Stop) -> Process:
    return Process(worker=None, settings=quay.settings, config=None, burst=True, stop=stop)


def test_burst_does_and_tells_all_that_waits(
    small_quay: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.reporter.PAUSE_SECONDS", 3600.0)
    names = [f"app{number}" for number in range(6)]
    manifests = pull(small_quay, *names)
    work(burst(small_quay, Stop()))
    assert small_quay.items() == []
    told = small_quay.blob_worker.reporter.store.totals()
    placed = ("quay_proxy_cache_blob_downloads_total", (("outcome", "placed"),))
    assert told[placed] == len(names)
    small_quay.run_rescan_worker()
    assert {small_quay.status(each) for each in manifests} == {IndexStatus.COMPLETED}


def test_no_item_is_begun_once_the_worker_is_to_end(small_quay: Pipeline) -> None:
    pull(small_quay, "one", "two")
    stop = Stop()
    stop.set()
    work(burst(small_quay, stop))
    assert [each.retries_remaining for each in small_quay.items()] == [MAX_RETRIES] * 2


def test_stop_waits_for_what_was_begun(small_quay: Pipeline) -> None:
    pull(small_quay, "slow")
    (item,) = small_quay.items()
    digest = json.loads(item.body)["digest"]
    held = registryfaults.Held()
    small_quay.upstream.troubles.add(held, reference=digest)
    stop = Stop()
    worker = threading.Thread(target=work, args=(burst(small_quay, stop),))
    worker.start()
    assert held.arrived.wait(20)
    stop.set()
    wait_until(lambda: stop.requested, 20, "it is asked to stop")
    held.released.set()
    worker.join(20)
    assert not worker.is_alive()
    assert small_quay.items() == []
    assert small_quay.is_placed(digest)


def test_items_that_are_given_back_are_as_they_were(quay: Pipeline) -> None:
    """They were claimed ahead, and then it wasn't their turn: another worker may be idle."""
    pull(quay, "one", "two")
    hands = quay.blob_worker.claim(2)
    assert quay.blob_worker.claim(1) == []
    quay.blob_worker.give_back(hands)
    assert all(each.ended.done() for each in hands)
    assert [each.retries_remaining for each in quay.items()] == [MAX_RETRIES] * 2
    again = quay.blob_worker.claim(2)
    assert [each.item.id for each in again] == [each.item.id for each in hands]
    quay.blob_worker.give_back(again)
