"""Settles the items whose blobs are there: placements, rescans, and the end of the items.

Whatever was downloaded meanwhile is settled together: one transaction, one completion check and one
DELETE, whose cost is far above that of a small blob's bytes. Where that fails for a reason of one
item's, each is settled alone, so that none suffers for another.

Next: data/completion.py
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from data.blob_records import NewPlacement, record_placements
from data.completion import CompletedManifest, find_manifests_completed_by
from data.errors import DatabaseUnavailable
from data.faultpoints import FaultPoint, reach
from data.placement import BlobPlacer
from data.proxycache import ProxiedRepository
from data.secscan.status import Reason
from queues.rescanqueue import Enqueued, RescanQueue
from queues.workqueue import MAX_RETRIES, WorkQueue
from workers.failures import Action, decide
from workers.iteminhand import ItemInHand
from workers.reporter import Reporter

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSettlement:
    """Settles items; for one thread at a time."""

    items: WorkQueue
    placer: BlobPlacer
    rescans: RescanQueue
    reporter: Reporter
    job_timeout: int  # seconds

    def place(self, hands: Sequence[ItemInHand]) -> list[CompletedManifest]:
        """Records the placements, and says which manifests are complete with these blobs.

        Whoever placed a blob: an item whose blob was there already is asked for as well. Items that
        failed before are passed over; those that fail here have their error afterwards.
        """
        try:
            together(without_error(hands), self.record)
        finally:
            self.placer.release([each.stored for each in hands if each.stored is not None])
        reach(FaultPoint.BLOB_PLACED)
        recorded = without_error(hands)
        for each in recorded:
            if each.stored is not None and each.repository is not None:
                seconds = time.monotonic() - each.began
                self.tell_placed(each.repository, each.stored.placement, seconds)
        return together(recorded, self.find_complete)

    def record(self, hands: Sequence[ItemInHand]) -> list[CompletedManifest]:
        record_placements([each.stored.placement for each in hands if each.stored is not None])
        return []

    def find_complete(self, hands: Sequence[ItemInHand]) -> list[CompletedManifest]:
        return find_manifests_completed_by(*(each.work.digest for each in hands if each.work))

    def tell_placed(
        self, repository: ProxiedRepository, placement: NewPlacement, seconds: float
    ) -> None:
        log.info(
            "blob placed",
            digest=placement.digest,
            repository=f"{repository.namespace}/{repository.name}",
            bytes=placement.size,
            seconds=round(seconds, 3),
        )
        self.reporter.blob_placed(repository.namespace, placement.size)

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
            names = [each.item.queue_name for each in hands]
            log.warning("items left to their reservation", items=names, error=str(error))
        for each in hands:
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


def without_error(hands: Iterable[ItemInHand]) -> list[ItemInHand]:
    return [each for each in hands if each.error is None]


def together(
    hands: Sequence[ItemInHand],
    do: Callable[[Sequence[ItemInHand]], list[CompletedManifest]],
) -> list[CompletedManifest]:
    """What `do` finds for all of the items, or for each alone when it fails for one of them.

    An item for which it fails has the error; a server that is away is the trouble of them all.
    """
    try:
        return do(hands)
    except DatabaseUnavailable as error:
        fail(hands, error)
    except Exception as error:  # noqa: BLE001
        if len(hands) > 1:
            return [found for each in hands for found in together([each], do)]
        fail(hands, error)
    return []


def fail(hands: Iterable[ItemInHand], error: Exception) -> None:
    """Makes it the error of those that have none yet."""
    for each in hands:
        if each.error is None:
            with each.attempting():
                raise error
