"""`python -m workers.demo`, as a person runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.servers import wait_until
from tests.workers.demo.imagesaving import docker_files, save_tar
from workers.demo.images import (
    BlobSource,
    Image,
    Layer,
    as_json,
    build_artifact,
    build_image,
    build_index,
)
from workers.demo.ocilayout import write_layout
from workers.demo.progress import LONGEST_SILENCE_SECONDS
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


def run_json(tmp_path: Path, *options: str, code: int = 0) -> tuple[dict[str, Any], str]:
    """The object on standard output, and what was on standard error."""
    done = subprocess.run(
        [*COMMAND, "--json", *options],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == code, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["ok"] is (code == 0)
    assert left_behind(tmp_path) == []
    assert processes_with(tmp_path) == []
    return document, done.stderr


def own_rows(document: dict[str, Any]) -> list[tuple[str, int, int, str | None]]:
    """Name, status before, status after and outcome of what `--image` named."""
    return [
        (row["name"], row["before"], row["after"], row["outcome"])
        for row in document["manifests"]
        if row["name"].startswith("your image")
    ]


def save_layout(image: Image, directory: Path) -> Path:
    write_layout(image, directory)
    return directory


def built_with_attestation(name: str) -> Image:
    """An index as builders write it: an image, and the attestation of how it was built."""
    attestation = build_artifact(
        name,
        config=("application/vnd.oci.image.config.v1+json", b'{"architecture": "unknown"}'),
        layer=("application/vnd.in-toto+json", b"{}"),
    )
    index = build_index(name, [("amd64", alpine_image(name)), ("unknown", attestation)])
    document = json.loads(index.manifest)
    document["manifests"][1]["platform"] = {"os": "unknown", "architecture": "unknown"}
    return replace(index, manifest=as_json(document))


def test_every_pull_ends_as_it_must_and_nothing_is_left(tmp_path: Path) -> None:
    document, stderr = run_json(tmp_path)
    assert stderr == ""
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


@pytest.mark.parametrize("kind", ["layout", "docker-save"])
def test_an_image_of_the_users_own_is_pulled_too(tmp_path: Path, kind: str) -> None:
    image = alpine_image("mine/tool", payload=10_000)
    save: dict[str, Callable[[], Path]] = {
        "layout": lambda: save_layout(image, tmp_path / "own"),
        "docker-save": lambda: save_tar(docker_files(image), tmp_path / "own.tar"),
    }
    path = save[kind]()
    work = tmp_path / "work"
    work.mkdir()
    document, _ = run_json(work, "--image", str(path))
    assert own_rows(document) == [("your image", -2, 2, "completed")]
    assert document["manifests"][-1]["packages"] > 0


def test_of_a_built_index_the_images_are_pulled_and_the_attestations_are_not(
    tmp_path: Path,
) -> None:
    path = save_layout(built_with_attestation("mine/built"), tmp_path / "own")
    work = tmp_path / "work"
    work.mkdir()
    document, _ = run_json(work, "--image", str(path))
    assert own_rows(document) == [
        ("your image", -2, -2, None),
        ("your image, child 1", -2, 2, "completed"),
    ]


def test_a_manifest_that_ends_wrong_is_exit_1_at_once_and_the_logs_say_why(tmp_path: Path) -> None:
    no_tar = BlobSource.of(b"neither gzip nor tar")
    image = build_image("mine/bad", [Layer(blob=no_tar, diff_id=no_tar.digest)])
    path = save_layout(image, tmp_path / "own")
    work = tmp_path / "work"
    work.mkdir()
    started = time.monotonic()
    document, stderr = run_json(work, "--image", str(path), code=1)
    assert time.monotonic() - started < LONGEST_SILENCE_SECONDS
    assert own_rows(document) == [("your image", -2, -1, "failed")]
    assert "The workers' logs:" in stderr
    assert '"event": "rescanned"' in stderr


def test_a_worker_that_dies_ends_the_demo_at_once_and_is_named(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_until(lambda: bool(workers_with(tmp_path, "sweepworker")), 30, "the worker is running")
    for pid in workers_with(tmp_path, "sweepworker"):
        os.kill(pid, signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert "workers.sweepworker ended by itself" in stderr
    assert left_behind(tmp_path) == []
    assert processes_with(tmp_path) == []


def test_what_is_no_image_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--image", str(tmp_path / "missing")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--image" in line
    assert "missing" in line


def start(tmp_path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMAND,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers_with(tmp_path: Path, name: str) -> list[int]:
    return [
        pid
        for pid in processes_with(tmp_path)
        if f"workers.{name}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize(
    ("signum", "processes"),
    [(signal.SIGINT, 2), (signal.SIGINT, 5), (signal.SIGTERM, 5), (signal.SIGHUP, 2)],
)
def test_stopped_in_the_middle_it_leaves_nothing(
    tmp_path: Path, signum: signal.Signals, processes: int
) -> None:
    """While it starts (the demo and its server run, or also some workers), and once they work."""
    process = start(tmp_path)
    wait_until(lambda: len(processes_with(tmp_path)) >= processes, 30, "they are running")
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.count("\n") == 1
    assert left_behind(tmp_path) == []
    assert processes_with(tmp_path) == []


def test_an_impatient_person_cannot_interrupt_the_stopping(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_until(lambda: len(processes_with(tmp_path)) >= 5, 30, "the workers are running")

    def interrupt_again() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    wait_until(interrupt_again, 60, "it has ended")
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
