"""Quay's own work queue, the table `queueitem`, beside Quay's own workers.

A claim is a conditional UPDATE that counts its rows: an item's `state_id` is new after every
change, so of two workers that read the same item one changes it and the other changes nothing.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from peewee import Case

from data.database import statement
from data.models import QueueItem, new_uuid, utcnow
from data.statements import Statement, StatementOfMany

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
    """An item as read; once claimed, ours until `state_id` changes or the reservation ends."""

    id: int
    queue_name: str
    body: str
    state_id: str
    retries_remaining: int  # once claimed, after the one that the claim took


COLUMNS = tuple(each.name for each in fields(WorkItem))


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """The items whose name begins with `name`/ (PROXY_CACHE_BLOB_QUEUE_NAME, for instance)."""

    name: str
    # Read for an earlier claim and not tried yet. Whatever changes an item changes its state_id, so
    # one that is still as it was read is still available.
    remembered: deque[WorkItem] = field(default_factory=deque, compare=False, repr=False)

    def claim(self, reservation_seconds: int = RESERVATION_SECONDS) -> WorkItem | None:
        """Takes one available item, oldest first; None when there is none."""
        return next(iter(self.claim_many(1, reservation_seconds)), None)

    def claim_many(
        self, count: int, reservation_seconds: int = RESERVATION_SECONDS
    ) -> list[WorkItem]:
        """Takes up to `count` available items, oldest first; none only when there is none."""
        items = self.take_remembered(count, reservation_seconds)
        if items:
            return items
        candidates = deque(self.available_items())
        while candidates and not items:
            items = take(take_first(candidates, count), reservation_seconds)
        self.remembered.extend(candidates)
        return items

    def take_remembered(self, count: int, reservation_seconds: int) -> list[WorkItem]:
        """Takes the next items that were read before, so that not every claim reads them all anew.

        Where somebody else took one meanwhile, they take the others too: all are forgotten.
        """
        candidates = take_first(self.remembered, count)
        items = take(candidates, reservation_seconds)
        if len(items) < len(candidates):
            self.remembered.clear()
        return items

    def available_items(self) -> list[WorkItem]:
        now = utcnow()
        rows = available_items_of(self.name).rows(now, now)
        return [WorkItem(**dict(zip(COLUMNS, row, strict=True))) for row in rows]

    def extend(self, item: WorkItem, seconds: int = RESERVATION_SECONDS) -> WorkItem | None:
        """Reserves the item for longer; None when it isn't ours any more."""
        state_id = new_uuid()
        expires = utcnow() + timedelta(seconds=seconds)
        if not update_item(item, state_id=state_id, processing_expires=expires):
            return None
        return replace(item, state_id=state_id)

    def complete(self, item: WorkItem) -> None:
        """Deletes a finished item, if it is still ours."""
        self.complete_many([item])

    def complete_many(self, items: Sequence[WorkItem]) -> None:
        """Deletes finished items, as far as they are still ours."""
        if items:
            statement(lambda: DELETE_ITEMS.run([(item.id, item.state_id) for item in items]))

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


def take_first(candidates: deque[WorkItem], count: int) -> list[WorkItem]:
    return [candidates.popleft() for _ in range(min(count, len(candidates)))]


def take(candidates: Sequence[WorkItem], reservation_seconds: int) -> list[WorkItem]:
    """Those of the candidates that nobody else took meanwhile; one statement, or two if one did."""
    if not candidates:
        return []
    changes = [(each.id, each.state_id, new_uuid()) for each in candidates]
    expires = utcnow() + timedelta(seconds=reservation_seconds)
    changed = statement(lambda: TAKE_ITEMS.run(changes, expires)).rowcount
    states = [(state_id,) for _, _, state_id in changes]
    ours = states if changed == len(states) else ITEMS_IN_STATE.rows(states) if changed else []
    return [
        replace(candidate, state_id=state, retries_remaining=candidate.retries_remaining - 1)
        for candidate, (_, _, state) in zip(candidates, changes, strict=True)
        if (state,) in ours
    ]


def build_take(ids: Sequence[Any], old: Sequence[Any], new: Sequence[Any], expires: Any) -> Any:
    """Each item by its id and its state, which is unique: no other can match one of either."""
    return QueueItem.update(
        available=False,
        processing_expires=expires,
        retries_remaining=QueueItem.retries_remaining - 1,
        state_id=Case(QueueItem.id, list(zip(ids, new, strict=True))),
    ).where(QueueItem.id.in_(ids) & QueueItem.state_id.in_(old))


def build_delete(ids: Sequence[Any], states: Sequence[Any]) -> Any:
    delete = QueueItem.delete()  # type: ignore[misc]
    return delete.where(QueueItem.id.in_(ids) & QueueItem.state_id.in_(states))


@cache
def available_items_of(name: str) -> Statement:
    """The first items of the queue that are due (first value) or whose worker died (second)."""
    columns = [getattr(QueueItem, column) for column in COLUMNS]
    return Statement(
        lambda due, expired: (
            QueueItem.select(*columns)
            .where(
                QueueItem.queue_name.startswith(f"{name}/")
                & (QueueItem.available_after <= due)
                & (QueueItem.available | (QueueItem.processing_expires <= expired))
                & (QueueItem.retries_remaining > 0)
            )
            .order_by(QueueItem.id)
            .limit(CANDIDATES)
        )
    )


TAKE_ITEMS = StatementOfMany(build_take, columns=3)
DELETE_ITEMS = StatementOfMany(build_delete, columns=2)
ITEMS_IN_STATE = StatementOfMany(
    lambda states: QueueItem.select(QueueItem.state_id).where(QueueItem.state_id.in_(states))
)


def update_item(item: WorkItem, **changes: Any) -> bool:
    ours = (QueueItem.id == item.id) & (QueueItem.state_id == item.state_id)
    return bool(QueueItem.update(**changes).where(ours).execute() == 1)


def due_in(seconds: float) -> datetime:
    """In whole seconds, as MySQL and MariaDB keep it: MySQL would round half a second up."""
    return (utcnow() + timedelta(seconds=seconds)).replace(microsecond=0)
