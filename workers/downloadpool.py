"""The threads of the blob worker: some that download, and one that settles what they downloaded.

While one group of items is settled the next blobs come in, and they are the next group: the busier
the worker, the more blobs share a transaction. Nothing waits for a group to fill.

Items are claimed ahead of their downloads as long as these are quick, for a claim takes longer than
a small blob does. Once they are slow, what waits is given back: another worker may be idle.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue
from types import TracebackType

from data.completion import CompletedManifest
from workers.iteminhand import ItemInHand

# Items that were begun and have not ended, for each download: more would wait for the database.
UNSETTLED = 8
# So many are settled together at most, so that the next need not wait for long.
SETTLED_TOGETHER = 16
# How long room for one waits for more: claiming several costs what claiming one does.
GATHER_SECONDS = 0.005
# A download that takes longer isn't quick.
QUICK_SECONDS = 0.1
# What completes more manifests than this, or lacks a config, must not keep others from their turn.
QUICKLY_FINISHED = 20

Download = Callable[[ItemInHand], None]
Place = Callable[[Sequence[ItemInHand]], Sequence[CompletedManifest]]
Finish = Callable[[Sequence[ItemInHand], Sequence[CompletedManifest]], None]


class DownloadPool:
    """Takes each item through `download`, `place` and `finish`, the last two several at once.

    As a context it ends once all items have ended. For one thread, the one that claims.
    """

    def __init__(self, downloads: int, *, download: Download, place: Place, finish: Finish) -> None:
        self.downloads = downloads
        self.download = download
        self.place = place
        self.finish = finish
        self.hands: list[ItemInHand] = []  # those that had not ended when last looked at
        self._waiting: dict[ItemInHand, Future[None]] = {}
        self._running: dict[ItemInHand, float] = {}  # since when
        self._begun = 0  # and not ended
        self._last_took = math.inf  # seconds
        self._awaited = 1  # room that somebody waits for
        self._changed = threading.Condition()  # guards these five
        self._downloaded: SimpleQueue[ItemInHand | None] = SimpleQueue()
        self._threads = ThreadPoolExecutor(downloads, thread_name_prefix="download")
        self._settling = threading.Thread(target=self._settle_all, name="settle", daemon=True)

    def __enter__(self) -> DownloadPool:
        self._settling.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        wait([each.ended for each in self.hands])
        self._threads.shutdown()
        self._downloaded.put(None)
        self._settling.join()
        if error is None:
            self.forget_ended()

    def wait_for_room(self, seconds: float) -> int:
        """How many items may be begun; 0 when for so long there was no room for one."""
        with self._changed:
            if self._wait_for_room(1, seconds):
                half = self.downloads if self._is_quick() else self.downloads // 2
                self._wait_for_room(half, GATHER_SECONDS)
            return max(0, self._room())

    def _wait_for_room(self, count: int, seconds: float) -> bool:
        self._awaited = count
        return self._changed.wait_for(lambda: self._room() >= count, seconds)

    def _tell_of_room(self) -> None:
        """Wakes who waits, if there is what they wait for: waking costs all threads time."""
        if self._room() >= self._awaited:
            self._changed.notify()

    def begin(self, hands: Sequence[ItemInHand]) -> None:
        """Begins the downloads, or has them wait for the next that ends: no more than have room."""
        self.hands += hands
        with self._changed:
            self._begun += len(hands)
            for each in hands:
                each.ended.add_done_callback(self._tell_ended)
                self._waiting[each] = self._threads.submit(self._download, each)

    def take_back(self, *, also_quick: bool = False) -> list[ItemInHand]:
        """The items whose download has not begun and can't soon; it will not begin any more."""
        with self._changed:
            if self._is_quick() and not also_quick:
                return []
            taken = [each for each, future in self._waiting.items() if future.cancel()]
            for each in taken:
                del self._waiting[each]
        return taken

    def _room(self) -> int:
        most = 2 * self.downloads if self._is_quick() else self.downloads
        unsettled = UNSETTLED * self.downloads - self._begun
        return min(most - len(self._waiting) - len(self._running), unsettled)

    def _is_quick(self) -> bool:
        longest_ago = time.monotonic() - QUICK_SECONDS
        return self._last_took < QUICK_SECONDS and all(
            since > longest_ago for since in self._running.values()
        )

    def forget_ended(self) -> None:
        """Looks which items have ended; raises what nobody foresaw, for the process to end by."""
        ended = [each for each in self.hands if each.ended.done()]
        self.hands = [each for each in self.hands if each not in ended]
        for each in ended:
            each.ended.result()

    def _tell_ended(self, ended: Future[None]) -> None:
        del ended
        with self._changed:
            self._begun -= 1
            self._tell_of_room()

    def _download(self, hand: ItemInHand) -> None:
        began = time.monotonic()
        with self._changed:
            del self._waiting[hand]
            self._running[hand] = began
        try:
            self.download(hand)
        except BaseException as error:  # noqa: BLE001
            hand.ended.set_exception(error)
        else:
            self._downloaded.put(hand)
        finally:
            with self._changed:
                del self._running[hand]
                self._last_took = time.monotonic() - began
                self._tell_of_room()

    def _settle_all(self) -> None:
        for hands in self._groups():
            try:
                complete = self.place(hands)
                if is_quick(complete):
                    self.finish(hands, complete)
                else:
                    self._threads.submit(self._finish, hands, complete)
            except BaseException as error:  # noqa: BLE001
                end_with(hands, error)

    def _finish(self, hands: Sequence[ItemInHand], complete: Sequence[CompletedManifest]) -> None:
        try:
            self.finish(hands, complete)
        except BaseException as error:  # noqa: BLE001
            end_with(hands, error)

    def _groups(self) -> Iterator[list[ItemInHand]]:
        """What was downloaded since the last group; waits for at least one, until there is None."""
        while (hand := self._downloaded.get()) is not None:
            group = [hand]
            while len(group) < SETTLED_TOGETHER:
                try:
                    more = self._downloaded.get_nowait()
                except Empty:
                    break
                if more is None:  # the end, of which the next look is to hear
                    self._downloaded.put(None)
                    break
                group.append(more)
            yield group


def is_quick(complete: Sequence[CompletedManifest]) -> bool:
    """Whether finishing takes no longer than settling does: nothing is fetched, little enqueued."""
    return len(complete) <= QUICKLY_FINISHED and not any(each.missing_config for each in complete)


def end_with(hands: Sequence[ItemInHand], error: BaseException) -> None:
    for each in hands:
        if not each.ended.done():
            each.ended.set_exception(error)
