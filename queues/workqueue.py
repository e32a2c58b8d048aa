"""Quay's own work queue, the table `queueitem`, beside Quay's own workers.

A claim is a conditional UPDATE that counts its rows: an item's `state_id` is new after every
change, so of two workers that read the same item one changes it and the other changes nothing.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from data.models import QueueItem, new_uuid, utcnow

# Quay's own worker reserves an item for 1200 s. Ours is renewed while somebody works on the item
# (workers/reservations.py): the item of a worker that died is another's half a minute later.
RESERVATION_SECONDS = 20
# Quay's figures: data/queue.py and the blob worker of quay/quay.
RETRY_AFTER_SECONDS = 300
MAX_RETRIES = 5
AVAILABLE_AFTER_SECONDS = 5
# Items read for one claim. Others claim the same ones, so a few more than one are looked at.
CANDIDATES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """A claimed item: ours until `state_id` changes or its reservation ends."""

    id: int
    queue_name: str
    body: str
    state_id: str
    retries_remaining: int  # after the one that this claim took


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """The items whose name begins with `name`/ (PROXY_CACHE_BLOB_QUEUE_NAME, for instance)."""

    name: str
    # Read for an earlier claim and not tried yet. Whatever changes an item changes its state_id, so
    # one that is still as it was read is still available.
    remembered: deque[QueueItem] = field(default_factory=deque, compare=False, repr=False)

    def claim(self, reservation_seconds: int = RESERVATION_SECONDS) -> WorkItem | None:
        """Takes one available item, oldest first; None when there is none."""
        item = self.take_remembered(reservation_seconds)
        if item is not None:
            return item
        candidates = iter(self.available_items())
        for candidate in candidates:
            item = take(candidate, reservation_seconds)
            if item is not None:
                self.remembered.extend(candidates)
                return item
        return None

    def take_remembered(self, reservation_seconds: int) -> WorkItem | None:
        """Takes the next item that was read before, so that not every claim reads them all anew.

        Where somebody else took it meanwhile, they take the others too: all are forgotten.
        """
        try:
            item = take(self.remembered.popleft(), reservation_seconds)
        except IndexError:
            return None
        if item is None:
            self.remembered.clear()
        return item

    def available_items(self) -> list[QueueItem]:
        now = utcnow()
        free = QueueItem.available | (QueueItem.processing_expires <= now)
        query = (
            QueueItem.select()
            .where(
                QueueItem.queue_name.startswith(f"{self.name}/")
                & (QueueItem.available_after <= now)
                & free
                & (QueueItem.retries_remaining > 0)
            )
            .order_by(QueueItem.id)
            .limit(CANDIDATES)
        )
        return list(query)

    def extend(self, item: WorkItem, seconds: int = RESERVATION_SECONDS) -> WorkItem | None:
        """Reserves the item for longer; None when it isn't ours any more."""
        state_id = new_uuid()
        expires = utcnow() + timedelta(seconds=seconds)
        if not update_item(item, state_id=state_id, processing_expires=expires):
            return None
        return renewed(item, state_id)

    def complete(self, item: WorkItem) -> None:
        """Deletes a finished item, if it is still ours."""
        delete = QueueItem.delete()  # type: ignore[misc]
        delete.where((QueueItem.id == item.id) & (QueueItem.state_id == item.state_id)).execute()

    def give_back(
        self, item: WorkItem, *, retry_after: float = RETRY_AFTER_SECONDS, restore_retry: bool
    ) -> None:
        """Makes the item available again after a while, with or without the retry it took."""
        update_item(
            item,
            state_id=new_uuid(),
            available=True,
            available_after=due_in(retry_after),
            retries_remaining=item.retries_remaining + int(restore_retry),
        )

    def put(
        self,
        path: Iterable[str],
        body: dict[str, Any],
        *,
        available_after: float = AVAILABLE_AFTER_SECONDS,
        retries: int = MAX_RETRIES,
    ) -> None:
        """Adds an item named `<name>/<path..>/`, in Quay's form."""
        QueueItem.insert(
            queue_name="/".join((self.name, *path)) + "/",
            body=json.dumps(body),
            available_after=due_in(available_after),
            available=True,
            retries_remaining=retries,
            state_id=new_uuid(),
        ).execute()

    def has_item(self, path: Iterable[str]) -> bool:
        """Whether there is an item of exactly this name, with or without a retry left."""
        name = "/".join((self.name, *path)) + "/"
        named = QueueItem.queue_name == name
        return bool(QueueItem.select(QueueItem.id).where(named).limit(1).exists())

    def has_live_item(self, path: Iterable[str]) -> bool:
        """Whether an item of exactly this name still has a retry left."""
        name = "/".join((self.name, *path)) + "/"
        live = (QueueItem.queue_name == name) & (QueueItem.retries_remaining > 0)
        return bool(QueueItem.select(QueueItem.id).where(live).limit(1).exists())


def take(candidate: QueueItem, reservation_seconds: int) -> WorkItem | None:
    state_id = new_uuid()
    changed = (
        QueueItem.update(
            available=False,
            processing_expires=utcnow() + timedelta(seconds=reservation_seconds),
            retries_remaining=QueueItem.retries_remaining - 1,
            state_id=state_id,
        )
        .where((QueueItem.id == candidate.id) & (QueueItem.state_id == candidate.state_id))
        .execute()
    )
    if changed != 1:
        return None
    return WorkItem(
        id=candidate.id,
        queue_name=candidate.queue_name,
        body=candidate.body,
        state_id=state_id,
        retries_remaining=candidate.retries_remaining - 1,
    )


def update_item(item: WorkItem, **changes: Any) -> bool:
    ours = (QueueItem.id == item.id) & (QueueItem.state_id == item.state_id)
    return bool(QueueItem.update(**changes).where(ours).execute() == 1)


def renewed(item: WorkItem, state_id: str) -> WorkItem:
    return WorkItem(
        id=item.id,
        queue_name=item.queue_name,
        body=item.body,
        state_id=state_id,
        retries_remaining=item.retries_remaining,
    )


def due_in(seconds: float) -> datetime:
    """In whole seconds, as MySQL and MariaDB keep it: MySQL would round half a second up."""
    return (utcnow() + timedelta(seconds=seconds)).replace(microsecond=0)
