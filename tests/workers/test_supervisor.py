"""The parent of worker processes: what it starts again, when, and when it gives up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data.settings import build_settings
from tests.servers import wait_until
from workers import supervisor
from workers.process import EXIT_FAILED, EXIT_WRONG_USE, ChildFailed, Process, Stop
from workers.supervisor import Child, backoff, supervise

ROOT = Path(__file__).parents[2]


@pytest.fixture
def process() -> Process:
    storage = {"default": ["LocalStorage", {"storage_path": "/nowhere"}]}
    config = {"DB_URI": "sqlite:///nowhere", "DISTRIBUTED_STORAGE_CONFIG": storage}
    settings = build_settings(config, Path("/nowhere"))
    return Process(worker=None, settings=settings, config=None, burst=False, stop=Stop())


def stop_when(process: Process, condition: Callable[[], bool]) -> threading.Thread:
    def wait_and_stop() -> None:
        wait_until(condition, 20, "the condition to stop at")
        process.stop.set()

    thread = threading.Thread(target=wait_and_stop)
    thread.start()
    return thread


def append_pid(file: Path) -> None:
    with file.open("a") as stream:
        stream.write(f"{os.getpid()}\n")


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_child_that_is_told_to_stop_as_it_is_born_stops() -> None:
    """The signal may come before the child has run at all; it is tried often, to meet that."""
    program = [sys.executable, "-m", "tests.workers.toldatbirth"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dead_child_is_started_again(process: Process, tmp_path: Path) -> None:
    file = tmp_path / "pids"

    def die(current: Process) -> None:
        append_pid(file)
        os.kill(os.getpid(), signal.SIGKILL)

    thread = stop_when(process, lambda: len(pids(file)) >= 3)
    supervise(process, [Child("child", die)])
    thread.join()
    assert len(set(pids(file))) >= 3


def test_stop_is_passed_on_and_the_work_in_hand_waited_for(
    process: Process, tmp_path: Path
) -> None:
    file = tmp_path / "pids"

    def work_on_after_the_signal(current: Process) -> None:
        append_pid(file)
        current.stop.wait()
        time.sleep(0.2)  # the work in hand
        append_pid(file)

    thread = stop_when(process, lambda: len(pids(file)) >= 1)
    supervise(process, [Child("child", work_on_after_the_signal)])
    thread.join()
    first, second = pids(file)
    assert first == second


def test_child_that_cannot_be_kept_alive_ends_the_parent_with_a_failure(
    process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MOST_DEATHS", 3)
    file = tmp_path / "pids"

    def fail(current: Process) -> None:
        append_pid(file)
        raise RuntimeError("broken")

    with pytest.raises(ChildFailed, match="child can't be kept alive") as failed:
        supervise(process, [Child("child", fail), Child("other", lambda p: p.stop.wait() and None)])
    assert failed.value.code == EXIT_FAILED
    assert len(pids(file)) == 3


def test_wrong_configuration_is_not_tried_again(process: Process) -> None:
    def refuse(current: Process) -> None:
        os._exit(EXIT_WRONG_USE)

    with pytest.raises(ChildFailed) as failed:
        supervise(process, [Child("child", refuse)])
    assert failed.value.code == EXIT_WRONG_USE


def test_waits_double_from_death_to_death_and_end_at_15_seconds() -> None:
    assert [backoff(deaths) for deaths in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert backoff(50) == 15
