"""Takes Quay's `proxycacheblob` items, places what is missing, and enqueues what became complete.

Whoever placed the blob: completion is asked for after every item, also when the registry fetched
the blob in a client's request, and in every repository that shares it. The item is done only
when the rescans are enqueued, so a worker that dies in between leaves it to the next.

Next: data/completion.py
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog
from redis.exceptions import RedisError

from data.blob_records import find_blobs
from data.completion import CompletedManifest, find_manifests_completed_by
from data.database import connection
from data.errors import DatabaseUnavailable, DataError
from data.faultpoints import FaultPoint, reach
from data.placement import BlobPlacer, BlobToPlace
from data.proxycache import DEFAULT_KEEP_SECONDS, ProxiedRepository, load_proxied_repository
from data.secscan.status import Reason
from data.settings import Settings, WorkerType
from data.upstream import Upstream, UpstreamClient
from queues.blobwork import BlobWork, ask_for_config, read_blob_work
from queues.errors import QueueError
from queues.rescanqueue import Enqueued, RescanQueue
from queues.workqueue import MAX_RETRIES, WorkItem, WorkQueue
from workers.failures import Action, decide
from workers.process import Process, Stop, run_worker
from workers.reporter import Reporter
from workers.reservations import Reservation
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


@dataclass(slots=True, kw_only=True)
class BlobWorker:
    """Places blobs and enqueues rescans; one for all threads of the process."""

    settings: Settings
    items: WorkQueue
    placer: BlobPlacer
    rescans: RescanQueue
    open_upstream: Callable[[Upstream], UpstreamClient]
    reporter: Reporter
    clients: dict[Upstream, UpstreamClient] = field(default_factory=dict)
    clients_lock: threading.Lock = field(default_factory=threading.Lock)

    def process_queue_items(self, first: WorkItem, stop: Stop) -> None:
        """Does an item and then whatever waits, until nothing does or the process is to end."""
        item: WorkItem | None = first
        with connection():
            while item is not None:
                self.process_queue_item(item)
                self.reporter.tell_now_and_then()
                item = None if stop.requested else self.claim()
        self.reporter.tell()

    def claim(self) -> WorkItem | None:
        try:
            return self.items.claim()
        except DataError as error:
            log.warning("queue not reachable", error=str(error))
            return None

    def process_queue_item(self, item: WorkItem) -> None:
        """Does one item, and completes it or gives it back as `workers.failures` says."""
        reservation = Reservation(self.items, item)
        with reservation.renewed():
            error = self.try_to_place(item)
        try:
            self.settle(reservation.item, error)
        except DatabaseUnavailable as unavailable:
            log.warning(
                "item left to its reservation", item=item.queue_name, error=str(unavailable)
            )

    def try_to_place(self, item: WorkItem) -> Exception | None:
        """Why the blob couldn't be placed or its rescans enqueued; None when all went well."""
        try:
            self.place_and_enqueue(read_blob_work(item))
        except (DataError, QueueError, RedisError) as error:
            return error
        except Exception as error:
            # One item that nobody foresaw must not end the downloads of the others.
            log.exception("blob item failed unexpectedly", item=item.queue_name)
            return error
        return None

    def settle(self, item: WorkItem, error: Exception | None) -> None:
        if error is None:
            self.items.complete(item)
        else:
            self.hand_back(item, error)

    def hand_back(self, item: WorkItem, error: Exception) -> None:
        """A retry is used up unless the trouble isn't the blob's; the last one is counted."""
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

    def place_and_enqueue(self, work: BlobWork) -> None:
        repository = load_proxied_repository(work.repository_id, plain_secret_key(self.settings))
        if repository is not None:
            self.place(work.digest, repository)
        complete = find_manifests_completed_by(work.digest)
        for completed in complete:
            reach(FaultPoint.COMPLETION_FOUND)
            self.enqueue(completed)
            reach(FaultPoint.RESCAN_ENQUEUED)
        # Only now: no rescan waits for the config of another manifest, however slowly it comes.
        for completed in complete:
            self.place_config(completed)

    def place(self, digest: str, repository: ProxiedRepository) -> None:
        """Fetches the blob unless it is placed and its bytes are there."""
        blobs = find_blobs(digest)
        if not blobs:
            log.info("blob is gone", digest=digest, repository=repository.name)
            return
        if self.placer.is_placed(blobs):
            log.debug("blob was placed already", digest=digest)
            return
        started = time.monotonic()
        size = self.placer.place(
            self.blob_to_place(digest, repository), self.client_of(repository.upstream)
        )
        log.info(
            "blob placed",
            digest=digest,
            repository=f"{repository.namespace}/{repository.name}",
            bytes=size,
            seconds=round(time.monotonic() - started, 3),
        )
        self.reporter.blob_placed(repository.namespace, size)

    def place_config(self, completed: CompletedManifest) -> None:
        """Fetches a missing config blob, which Quay never queues and needs when it indexes again.

        Clair doesn't need it, so the rescan is on its way already, and a failure here is no reason
        to do the item again: the config gets an item, and so the retries, of its own.
        """
        if completed.missing_config is None:
            return
        try:
            repository = load_proxied_repository(
                completed.repository_id, plain_secret_key(self.settings)
            )
            if repository is not None:
                self.place(completed.missing_config, repository)
        except DataError as error:
            log.warning(
                "config not placed",
                manifest=completed.manifest_id,
                digest=completed.missing_config,
                error=str(error),
            )
            self.reporter.blob_failed(
                f"config of manifest {completed.manifest_id}", str(error), given_up=False
            )
            ask_for_config(self.items, completed, available_after=decide(error).seconds)

    def enqueue(self, completed: CompletedManifest) -> None:
        enqueued = self.rescans.enqueue_rescan(
            completed.manifest_id, Reason.EVENT, timeout=self.settings.rescan.job_timeout
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
    return BlobWorker(
        settings=settings,
        items=build_blob_queue(settings),
        placer=build_blob_placer(settings, build_storage(settings)),
        rescans=build_queue(settings, redis),
        open_upstream=lambda upstream: build_upstream_client(settings, upstream),
        reporter=build_reporter(settings),
    )


def work(process: Process) -> None:
    """Claims items and does RESCAN_BLOB_DOWNLOADS of them at a time, until stopped."""
    worker = build_worker(process.settings, process.stop)
    downloads = process.settings.rescan.blob_downloads
    log.info("worker ready", downloads=downloads)
    running: set[Future[None]] = set()
    with (
        pushing_metrics(process.settings, worker.reporter.metrics.registry, "proxycacheblobworker"),
        ThreadPoolExecutor(downloads, thread_name_prefix="download") as pool,
    ):
        while not process.stop.requested:
            running = forget_done(running)
            item = worker.claim() if len(running) < downloads else None
            if item is not None:
                running.add(pool.submit(worker.process_queue_items, item, process.stop))
            elif process.burst and not running:
                break
            else:
                worker.reporter.tell_now_and_then()  # whoever held back may be at a long download
                process.stop.wait(0.02 if running else POLL_SECONDS)
    forget_done(running)


def forget_done(running: set[Future[None]]) -> set[Future[None]]:
    """The futures still running; an error that nobody expected ends the process here."""
    for done in [each for each in running if each.done()]:
        done.result()
    return {each for each in running if not each.done()}


def main() -> int:
    return run_worker(
        WorkerType.BLOB, "Places proxied blobs and enqueues the manifests they complete.", work
    )


if __name__ == "__main__":
    sys.exit(main())
