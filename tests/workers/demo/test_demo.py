"""`python -m workers.demo`, as a person runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import wait_until
from workers.demo.imagefiles import load_image
from workers.demo.ocilayout import write_layout
from workers.demo.sampleimages import alpine_image

COMMAND = [sys.executable, "-m", "workers.demo"]
EXPECTED = {
    "manifest-only client": (-2, 2, "completed"),
    "ordinary client": (-2, 2, "completed"),
    "shared layer, first": (-2, 2, "completed"),
    "shared layer, second": (-2, 2, "completed"),
    "manifest list": (-2, -2, None),
    "child 1 of the list": (-2, 2, "completed"),
    "child 2 of the list": (-2, 2, "completed"),
    "Helm chart": (-2, -2, "unsupported"),
}


def environment(tmp_path: Path) -> dict[str, str]:
    """Its temporary files go where the test can see what is left of them."""
    return os.environ | {"TMPDIR": str(tmp_path), "COLUMNS": "80"}


def left_behind(tmp_path: Path) -> list[str]:
    return [path.name for path in tmp_path.iterdir()]


def processes_with(tmp_path: Path) -> list[int]:
    """Processes whose command line or environment names the test's directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if str(tmp_path).encode() in text and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


def run_json(tmp_path: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [*COMMAND, "--json", *options],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_every_pull_ends_as_it_must_and_nothing_is_left(tmp_path: Path) -> None:
    document = run_json(tmp_path)
    assert document["ok"] is True
    rows = {row["name"]: row for row in document["manifests"]}
    assert {
        name: (row["before"], row["after"], row["outcome"]) for name, row in rows.items()
    } == EXPECTED
    for row in rows.values():
        completed = row["after"] == 2
        assert (row["last_blob_to_index_ms"] is not None) is completed
        assert (row["packages"] or 0) > 0 if completed else row["packages"] is None
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", row["digest"])
    assert {document["queue"][key] for key in ("queued", "started", "scheduled", "failed")} == {0}
    assert left_behind(tmp_path) == []
    assert processes_with(tmp_path) == []


@pytest.mark.parametrize("kind", ["layout", "archive"])
def test_an_image_of_the_users_own_is_pulled_too(tmp_path: Path, kind: str) -> None:
    layout = tmp_path / "own"
    write_layout(alpine_image("mine/tool", payload=10_000), layout)
    path = layout
    if kind == "archive":
        path = tmp_path / "own.tar"
        subprocess.run(["tar", "-C", str(layout), "-cf", str(path), "."], check=True)
    assert load_image(path).layer_digests
    work = tmp_path / "work"
    work.mkdir()
    document = run_json(work, "--image", str(path))
    own = next(row for row in document["manifests"] if row["name"] == "your image")
    assert (own["before"], own["after"]) == (-2, 2)


def test_what_is_no_image_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--image", str(tmp_path / "missing")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--image" in line
    assert "missing" in line


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_leaves_nothing(tmp_path: Path, signum: signal.Signals) -> None:
    process = subprocess.Popen(
        COMMAND,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(processes_with(tmp_path)) > 4, 30, "the workers are running")
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert left_behind(tmp_path) == []
    assert processes_with(tmp_path) == []


def test_output_fits_80_columns_and_has_no_colours_in_a_file(tmp_path: Path) -> None:
    done = subprocess.run(
        COMMAND, env=environment(tmp_path), capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    for word in ("blob placed", "rescan enqueued", "reset", "index call", "COMPLETED"):
        assert word in done.stdout
    assert "Every manifest ended as it must." in done.stdout
