"""Takes Quay's `proxycacheblob` items, places what is missing, and enqueues what became complete.

Whoever placed the blob: completion is asked for after every item, also when the registry fetched
the blob in a client's request, and in every repository that shares it. The item is done only
when the rescans are enqueued, so a worker that dies in between leaves it to the next.

One thread claims, RESCAN_BLOB_DOWNLOADS download, and one settles what came in meanwhile, all of it
together: a transaction, a completion check and a DELETE cost more than a small blob's bytes.

Next: data/completion.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from data.blob_records import BlobRecord, find_blobs_of_digests
from data.completion import CompletedManifest, find_manifests_completed_by
from data.database import connection
from data.errors import DatabaseUnavailable, DataError
from data.faultpoints import FaultPoint, reach
from data.proxycache import ProxiedRepository
from data.secscan.status import Reason
from data.settings import Settings, WorkerType
from queues.blobwork import read_blob_work
from queues.rescanqueue import Enqueued, RescanQueue
from queues.workqueue import MAX_RETRIES, WorkQueue
from workers.blobdownloads import BlobDownloads
from workers.downloadpool import DownloadPool
from workers.failures import Action, decide
from workers.iteminhand import ItemInHand, fail, together, without_error
from workers.process import Process, Stop, run_worker
from workers.reporter import Reporter
from workers.wiring import (
    build_blob_placer,
    build_blob_queue,
    build_database,
    build_queue,
    build_redis,
    build_reporter,
    build_storage,
    build_upstream_client,
    pushing_metrics,
)

log = structlog.get_logger()

POLL_SECONDS = 1.0
# How long the claiming thread waits for room for a download before it looks around again.
ROOM_SECONDS = 0.05


@dataclass(slots=True, kw_only=True)
class BlobWorker:
    """Places blobs and enqueues rescans; one for all threads of the process."""

    items: WorkQueue
    downloads: BlobDownloads
    rescans: RescanQueue
    reporter: Reporter
    job_timeout: int  # seconds that a rescan may take

    def claim(self, count: int) -> list[ItemInHand]:
        """Up to so many items, each with what is known of its blob."""
        try:
            with connection():
                hands = [ItemInHand(self.items, item) for item in self.items.claim_many(count)]
                self.look_up(hands)
        except DataError as error:
            log.warning("queue not reachable", error=str(error))
            return []
        return hands

    def look_up(self, hands: Sequence[ItemInHand]) -> None:
        """Finds out what the items ask for; in those that ask for nothing sensible, says so."""
        known: dict[int, ProxiedRepository | None] = {}
        for hand in hands:
            with hand.attempting():
                hand.work = read_blob_work(hand.item)
                key = hand.work.repository_id
                if key not in known:
                    known[key] = self.downloads.load_repository(key)
                hand.repository = known[key]
        found = dict(together([hand for hand in hands if hand.work is not None], find_blobs))
        for hand in hands:
            if hand.work is not None:
                hand.blobs = found.get(hand.work.digest, ())

    def place(self, hands: Sequence[ItemInHand]) -> list[CompletedManifest]:
        """Records the placements, and says which manifests are complete with these blobs.

        Whoever placed a blob: an item whose blob was there already is asked for as well. Items that
        failed before are passed over; those that fail here have their error afterwards.
        """
        with connection():
            try:
                together(without_error(hands), self.record)
            finally:
                self.downloads.release(hands)
            reach(FaultPoint.BLOB_PLACED)
            recorded = without_error(hands)
            for each in recorded:
                self.downloads.tell_recorded(each)
            return together(recorded, self.find_complete)

    def record(self, hands: Sequence[ItemInHand]) -> list[CompletedManifest]:
        self.downloads.record(hands)
        return []

    def find_complete(self, hands: Sequence[ItemInHand]) -> list[CompletedManifest]:
        return find_manifests_completed_by(*(each.work.digest for each in hands if each.work))

    def finish(self, hands: Sequence[ItemInHand], complete: Sequence[CompletedManifest]) -> None:
        """Enqueues the rescans of what is complete, and ends the items."""
        with connection():
            try:
                for each in complete:
                    self.enqueue(each)
                # Only now: no rescan waits for the config of another manifest, however slow it is.
                for each in complete:
                    if each.missing_config is not None:
                        self.downloads.place_config(each, each.missing_config)
            except Exception as error:  # noqa: BLE001
                fail(hands, error)  # of several, nobody knows whose: each is done again
            self.end(hands)
        self.reporter.tell_now_and_then()

    def enqueue(self, completed: CompletedManifest) -> None:
        reach(FaultPoint.COMPLETION_FOUND)
        enqueued = self.rescans.enqueue_rescan(
            completed.manifest_id, Reason.EVENT, timeout=self.job_timeout
        )
        repository = f"{completed.namespace}/{completed.repository}"
        log.info(
            "rescan enqueued" if enqueued is Enqueued.QUEUED else "rescan on its way already",
            manifest=completed.manifest_id,
            digest=completed.digest,
            repository=repository,
        )
        if enqueued is Enqueued.QUEUED:
            self.reporter.complete(completed.manifest_id, completed.digest, repository)
        reach(FaultPoint.RESCAN_ENQUEUED)

    def end(self, hands: Sequence[ItemInHand]) -> None:
        """Completes the items that are done, and gives those back that failed."""
        for each in hands:
            each.reservation.end()
        try:
            self.items.complete_many([each.item for each in hands if each.error is None])
            for each in hands:
                if each.error is not None:
                    self.hand_back(each, each.error)
        except DatabaseUnavailable as error:
            log.warning("items left to their reservation", items=names(hands), error=str(error))
        for each in hands:
            each.ended.set_result(None)

    def give_back(self, hands: Sequence[ItemInHand]) -> None:
        """Leaves items that were claimed and not begun to whoever is free."""
        try:
            with connection():
                for each in hands:
                    each.reservation.end()
                    self.items.give_back(each.item, retry_after=0, restore_retry=True)
        except DatabaseUnavailable as error:
            log.warning("items left to their reservation", items=names(hands), error=str(error))
        for each in hands:
            each.reservation.end()
            each.ended.set_result(None)

    def hand_back(self, hand: ItemInHand, error: Exception) -> None:
        """A retry is used up unless the trouble isn't the blob's; the last one is counted."""
        item = hand.item
        verdict = decide(error, tries=MAX_RETRIES - 1 - item.retries_remaining)
        last = item.retries_remaining <= 0 and verdict.action is not Action.LATER
        given_up = last or verdict.action is Action.NEVER
        self.reporter.blob_failed(item.queue_name, str(error), given_up=given_up)
        if verdict.action is Action.NEVER:
            log.error("blob item dropped", item=item.queue_name, error=str(error))
            self.items.complete(item)
            return
        event = "blob given up, left to the sweep" if last else "blob not placed, tried again"
        log.error(
            event, item=item.queue_name, retries_left=item.retries_remaining, error=str(error)
        )
        self.items.give_back(
            item,
            retry_after=verdict.seconds,
            restore_retry=verdict.action is Action.LATER,
        )


def find_blobs(hands: Sequence[ItemInHand]) -> list[tuple[str, list[BlobRecord]]]:
    """The rows of the blobs that the items ask for, by digest."""
    return list(find_blobs_of_digests(each.work.digest for each in hands if each.work).items())


def names(hands: Sequence[ItemInHand]) -> list[str]:
    return [each.item.queue_name for each in hands]


def build_worker(settings: Settings, stop: Stop) -> BlobWorker:
    build_database(settings)
    items, reporter = build_blob_queue(settings), build_reporter(settings)
    downloads = BlobDownloads(
        settings=settings,
        items=items,
        placer=build_blob_placer(settings, build_storage(settings)),
        open_upstream=lambda upstream: build_upstream_client(settings, upstream),
        reporter=reporter,
    )
    return BlobWorker(
        items=items,
        downloads=downloads,
        rescans=build_queue(settings, build_redis(settings, hurry=lambda: stop.requested)),
        reporter=reporter,
        job_timeout=settings.rescan.job_timeout,
    )


def work(process: Process) -> None:
    """Claims items and does RESCAN_BLOB_DOWNLOADS of them at a time, until stopped."""
    worker, stop = build_worker(process.settings, process.stop), process.stop
    downloads = process.settings.rescan.blob_downloads
    log.info("worker ready", downloads=downloads)
    with (
        pushing_metrics(process.settings, worker.reporter.metrics.registry, "proxycacheblobworker"),
        DownloadPool(
            downloads,
            download=worker.downloads.download,
            place=worker.place,
            finish=worker.finish,
        ) as pool,
    ):
        while not stop.requested:
            stop.touch()
            worker.reporter.tell_now_and_then()
            pool.forget_ended()
            worker.give_back(pool.take_back())
            room = pool.wait_for_room(ROOM_SECONDS)
            if not room:
                continue
            hands = worker.claim(room)
            pool.begin(hands)
            if not hands and not pool.hands and process.burst:
                break
            if not hands:
                stop.wait(0.02 if pool.hands else POLL_SECONDS)
        worker.give_back(pool.take_back(also_quick=True))
    worker.reporter.tell()


def main() -> int:
    return run_worker(
        WorkerType.BLOB, "Places proxied blobs and enqueues the manifests they complete.", work
    )


if __name__ == "__main__":
    sys.exit(main())
