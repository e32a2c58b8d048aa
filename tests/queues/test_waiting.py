"""What whoever waits is told by `enqueue --wait`, `status --watch` and `drain`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from rich.console import Console

from data.secscan.status import Reason
from queues.commands import waiting
from queues.commands.context import open_context
from queues.commands.waiting import look, outcome_of, view
from queues.rescanjob import RescanJob
from queues.rescanqueue import job_id_of
from tests.queues.conftest import Shell
from workers.demo import scannerfaults

ALIVE = "rq:worker:of-the-test"
PATIENCE_SECONDS = 60  # the machine may be busy with other tests


@contextmanager
def command(shell: Shell, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, to be interrupted: as of a terminal, it hears SIGINT."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "queues", *arguments, "--config", str(shell.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def in_the_background() -> Iterator[None]:
    """As in a suite that a script starts with `&`: SIGINT is ignored, in its children as well."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def words_of(shell: Shell, answers: list[waiting.Answer], states: dict[str, str]) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(view(open_context(shell.config), answers, states))
    return captured.get()


def test_live_view_tells_where_each_rescan_is(shell: Shell, complete: int, redis: Redis) -> None:
    answers = shell.json("enqueue", "--manifest-id", str(complete))
    left = {answers[0]["job_id"]: answers[0]}
    context = open_context(shell.config)
    states = look(context, left)
    assert states == {job_id_of(complete): "queued"}
    words = words_of(shell, answers, states)
    assert "proxy/library/app" in words
    assert "1 of 1 to go" in words
    assert "No rescan worker gives a sign of life" in words
    shell.quay.scanner.faults.add(scannerfaults.Busy(), times=1)
    shell.quay.run_rescan_worker()
    (state,) = look(context, left).values()
    assert state.startswith("scheduled: ")
    redis.delete(f"rq:scheduled:{shell.quay.queue.name}")
    redis.delete(f"rescan:{shell.quay.queue.name}:circuit")
    shell.run("enqueue", "--manifest-id", str(complete))
    shell.quay.run_rescan_worker()
    assert look(context, left) == {}
    assert answers[0]["outcome"] == "completed"
    assert "completed" in words_of(shell, answers, {})


def test_live_view_of_many_stays_short(shell: Shell) -> None:
    answers = [
        {"job_id": f"rescan-{n}", "repository": "[/org]/app", "outcome": "completed"}
        for n in range(50)
    ]
    words = words_of(shell, answers, {"rescan-49": "started"})
    assert len(words.splitlines()) < 20
    assert words.splitlines()[1].split() == ["rescan-49", "[/org]/app", "started"]


def test_outcome_of_a_run_that_began_before_is_not_taken_for_ours(
    shell: Shell, complete: int
) -> None:
    """The enqueue met a running job: what counts is the look after it."""
    shell.run("enqueue", "--manifest-id", str(complete))
    shell.quay.run_rescan_worker()
    context, job_id = open_context(shell.config), job_id_of(complete)
    job = RescanJob.fetch_quietly(job_id, context.redis)
    assert outcome_of(context, job_id, job) == "completed"
    context.redis.hset(context.queue.again_key, job_id, 2)
    assert outcome_of(context, job_id, job) is None


def test_wait_says_what_keeps_it_and_ends_by_itself(
    shell: Shell, complete: int, redis: Redis
) -> None:
    redis.sadd("rq:workers:rescan", ALIVE)
    redis.hset(ALIVE, "state", "idle")
    shell.run("pause")
    with command(shell, "enqueue", "--manifest-id", str(complete), "--wait") as process:
        assert process.stdout is not None
        assert "queued now" in process.stdout.readline()
        assert "Paused: no worker takes a job" in process.stdout.readline()
        shell.run("resume")
        shell.quay.run_rescan_worker()
        assert process.wait(PATIENCE_SECONDS) == 0
        assert "completed" in process.stdout.read()


def test_interrupted_wait_is_not_done(shell: Shell, complete: int, in_the_background: None) -> None:
    with command(shell, "enqueue", "--manifest-id", str(complete), "--wait") as process:
        assert process.stdout is not None
        assert "queued now" in process.stdout.readline()
        assert "No rescan worker" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 130


def test_watch_ends_well_with_ctrl_c(shell: Shell, in_the_background: None) -> None:
    with command(shell, "status", "--watch", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["queued"] == 0
        shell.quay.queue.enqueue_rescan(1, Reason.EVENT, timeout=60)
        assert any(json.loads(line)["queued"] == 1 for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 0


def test_watch_shows_the_table_and_what_keeps_all(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.run("pause")

    def interrupt(seconds: float) -> None:
        """Ctrl-C; other threads sleep as well, and meet none."""
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        threading.Event().wait(seconds)

    monkeypatch.setattr("queues.commands.look.time.sleep", interrupt)
    words = shell.run("status", "--watch").stdout
    assert "rescan-backfill" in words
    assert "Paused: no worker takes a job" in words


def test_drain_says_what_keeps_it(shell: Shell, complete: int) -> None:
    shell.run("pause")
    shell.run("enqueue", "--manifest-id", str(complete))
    words = shell.run("drain", "--timeout", "0", code=1).stdout
    assert "Paused: no worker takes a job" in words
    assert "1 job is left." in words
