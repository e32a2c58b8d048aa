"""Searches the database for stuck manifests, every RESCAN_SWEEP_INTERVAL seconds.

What it finds is enqueued like any event, so what a rescan may do is decided in one place. Of many
sweepworkers one sweeps at a time; a sweep that was cut short goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime

import structlog
from redis import Redis
from redis.exceptions import RedisError
from redis_lock import Lock, NotAcquired

from data.blob_records import find_blobs
from data.completion import SharingManifest, keep_complete
from data.database import connection
from data.errors import DataError
from data.faultpoints import FaultPoint, reach
from data.manifest_records import ManifestRecord
from data.models import QueueItem, utcnow
from data.policy import Policy
from data.secscan.status import CLAIM_LIFETIME, Reason, read_claim, read_metadata
from data.settings import WorkerType
from data.sweep import (
    ClaimedRow,
    Stuck,
    find_candidates,
    find_exhausted_items,
    is_image,
    last_manifest_id,
    load_claims,
    next_page,
)
from queues.blobwork import ask_for_config, read_blob_work
from queues.errors import InvalidWork
from queues.rescanqueue import Enqueued, RescanQueue, backfill_lane, job_id_of
from queues.unscannable import Unscannable
from queues.walkcursor import WalkCursor
from queues.workqueue import WorkItem, WorkQueue
from workers.process import Process, run_worker
from workers.reporter import Reporter
from workers.wiring import (
    build_blob_queue,
    build_database,
    build_policy,
    build_queue,
    build_redis,
    build_reporter,
)

log = structlog.get_logger()

# A sweeper that died is replaced this soon; one that lives renews its lock.
LOCK_SECONDS = 20
# Beyond so many queued jobs the sweep adds to the backfill's lane: the first sweep beside an old
# Quay may find a million manifests, and no new pull is to wait behind them.
MOST_SWEPT_AHEAD = 200
LIVE_JOB = frozenset({b"queued", b"started", b"scheduled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep found. `stuck` counts complete, scannable manifests, enqueued now or before."""

    stuck: int = 0
    enqueued: int = 0
    unscannable: int = 0
    configs_asked_for: int = 0
    blobs_tried_again: int = 0

    def plus(self, other: Swept) -> Swept:
        mine, others = self.as_dict(), other.as_dict()
        return Swept(**{name: mine[name] + others[name] for name in mine})

    def as_dict(self) -> dict[str, int]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeper:
    """One sweep after another; `timeout` is that of the jobs it enqueues, in seconds."""

    redis: Redis
    queue: RescanQueue
    items: WorkQueue
    unscannable: Unscannable
    decide_policy: Callable[[ManifestRecord], Policy]
    timeout: int

    def sweep(self, stopped: Callable[[], bool]) -> Swept | None:
        """All walks once; None when another sweeper is at it. Ends early, between two pages."""
        lock = Lock(
            self.redis, f"rescan:{self.queue.name}:sweep", expire=LOCK_SECONDS, auto_renewal=True
        )
        if not lock.acquire(blocking=False):
            return None
        try:
            total = Swept()
            for part in self.parts():
                total = total.plus(part)
                if stopped():
                    break
            return total
        finally:
            release(lock)

    def parts(self) -> Iterator[Swept]:
        for stuck in Stuck:
            yield from self.walk(stuck)
        yield from self.renew_exhausted_items()

    def walk(self, stuck: Stuck) -> Iterator[Swept]:
        """One walk over the manifests, from where the last one was cut short."""
        last = last_manifest_id()
        after = self.cursor.read(stuck.value)
        while after < last:
            page = next_page(stuck, after)
            swept = self.sweep_page(stuck, list(page.manifest_ids))
            after = page.after
            self.cursor.write(stuck.value, after)
            reach(FaultPoint.SWEEP_PAGE)
            yield swept
        self.cursor.forget(stuck.value)

    def sweep_page(self, stuck: Stuck, manifest_ids: list[int]) -> Swept:
        if stuck is Stuck.CLAIMED:
            manifest_ids = self.without_live_claims(load_claims(manifest_ids))
        found = find_candidates(self.unscannable.without(manifest_ids))
        images = [each for each in found if is_image(each)]
        others = {each.completed.manifest_id for each in found} - {
            each.completed.manifest_id for each in images
        }
        self.unscannable.add(sorted(others))
        complete = keep_complete(images)
        wanted = [
            each for each in complete if self.decide_policy(record_of(each)) is not Policy.OFF
        ]
        return Swept(
            stuck=len(wanted),
            enqueued=self.enqueue([each.completed.manifest_id for each in wanted]),
            unscannable=len(others),
            configs_asked_for=sum(ask_for_config(self.items, each.completed) for each in wanted),
        )

    def enqueue(self, manifest_ids: list[int]) -> int:
        """Returns how many jobs are new. See `MOST_SWEPT_AHEAD`."""
        room = max(0, MOST_SWEPT_AHEAD - self.redis.llen(self.queue.key))
        backfill = RescanQueue(backfill_lane(self.queue.name), connection=self.redis)
        parts = [(self.queue, manifest_ids[:room]), (backfill, manifest_ids[room:])]
        counts = [
            lane.enqueue_rescans(ids, Reason.SWEEP, timeout=self.timeout) for lane, ids in parts
        ]
        return sum(each[Enqueued.QUEUED] for each in counts)

    def without_live_claims(self, claims: list[ClaimedRow]) -> list[int]:
        """The manifests whose claim is dead: too old, or ours and without a job that lives."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for claim in claims:
                pipeline.hget(f"rq:job:{job_id_of(claim.manifest_id)}", "status")
            statuses = pipeline.execute(raise_on_error=False)  # a record may be no job's
        now = utcnow()
        return [
            claim.manifest_id
            for claim, status in zip(claims, statuses, strict=True)
            if is_dead(claim, now, job_lives=is_live(status))
        ]

    def renew_exhausted_items(self) -> Iterator[Swept]:
        """One more try for blobs that are still missing, at most once an hour."""
        after = 0
        while items := find_exhausted_items(self.items.name, after):
            yield Swept(blobs_tried_again=sum(self.renew(item) for item in items))
            after = int(items[-1].id)

    def renew(self, item: QueueItem) -> bool:
        claimed = work_item(item)
        try:
            blobs = find_blobs(read_blob_work(claimed).digest)
        except InvalidWork as error:
            log.error("blob item dropped", item=item.queue_name, error=str(error))
            blobs = []
        if any(blob.placeholder for blob in blobs):
            self.items.give_back(claimed, retry_after=0, restore_retry=True)
            return True
        self.items.complete(claimed)  # the blob is placed, or nobody has heard of it any more
        return False

    @property
    def cursor(self) -> WalkCursor:
        return WalkCursor(self.redis, f"rescan:{self.queue.name}:sweep:cursor")


def release(lock: Lock) -> None:
    """A lock that is gone (Redis lost everything) or out of reach ends by itself."""
    try:
        lock.release()
    except (NotAcquired, RedisError) as error:
        log.warning("sweep lock not released", error=str(error))


def is_live(status: object) -> bool:
    return isinstance(status, bytes) and status in LIVE_JOB


def work_item(item: QueueItem) -> WorkItem:
    return WorkItem(
        id=int(item.id),
        queue_name=item.queue_name,
        body=item.body,
        state_id=item.state_id,
        retries_remaining=item.retries_remaining,
    )


def is_dead(claim: ClaimedRow, now: datetime, *, job_lives: bool) -> bool:
    """A claim of a rescan is as alive as its job; any other claim lives for CLAIM_LIFETIME."""
    owner = read_claim(read_metadata(claim.metadata_json))
    if owner is not None and owner.job == job_id_of(claim.manifest_id):
        return not job_lives
    return abs(now - claim.last_indexed) >= CLAIM_LIFETIME


def record_of(complete: SharingManifest) -> ManifestRecord:
    completed = complete.completed
    return ManifestRecord(
        manifest_id=completed.manifest_id,
        repository_id=completed.repository_id,
        namespace=completed.namespace,
        repository=completed.repository,
        digest=completed.digest,
        media_type=complete.media_type,
        manifest_bytes=complete.manifest_bytes,
        proxied=True,
    )


def build_sweeper(process: Process) -> Sweeper:
    settings = process.settings
    build_database(settings)
    redis = build_redis(settings, hurry=lambda: process.stop.requested)
    return Sweeper(
        redis=redis,
        queue=build_queue(settings, redis),
        items=build_blob_queue(settings),
        unscannable=Unscannable(redis, settings.rescan.queue_name),
        decide_policy=build_policy(settings),
        timeout=settings.rescan.job_timeout,
    )


def work(process: Process) -> None:
    sweeper, reporter = build_sweeper(process), build_reporter(process.settings)
    log.info("worker ready", interval=process.settings.rescan.sweep_interval)
    while not process.stop.requested:
        sweep_once(sweeper, process, reporter)
        if process.burst or process.stop.wait(process.settings.rescan.sweep_interval):
            return


def sweep_once(sweeper: Sweeper, process: Process, reporter: Reporter) -> None:
    """One sweep; what it can't reach now it finds in the next."""
    try:
        with connection():
            swept = sweeper.sweep(lambda: process.stop.requested)
    except (DataError, RedisError) as error:
        log.error("sweep cut short", error=str(error))
        return
    if swept is None:
        log.debug("another sweeper is at it")
    else:
        log.info("swept", **swept.as_dict())
        if not process.stop.requested:  # else it may have been cut short
            reporter.swept(stuck=swept.stuck, enqueued=swept.enqueued)


def main() -> int:
    return run_worker(WorkerType.SWEEP, "Finds stuck manifests in the database.", work)


if __name__ == "__main__":
    sys.exit(main())
