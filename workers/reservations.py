"""Keeps an item of Quay's queue reserved for as long as somebody works on it, and no longer.

The reservation is short and renewed, so that the item of a worker that died is another's within
half a minute; Quay's own is 20 minutes long and isn't.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from data.database import connection
from data.errors import DataError
from queues.renewals import Renewals
from queues.workqueue import RESERVATION_SECONDS, WorkItem, WorkQueue

log = structlog.get_logger()

# Three renewals may fail before the item is anybody's.
RENEWAL_SECONDS = RESERVATION_SECONDS / 4
RENEWALS = Renewals(RENEWAL_SECONDS)


class Reservation:
    """An item in hand. `item` changes while it is renewed, so it is settled afterwards."""

    def __init__(self, items: WorkQueue, item: WorkItem) -> None:
        self.items = items
        self.item = item

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews the reservation while the block runs.

        Not a moment longer: a renewal would change the state_id under the hands of whoever settles
        the item.
        """
        with RENEWALS.renewing(self.renew):
            yield

    def renew(self) -> bool:
        """Whether the item is to be renewed again: it isn't once another worker has it."""
        try:
            with connection():
                renewed = self.items.extend(self.item)
        except DataError as error:
            log.warning("reservation not renewed", item=self.item.queue_name, error=str(error))
            return True
        if renewed is None:
            log.warning("item was taken by another worker", item=self.item.queue_name)
            return False
        self.item = renewed
        return True
