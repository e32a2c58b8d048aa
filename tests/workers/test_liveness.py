"""The probe of a worker without a port: is its main loop still going round?"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.servers import wait_until
from workers.liveness import LONGEST_SILENCE_SECONDS, alive_file, main
from workers.process import Stop


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_loop_that_goes_round_is_alive() -> None:
    Stop(alive_file=alive_file("sweepworker")).wait(0)
    assert main(["sweepworker"]) == 0


def test_worker_that_never_looped_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweepworker"]) == 1
    assert "sweepworker has given no sign of life" in capsys.readouterr().err


def test_loop_that_stands_still_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    file = alive_file("sweepworker")
    file.touch()
    long_ago = time.time() - LONGEST_SILENCE_SECONDS - 1
    os.utime(file, (long_ago, long_ago))
    assert main(["sweepworker"]) == 1
    assert "silent for 301 s" in capsys.readouterr().err


def test_without_a_name_all_that_were_started_here_are_looked_at(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 1
    assert "no worker has given a sign of life" in capsys.readouterr().err
    for worker in ("sweepworker", "opsserver"):
        alive_file(worker).touch()
    assert main([]) == 0
    long_ago = time.time() - LONGEST_SILENCE_SECONDS - 1
    os.utime(alive_file("opsserver"), (long_ago, long_ago))
    assert main([]) == 1
    assert "opsserver has been silent" in capsys.readouterr().err


def test_worker_that_waits_for_long_stays_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """RESCAN_SWEEP_INTERVAL may be an hour."""
    monkeypatch.setattr("workers.process.LONGEST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("workers.process.TOUCH_SECONDS", 0.0)
    file = alive_file("sweepworker")
    stop = Stop(alive_file=file)
    waiting = threading.Thread(target=stop.wait, args=(3600,))
    waiting.start()
    wait_until(file.exists, 20, "the first sign of life")
    file.unlink()
    wait_until(file.exists, 20, "another one while it waits")
    stop.set()
    waiting.join(20)
    assert not waiting.is_alive()


def test_wrong_use_is_exit_2() -> None:
    assert main(["sweepworker", "opsserver"]) == 2


def test_directory_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    stop = Stop(alive_file=tmp_path / "missing" / "file")
    assert stop.wait(0) is False
    assert stop.alive_file is None
