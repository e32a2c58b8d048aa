"""A signal is noted at once and acted on only where nothing can be lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from workers.demo.interruption import SIGNALS, Interruption


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    interruption = Interruption()
    interruption.listen()
    yield interruption
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_waits_for_the_next_check(
    interruption: Interruption, signum: signal.Signals
) -> None:
    interruption.check()
    os.kill(os.getpid(), signum)
    assert interruption.requested
    with pytest.raises(KeyboardInterrupt):
        interruption.check()


def test_at_once_means_at_any_point_but_only_once(interruption: Interruption) -> None:
    with pytest.raises(KeyboardInterrupt), interruption.at_once():
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)  # during the clean-up: nothing happens


def test_what_came_before_is_not_forgotten_by_at_once(interruption: Interruption) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruption.at_once():
        pytest.fail("went on")


def test_after_the_end_nothing_is_heard(interruption: Interruption) -> None:
    interruption.stop_listening()
    os.kill(os.getpid(), signal.SIGINT)
    assert not interruption.requested
