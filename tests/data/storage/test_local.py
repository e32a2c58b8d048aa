"""What is special about blobs in a directory that Quay's container shares."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.errors import StorageUnavailable
from data.storage import local
from data.storage.local import ABANDONED_SECONDS, LocalStorage

DIGEST = "sha256:" + "ab" * 32
BLOB_PATH = "sha256/ab/" + "ab" * 32


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def write(store: LocalStorage, content: bytes) -> None:
    with store.open_write(DIGEST) as writer:
        writer.write(content)
        writer.commit()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("strict_umask")
def test_quay_may_read_replace_and_delete_what_was_written(tmp_path: Path) -> None:
    root = tmp_path / "datastorage" / "registry"
    write(LocalStorage("here", str(root)), b"layer")
    assert mode(root / BLOB_PATH) == 0o664
    for folder in ("uploads", "sha256", "sha256/ab", "."):
        assert mode(root / folder) == 0o775


def test_group_that_directories_hand_down_is_kept(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    write(LocalStorage("here", str(tmp_path)), b"layer")
    assert mode(tmp_path / "sha256" / "ab") & stat.S_ISGID


def test_directories_of_others_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "sha256").mkdir(mode=0o755)
    write(LocalStorage("here", str(tmp_path)), b"layer")
    assert mode(tmp_path / "sha256") == 0o755


def test_uploads_that_a_killed_writer_left_are_removed_and_no_others(tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    names = ("dead.rescan", "running.rescan", "an-upload-of-quays")
    for name in names:
        (uploads / name).write_bytes(b"half a layer")
    long_ago = time.time() - ABANDONED_SECONDS - 1
    for name in ("dead.rescan", "an-upload-of-quays"):
        os.utime(uploads / name, (long_ago, long_ago))
    write(LocalStorage("here", str(tmp_path)), b"layer")
    assert {path.name for path in uploads.iterdir()} == {"running.rescan", "an-upload-of-quays"}


def test_folder_of_uploads_is_not_listed_for_every_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, dead = LocalStorage("here", str(tmp_path)), tmp_path / "uploads" / "dead.rescan"
    write(store, b"layer")
    dead.write_bytes(b"half a layer")
    long_ago = time.time() - ABANDONED_SECONDS - 1
    os.utime(dead, (long_ago, long_ago))
    write(store, b"layer")
    assert dead.exists()
    monkeypatch.setattr(local, "CLEAN_SECONDS", 0.0)
    write(store, b"layer")
    assert not dead.exists()


def test_a_directory_under_the_path_is_no_blob(tmp_path: Path) -> None:
    (tmp_path / BLOB_PATH).mkdir(parents=True)
    assert not LocalStorage("here", str(tmp_path)).exists(DIGEST)


def test_a_committed_blob_can_no_longer_be_written_to(tmp_path: Path) -> None:
    store = LocalStorage("here", str(tmp_path))
    with store.open_write(DIGEST) as writer:
        writer.write(b"layer")
        writer.commit()
        with pytest.raises(ValueError, match="closed"):
            writer.write(b" and more")
    assert b"".join(store.read(DIGEST)) == b"layer"


def test_blobs_whose_folder_is_gone_are_not_said_to_be_there(tmp_path: Path) -> None:
    store = LocalStorage("here", str(tmp_path))
    write(store, b"layer")
    store.sync([DIGEST])
    shutil.rmtree(tmp_path / "sha256")
    with pytest.raises(StorageUnavailable, match="location here can't write the blobs of ab"):
        store.sync([DIGEST])


FULL_DISK = """
import resource, sys
from data.errors import StorageUnavailable
from data.storage.local import LocalStorage

resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, 1024 * 1024))
store = LocalStorage("here", sys.argv[1])
try:
    with store.open_write(sys.argv[2]) as writer:
        for _ in range(32):
            writer.write(bytes(100_000))
        writer.commit()
except StorageUnavailable as error:
    print(error)
"""


def test_full_disk_is_said_with_its_mend_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), DIGEST]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    assert f"location here can't write {DIGEST} below {tmp_path}" in run.stdout
    assert "free space there" in run.stdout
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
