"""Takes Quay's `proxycacheblob` items, places what is missing, and enqueues what became complete.

Whoever placed the blob: completion is asked for after every item, also when the registry fetched
the blob in a client's request, and in every repository that shares it. The item is done only
when the rescans are enqueued, so a worker that dies in between leaves it to the next.

One thread claims, RESCAN_BLOB_DOWNLOADS download, and one settles what they have downloaded.

Next: workers/blobsettlement.py
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from data.blob_records import find_blobs, find_blobs_of_digests
from data.completion import CompletedManifest
from data.database import connection
from data.errors import DataError
from data.placement import BlobPlacer, BlobToPlace
from data.proxycache import DEFAULT_KEEP_SECONDS, ProxiedRepository, load_proxied_repository
from data.settings import Settings, WorkerType
from data.upstream import Upstream, UpstreamClient
from queues.blobwork import ask_for_config, read_blob_work
from queues.workqueue import WorkItem, WorkQueue
from workers.blobsettlement import BlobSettlement, fail
from workers.downloadpool import DownloadPool
from workers.failures import decide
from workers.iteminhand import ItemInHand
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

    settings: Settings
    items: WorkQueue
    placer: BlobPlacer
    settlement: BlobSettlement
    open_upstream: Callable[[Upstream], UpstreamClient]
    reporter: Reporter
    clients: dict[Upstream, UpstreamClient] = field(default_factory=dict)
    clients_lock: threading.Lock = field(default_factory=threading.Lock)

    def process_queue_item(self, item: WorkItem) -> None:
        """Does one item, and completes it or gives it back as `workers.failures` says."""
        hand = ItemInHand(self.items, item)
        with connection():
            self.look_up([hand])
            self.download(hand)
            self.finish([hand], self.place_all([hand]))

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
                    known[key] = load_proxied_repository(key, plain_secret_key(self.settings))
                hand.repository = known[key]
        sound = [(hand, hand.work.digest) for hand in hands if hand.work is not None]
        try:
            blobs = find_blobs_of_digests(digest for _, digest in sound)
        except DataError as error:
            fail(hands, error)
            return
        for hand, digest in sound:
            hand.blobs = blobs[digest]

    def download(self, hand: ItemInHand) -> None:
        """Stores the bytes unless they are there; their placement is recorded by who settles."""
        with hand.attempting():
            if hand.error is not None or hand.work is None or hand.repository is None:
                return
            digest = hand.work.digest
            if not hand.blobs:
                log.info("blob is gone", digest=digest, repository=hand.repository.name)
            elif self.placer.is_placed(hand.blobs):
                log.debug("blob was placed already", digest=digest)
            else:
                hand.stored = self.placer.store(
                    self.blob_to_place(digest, hand.repository),
                    self.client_of(hand.repository.upstream),
                )

    def place_all(self, hands: Sequence[ItemInHand]) -> Sequence[CompletedManifest]:
        """Records what was downloaded; what is complete now."""
        with connection():
            return self.settlement.place(hands)

    def finish(self, hands: Sequence[ItemInHand], complete: Sequence[CompletedManifest]) -> None:
        """Enqueues the rescans of what is complete, and ends the items."""
        with connection():
            try:
                for each in complete:
                    self.settlement.enqueue(each)
                # Only now: no rescan waits for the config of another manifest, however slow it is.
                for each in complete:
                    if each.missing_config is not None:
                        self.place_config(each, each.missing_config)
            except Exception as error:  # noqa: BLE001
                fail(hands, error)  # of several, nobody knows whose: each is done again
            self.settlement.end(hands)
        self.reporter.tell_now_and_then()

    def place_config(self, completed: CompletedManifest, digest: str) -> None:
        """Fetches a missing config blob, which Quay never queues and needs when it indexes again.

        Clair doesn't need it, so the rescan is on its way already, and a failure here is no reason
        to do the item again: the config gets an item, and so the retries, of its own.
        """
        began = time.monotonic()
        try:
            repository = load_proxied_repository(
                completed.repository_id, plain_secret_key(self.settings)
            )
            blobs = find_blobs(digest)
            if repository is None or not blobs or self.placer.is_placed(blobs):
                return
            placement = self.placer.place(
                self.blob_to_place(digest, repository), self.client_of(repository.upstream)
            )
        except DataError as error:
            log.warning(
                "config not placed",
                manifest=completed.manifest_id,
                digest=digest,
                error=str(error),
            )
            self.reporter.blob_failed(
                f"config of manifest {completed.manifest_id}", str(error), given_up=False
            )
            ask_for_config(self.items, completed, available_after=decide(error).seconds)
        else:
            self.settlement.tell_placed(repository, placement, time.monotonic() - began)

    def blob_to_place(self, digest: str, repository: ProxiedRepository) -> BlobToPlace:
        keep = repository.expiration_seconds or self.settings.registry.push_temp_tag_expiration
        return BlobToPlace(
            digest=digest,
            repository_id=repository.repository_id,
            upstream_repository=repository.upstream_repository,
            keep_seconds=keep or DEFAULT_KEEP_SECONDS,
        )

    def client_of(self, upstream: Upstream) -> UpstreamClient:
        """One client an upstream, so that connections and tokens are kept."""
        with self.clients_lock:
            if upstream not in self.clients:
                self.clients[upstream] = self.open_upstream(upstream)
            return self.clients[upstream]


def plain_secret_key(settings: Settings) -> str | None:
    key = settings.database.secret_key
    return key.get_secret_value() if key is not None else None


def build_worker(settings: Settings, stop: Stop) -> BlobWorker:
    build_database(settings)
    redis = build_redis(settings, hurry=lambda: stop.requested)
    items, reporter = build_blob_queue(settings), build_reporter(settings)
    placer = build_blob_placer(settings, build_storage(settings))
    return BlobWorker(
        settings=settings,
        items=items,
        placer=placer,
        settlement=BlobSettlement(
            items=items,
            placer=placer,
            rescans=build_queue(settings, redis),
            reporter=reporter,
            job_timeout=settings.rescan.job_timeout,
        ),
        open_upstream=lambda upstream: build_upstream_client(settings, upstream),
        reporter=reporter,
    )


def work(process: Process) -> None:
    """Claims items and does RESCAN_BLOB_DOWNLOADS of them at a time, until stopped."""
    worker, stop = build_worker(process.settings, process.stop), process.stop
    downloads = process.settings.rescan.blob_downloads
    log.info("worker ready", downloads=downloads)
    with (
        pushing_metrics(process.settings, worker.reporter.metrics.registry, "proxycacheblobworker"),
        DownloadPool(
            downloads, download=worker.download, place=worker.place_all, finish=worker.finish
        ) as pool,
    ):
        while not stop.requested:
            stop.touch()
            worker.reporter.tell_now_and_then()
            pool.forget_ended()
            room = pool.wait_for_room(ROOM_SECONDS)
            hands = worker.claim(room) if room else []
            pool.begin(hands)
            if not hands and not pool.hands and process.burst:
                break
            if not hands:
                stop.wait(0.02 if pool.hands else POLL_SECONDS)
    worker.reporter.tell()


def main() -> int:
    return run_worker(
        WorkerType.BLOB, "Places proxied blobs and enqueues the manifests they complete.", work
    )


if __name__ == "__main__":
    sys.exit(main())
