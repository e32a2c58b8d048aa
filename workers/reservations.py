"""Keeps an item of Quay's queue reserved for as long as somebody works on it, and no longer.

The reservation is short and renewed, so that the item of a worker that died is another's within
half a minute; Quay's own is 20 minutes long and isn't.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import structlog

from data.database import connection
from data.errors import DataError
from queues.workqueue import RESERVATION_SECONDS, WorkItem, WorkQueue

log = structlog.get_logger()

# Three renewals may fail before the item is anybody's.
RENEWAL_SECONDS = RESERVATION_SECONDS / 4


class Reservation:
    """Renews the reservation of `item` while a block runs. Afterwards `item` may be settled."""

    def __init__(self, items: WorkQueue, item: WorkItem) -> None:
        self.items = items
        self.item = item
        self.ended = threading.Event()
        self.renewal = threading.Thread(target=self.renew, name="reservation", daemon=True)

    def __enter__(self) -> Self:
        self.renewal.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A renewal under way would change the state_id under the hands of whoever settles the item.
        self.ended.set()
        self.renewal.join()

    def renew(self) -> None:
        while not self.ended.wait(RENEWAL_SECONDS):
            try:
                with connection():
                    renewed = self.items.extend(self.item)
            except DataError as error:
                log.warning("reservation not renewed", item=self.item.queue_name, error=str(error))
                continue
            if renewed is None:
                log.warning("item was taken by another worker", item=self.item.queue_name)
                return
            self.item = renewed
