"""Keeps an item of Quay's queue reserved for as long as somebody works on it, and no longer.

The reservation is short and renewed, so that the item of a worker that died is another's within
half a minute; Quay's own is 20 minutes long and isn't.
"""

from __future__ import annotations

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
    """An item in hand, reserved until `end`. `item` changes while it is renewed."""

    def __init__(self, items: WorkQueue, item: WorkItem) -> None:
        self.items = items
        self.item = item
        self._renewal = RENEWALS.begin(self.renew)

    def end(self) -> None:
        """Renews it no more; whoever settles the item does this first.

        A renewal would change the state_id under their hands.
        """
        RENEWALS.end(self._renewal)

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
