"""The blob worker's threads: who does what, several at a time, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait

import pytest

from data.completion import CompletedManifest
from queues.workqueue import WorkQueue
from tests.servers import wait_until
from workers import downloadpool
from workers.downloadpool import (
    QUICKLY_FINISHED,
    SETTLED_TOGETHER,
    UNSETTLED,
    DownloadPool,
)
from workers.iteminhand import ItemInHand

PATIENCE = 20


class Work:
    """What a pool is to do with items, told step by step; each step can be held back."""

    def __init__(self) -> None:
        self.groups: list[list[ItemInHand]] = []
        self.complete: list[CompletedManifest] = []
        self.finished_by: list[str] = []
        self.may_download = threading.Event()
        self.may_place = threading.Event()
        self.may_finish = threading.Event()
        self.places = threading.Event()
        self.begun = threading.Semaphore(0)
        self.error: Exception | None = None
        for event in (self.may_download, self.may_place, self.may_finish):
            event.set()

    def download(self, hand: ItemInHand) -> None:
        del hand
        self.begun.release()
        assert self.may_download.wait(PATIENCE)

    def place(self, hands: Sequence[ItemInHand]) -> Sequence[CompletedManifest]:
        self.groups.append(list(hands))
        self.places.set()
        assert self.may_place.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return self.complete

    def finish(self, hands: Sequence[ItemInHand], complete: Sequence[CompletedManifest]) -> None:
        self.finished_by.append(threading.current_thread().name)
        if complete:
            assert self.may_finish.wait(PATIENCE)
        for each in hands:
            each.reservation.end()
            each.ended.set_result(None)

    def pool(self, downloads: int) -> DownloadPool:
        return DownloadPool(downloads, download=self.download, place=self.place, finish=self.finish)


@pytest.fixture(autouse=True)
def nothing_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that how busy the machine is decides nothing; some tests say that everything is quick."""
    monkeypatch.setattr(downloadpool, "QUICK_SECONDS", 0.0)


def make_all_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloadpool, "QUICK_SECONDS", 3600.0)


@pytest.fixture
def hold(sqlite_database: str) -> Callable[[int], list[ItemInHand]]:
    """Claims so many items."""
    del sqlite_database
    items = WorkQueue("proxycacheblob")

    def claim(count: int) -> list[ItemInHand]:
        for _ in range(count):
            items.put(["proxy"], {}, available_after=0)
        held = [items.claim() for _ in range(count)]
        return [ItemInHand(items, each) for each in held if each is not None]

    return claim


def manifest(number: int, missing_config: str | None = None) -> CompletedManifest:
    return CompletedManifest(
        manifest_id=number,
        repository_id=1,
        namespace="proxy",
        repository="app",
        digest=f"sha256:{number}",
        missing_config=missing_config,
    )


def ended(hands: Sequence[ItemInHand]) -> bool:
    return not wait([each.ended for each in hands], PATIENCE).not_done


def test_what_is_downloaded_while_a_group_is_settled_is_the_next_group(
    hold: Callable[[int], list[ItemInHand]],
) -> None:
    work, hands = Work(), hold(6)
    work.may_place.clear()
    with work.pool(8) as pool:
        pool.begin(hands[:1])
        assert work.places.wait(PATIENCE)
        pool.begin(hands[1:])
        wait_until(lambda: pool.wait_for_room(0) == 8, PATIENCE, "all are downloaded")
        work.may_place.set()
        assert ended(hands)
    assert [len(group) for group in work.groups] == [1, 5]
    assert {id(each) for each in work.groups[1]} == {id(each) for each in hands[1:]}


def test_group_has_an_end(hold: Callable[[int], list[ItemInHand]]) -> None:
    work, hands = Work(), hold(SETTLED_TOGETHER + 3)
    work.may_place.clear()
    with work.pool(len(hands)) as pool:
        pool.begin(hands[:1])
        assert work.places.wait(PATIENCE)
        pool.begin(hands[1:])
        wait_until(lambda: pool.wait_for_room(0) == len(hands), PATIENCE, "all are downloaded")
        work.may_place.set()
        assert ended(hands)
    assert [len(group) for group in work.groups] == [1, SETTLED_TOGETHER, 2]


def test_there_is_room_for_so_many_downloads_and_no_more(
    hold: Callable[[int], list[ItemInHand]],
) -> None:
    work, hands = Work(), hold(2)
    work.may_download.clear()
    with work.pool(2) as pool:
        assert pool.wait_for_room(0) == 2
        pool.begin(hands[:1])
        assert pool.wait_for_room(0) == 1
        pool.begin(hands[1:])
        assert pool.wait_for_room(0.01) == 0
        work.may_download.set()
        assert pool.wait_for_room(PATIENCE) > 0


def test_one_that_is_free_waits_a_moment_for_another(
    hold: Callable[[int], list[ItemInHand]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claiming two costs what claiming one does; but a moment isn't for ever."""
    monkeypatch.setattr(downloadpool, "GATHER_SECONDS", PATIENCE)
    work, hands = Work(), hold(4)
    slots = threading.Semaphore(0)
    room: list[int] = []
    pool = DownloadPool(
        4,
        download=lambda _: assert_true(slots.acquire(timeout=PATIENCE)),
        place=work.place,
        finish=work.finish,
    )
    with pool:
        pool.begin(hands)
        waiting = threading.Thread(target=lambda: room.append(pool.wait_for_room(PATIENCE)))
        waiting.start()
        slots.release()
        assert work.places.wait(PATIENCE)
        waiting.join(0.05)
        assert room == []
        slots.release()
        waiting.join(PATIENCE)
        assert room == [2]
        monkeypatch.setattr(downloadpool, "GATHER_SECONDS", 0.001)
        pool.begin(hold(1))
        assert pool.wait_for_room(PATIENCE) == 1
        slots.release(3)


def assert_true(value: bool) -> None:
    assert value


def test_items_are_claimed_ahead_of_quick_downloads(
    hold: Callable[[int], list[ItemInHand]], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_all_quick(monkeypatch)
    work, hands = Work(), hold(5)
    with work.pool(2) as pool:
        assert pool.wait_for_room(0) == 2, "nobody knows yet how quick they are"
        pool.begin(hands[:1])
        assert ended(hands[:1])
        wait_until(lambda: pool.wait_for_room(0) == 4, PATIENCE, "it was quick")
        work.may_download.clear()
        pool.begin(hands[1:])
        assert pool.wait_for_room(0.01) == 0
        work.may_download.set()
        assert ended(hands)


def test_what_waits_behind_slow_downloads_is_taken_back(
    hold: Callable[[int], list[ItemInHand]], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_all_quick(monkeypatch)
    work, hands = Work(), hold(3)
    with work.pool(1) as pool:
        pool.begin(hands[:1])
        assert ended(hands[:1])
        work.may_download.clear()
        pool.begin(hands[1:])
        assert work.begun.acquire(timeout=PATIENCE)
        assert work.begun.acquire(timeout=PATIENCE), "one of the two is being downloaded"
        assert pool.take_back() == [], "it will be the other's turn in a moment"
        monkeypatch.setattr(downloadpool, "QUICK_SECONDS", 0.0)
        assert pool.take_back() == [hands[2]]
        assert pool.take_back() == []
        work.finish([hands[2]], [])
        work.may_download.set()
        assert ended(hands)
    assert not work.begun.acquire(blocking=False), "what was taken back is never begun"


def test_at_the_end_everything_that_waits_is_taken_back(
    hold: Callable[[int], list[ItemInHand]], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_all_quick(monkeypatch)
    work, hands = Work(), hold(2)
    work.may_download.clear()
    with work.pool(1) as pool:
        pool.begin(hands)
        assert work.begun.acquire(timeout=PATIENCE)
        assert pool.take_back(also_quick=True) == [hands[1]]
        work.finish([hands[1]], [])
        work.may_download.set()
    assert all(each.ended.done() for each in hands)


def test_what_a_thread_has_just_taken_is_not_taken_back(
    hold: Callable[[int], list[ItemInHand]],
) -> None:
    """The race, forced: the thread has the item and stands before the lock."""
    work, (hand,) = Work(), hold(1)
    with work.pool(1) as pool:
        with pool._changed:
            pool.begin([hand])
            wait_until(pool._waiting[hand].running, PATIENCE, "a thread has taken the item")
            assert pool.take_back(also_quick=True) == []
        assert ended([hand])
    assert work.groups == [[hand]]


def test_nothing_is_begun_while_too_many_wait_for_the_database(
    hold: Callable[[int], list[ItemInHand]],
) -> None:
    work, hands = Work(), hold(UNSETTLED)
    work.may_place.clear()
    with work.pool(1) as pool:
        for each in hands:
            assert pool.wait_for_room(PATIENCE) == 1
            pool.begin([each])
        assert pool.wait_for_room(0.01) == 0
        waiting = threading.Thread(target=pool.wait_for_room, args=[threading.TIMEOUT_MAX])
        waiting.start()
        work.may_place.set()
        waiting.join(PATIENCE)
        assert not waiting.is_alive(), "it heard of the first that ended"
        assert ended(hands)
        assert pool.wait_for_room(PATIENCE) == 1
    assert pool.hands == []


@pytest.mark.parametrize(
    "complete",
    [[manifest(n) for n in range(QUICKLY_FINISHED + 1)], [manifest(1, "sha256:config")]],
    ids=["many", "config"],
)
def test_what_takes_its_time_keeps_no_other_item(
    hold: Callable[[int], list[ItemInHand]], complete: list[CompletedManifest]
) -> None:
    work, (slow, other) = Work(), hold(2)
    work.complete = complete
    work.may_finish.clear()
    with work.pool(2) as pool:
        pool.begin([slow])
        wait_until(lambda: bool(work.finished_by), PATIENCE, "the slow one is being finished")
        work.complete = []
        pool.begin([other])
        assert ended([other])
        assert not slow.ended.done()
        work.may_finish.set()
        assert ended([slow])
    assert work.finished_by[0].startswith("download")
    assert work.finished_by[1] == "settle"


def test_it_ends_with_the_last_item(hold: Callable[[int], list[ItemInHand]]) -> None:
    work, hands = Work(), hold(3)
    work.complete = [manifest(1, "sha256:config")]
    work.may_download.clear()
    with work.pool(1) as pool:
        pool.begin(hands)
        threading.Timer(0.05, work.may_download.set).start()
    assert all(each.ended.done() for each in hands)
    assert pool.hands == []


def test_what_nobody_foresaw_ends_the_worker(hold: Callable[[int], list[ItemInHand]]) -> None:
    """And not the thread that settles, or the items after it would wait for ever."""
    work, (first, second) = Work(), hold(2)
    work.error = ZeroDivisionError("nobody foresaw this")
    with work.pool(1) as pool:
        pool.begin([first])
        assert ended([first])
        work.error = None
        pool.begin([second])
        assert ended([second])
        assert second.ended.exception() is None
        with pytest.raises(ZeroDivisionError):
            pool.forget_ended()
