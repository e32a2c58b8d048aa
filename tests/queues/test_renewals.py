"""Renewals of what is held: in time, for as long as it is held, and never after."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from queues.renewals import Renewals
from tests.servers import wait_until

SECONDS = 0.01


class Counter:
    """Something to renew; it says `again` each time."""

    def __init__(self, again: bool = True) -> None:
        self.again = again
        self.count = 0
        self.renewed_by: set[int] = set()

    def renew(self) -> bool:
        self.renewed_by.add(threading.get_ident())
        self.count += 1
        return self.again

    def reaches(self, count: int) -> Callable[[], bool]:
        return lambda: self.count >= count


@contextmanager
def renewing(renewals: Renewals, counter: Counter) -> Iterator[None]:
    held = renewals.begin(counter.renew)
    yield
    renewals.end(held)


def test_everything_that_is_held_is_renewed_by_one_thread() -> None:
    renewals = Renewals(SECONDS)
    first, second = Counter(), Counter()
    with renewing(renewals, first), renewing(renewals, second):
        wait_until(first.reaches(3), 20, "the first is renewed three times")
        wait_until(second.reaches(3), 20, "so is the second")
        assert first.renewed_by == second.renewed_by
        assert len(first.renewed_by) == 1


def test_what_is_held_no_more_is_not_renewed() -> None:
    renewals = Renewals(SECONDS)
    ended, held = Counter(), Counter()
    with renewing(renewals, held):
        with renewing(renewals, ended):
            wait_until(ended.reaches(1), 20, "it is renewed")
        count, seen = ended.count, held.count
        wait_until(held.reaches(seen + 3), 20, "the other is renewed three more times")
        assert ended.count == count


def test_end_waits_for_a_renewal_under_way() -> None:
    """It would change what whoever leaves goes on to use."""
    began, may_end, left = threading.Event(), threading.Event(), threading.Event()

    def renew() -> bool:
        began.set()
        return may_end.wait(20)

    def hold() -> None:
        renewals = Renewals(SECONDS)
        held = renewals.begin(renew)
        began.wait(20)
        renewals.end(held)
        left.set()

    holder = threading.Thread(target=hold)
    holder.start()
    assert began.wait(20)
    assert not left.wait(0.1)
    may_end.set()
    assert left.wait(20)
    holder.join(20)


def test_what_was_lost_is_left_alone_and_the_rest_is_renewed_on() -> None:
    renewals = Renewals(SECONDS)
    lost, held = Counter(again=False), Counter()
    with renewing(renewals, lost), renewing(renewals, held):
        wait_until(held.reaches(3), 20, "what is still held is renewed")
        assert lost.count == 1


def test_thread_ends_when_nothing_is_held_and_begins_again() -> None:
    renewals = Renewals(SECONDS)
    for _ in range(2):
        again = Counter()
        with renewing(renewals, again):
            wait_until(again.reaches(1), 20, "it is renewed")
            thread = renewals.thread
        assert thread is not None
        thread.join(20)
        assert not thread.is_alive()
