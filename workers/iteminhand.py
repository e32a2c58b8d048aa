"""An item of the blob queue in the hands of a worker, from its claim to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

import structlog
from redis.exceptions import RedisError

from data.blob_records import BlobRecord
from data.errors import DatabaseUnavailable, DataError
from data.placement import StoredBlob
from data.proxycache import ProxiedRepository
from queues.blobwork import BlobWork
from queues.errors import QueueError
from queues.workqueue import WorkItem, WorkQueue
from workers.reservations import Reservation

log = structlog.get_logger()

T = TypeVar("T")


class ItemInHand:
    """What is known of the item so far, and what is held for it.

    It goes from the thread that claims to one that downloads and on to the one that settles, and is
    of one of them at a time.
    """

    def __init__(self, items: WorkQueue, item: WorkItem) -> None:
        self.work: BlobWork | None = None
        self.repository: ProxiedRepository | None = None  # None: gone, or no proxy any more
        self.blobs: Sequence[BlobRecord] = ()
        self.stored: StoredBlob | None = None  # its placement is to be recorded
        self.error: Exception | None = None
        self.began = time.monotonic()
        self.ended: Future[None] = Future()  # an exception in it is one that nobody foresaw
        self.reservation = Reservation(items, item)

    @property
    def item(self) -> WorkItem:
        """As it was last renewed."""
        return self.reservation.item

    @contextmanager
    def attempting(self) -> Iterator[None]:
        """Keeps an error of the block as the item's own.

        Also one that nobody foresaw: it must not end the downloads of others.
        """
        try:
            yield
        except (DataError, QueueError, RedisError) as error:
            self.error = error
        except Exception as error:
            log.exception("blob item failed unexpectedly", item=self.item.queue_name)
            self.error = error


def without_error(hands: Iterable[ItemInHand]) -> list[ItemInHand]:
    return [each for each in hands if each.error is None]


def together(hands: Sequence[ItemInHand], do: Callable[[Sequence[ItemInHand]], list[T]]) -> list[T]:
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
