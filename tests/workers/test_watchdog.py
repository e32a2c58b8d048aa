"""A run under watch, on a real Valkey: its heart beats while it lasts, and not after it."""

from __future__ import annotations

import threading

import pytest
from redis import Redis
from rq.executions import Execution

from data.secscan.status import Reason
from queues.rescanqueue import RescanQueue
from queues.rescanruns import RescanRuns, Taken
from workers import watchdog
from workers.watchdog import Watchdog

PATIENCE_SECONDS = 30


@pytest.fixture
def runs(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> RescanRuns:
    monkeypatch.setattr(watchdog, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.01)
    return RescanRuns(RescanQueue("rescan", redis))


def take(runs: RescanRuns, manifest_id: int) -> Execution:
    runs.queue.enqueue_rescan(manifest_id, Reason.EVENT, timeout=660)
    taken = runs.take("worker", "no-circuit")
    assert isinstance(taken, Taken)
    assert taken.run is not None
    return taken.run


def test_hearts_of_one_run_after_the_other_beat_while_they_last(runs: RescanRuns) -> None:
    beaten = threading.Event()
    dog = Watchdog(runs, beaten.set)
    for manifest_id in (1, 2):
        run = take(runs, manifest_id)
        runs.let_go(run)  # only a beat moves it on from here
        with dog.watch(run, 660):
            beaten.clear()
            assert beaten.wait(PATIENCE_SECONDS)
            assert float(runs.queue.connection.zscore(runs.key, run.composite_key) or 0) > 0
    assert len([each for each in threading.enumerate() if each is dog.thread]) == 1


def test_no_beat_after_the_end_of_a_run(runs: RescanRuns) -> None:
    """Whoever ends it next must find it as it was left."""
    began, may_end, beats = threading.Event(), threading.Event(), []

    def show_life() -> None:
        began.set()
        may_end.wait(PATIENCE_SECONDS)
        beats.append(left.is_set())

    left = threading.Event()
    with Watchdog(runs, show_life).watch(take(runs, 1), 660):
        assert began.wait(PATIENCE_SECONDS)
        threading.Timer(0.05, may_end.set).start()
    left.set()
    assert beats
    assert not any(beats)
