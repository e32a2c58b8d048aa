"""The contract of a blob store, run over every kind of engine on a real directory or server."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import requests

from data.errors import BlobNotStored, ManifestError, StorageUnavailable
from data.storage import BlobStore
from tests.data.storage.targets import AZURE_KEY, WRONG_KEY, MotoAccount, Target

# One process, for one server of each kind.
pytestmark = pytest.mark.xdist_group("cloud")
MIB = 1024 * 1024
# Larger than one part of an upload, and no whole number of parts.
LARGE = bytes(range(256)) * 4096 * 19 + b"the end"
SMALL = b"a layer of a few bytes"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def path_of(digest: str) -> str:
    encoded = digest.removeprefix("sha256:")
    return f"sha256/{encoded[:2]}/{encoded}"


def write(store: BlobStore, digest: str, content: bytes, piece: int = 3 * MIB) -> None:
    with store.open_write(digest) as writer:
        for start in range(0, len(content), piece):
            writer.write(content[start : start + piece])
        writer.commit()


def write_until_error(store: BlobStore, digest: str) -> None:
    with store.open_write(digest) as writer:
        writer.write(LARGE)
        raise LookupError("the upstream went away")


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_committed_blob_is_there_where_quay_looks_for_it(target: Target, content: bytes) -> None:
    store, digest = target.store, digest_of(content)
    assert not store.exists(digest)
    assert store.size(digest) is None
    write(store, digest, content)
    assert store.exists(digest)
    assert store.size(digest) == len(content)
    assert b"".join(store.read(digest)) == content
    assert target.names() == [path_of(digest)]


def test_nothing_is_visible_before_commit(target: Target) -> None:
    store, digest = target.store, digest_of(LARGE)
    with store.open_write(digest) as writer:
        writer.write(LARGE)
        assert not store.exists(digest)
        assert path_of(digest) not in target.names()
        writer.commit()
        assert store.exists(digest)


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_leaving_without_commit_removes_everything(target: Target, content: bytes) -> None:
    store, digest = target.store, digest_of(content)
    with store.open_write(digest) as writer:
        writer.write(content)
    assert not store.exists(digest)
    assert target.names() == []


def test_an_error_in_the_middle_removes_everything_and_goes_on_as_it_was(target: Target) -> None:
    store, digest = target.store, digest_of(LARGE)
    with pytest.raises(LookupError, match="went away"):
        write_until_error(store, digest)
    assert not store.exists(digest)
    assert target.names() == []


def test_existing_blob_is_replaced_by_a_commit_and_untouched_without_one(target: Target) -> None:
    store, digest = target.store, digest_of(SMALL)
    write(store, digest, b"rubbish that somebody left under this name")
    with store.open_write(digest) as writer:
        writer.write(LARGE)
    assert b"".join(store.read(digest)) == b"rubbish that somebody left under this name"
    write(store, digest, SMALL)
    assert b"".join(store.read(digest)) == SMALL
    assert target.names() == [path_of(digest)]


def test_two_writers_of_one_blob_do_not_disturb_each_other(target: Target) -> None:
    store, digest = target.store, digest_of(LARGE)
    with store.open_write(digest) as first, store.open_write(digest) as second:
        first.write(LARGE[: 12 * MIB])
        second.write(LARGE)
        second.commit()
        assert b"".join(store.read(digest)) == LARGE
        first.write(LARGE[12 * MIB :])
        first.commit()
    assert b"".join(store.read(digest)) == LARGE
    assert target.names() == [path_of(digest)]


def test_a_writer_of_other_bytes_that_gives_up_leaves_no_trace_in_the_blob(target: Target) -> None:
    store, digest = target.store, digest_of(LARGE)
    with store.open_write(digest) as good:
        good.write(LARGE)
        with store.open_write(digest) as broken:
            broken.write(b"\0" * len(LARGE))
        good.commit()
    assert b"".join(store.read(digest)) == LARGE


def test_missing_blob_is_told_apart(target: Target) -> None:
    digest = digest_of(SMALL)
    with pytest.raises(BlobNotStored, match=f"{digest}.*here"):
        next(iter(target.store.read(digest)))


@pytest.mark.parametrize("digest", ["", "sha256:..", "sha256:../../etc/passwd", "md5:" + "0" * 64])
def test_no_digest_leads_out_of_the_storage_path(target: Target, digest: str) -> None:
    store = target.store
    uses: list[Callable[[str], object]] = [store.exists, store.size, store.read, store.open_write]
    uses.append(partial(store.presign, expires_s=60))
    for use in uses:
        with pytest.raises(ManifestError, match="digest"):
            use(digest)
    assert target.names() == []


def test_link_opens_the_blob_and_no_other(target: Target) -> None:
    store, digest, other = target.store, digest_of(LARGE), digest_of(SMALL)
    write(store, digest, LARGE)
    write(store, other, SMALL)
    link = store.presign(digest, 60)
    if target.engine == "local":
        assert link is None
        return
    assert link is not None
    answer = requests.get(link, headers={"Accept": "application/gzip"}, timeout=10)
    assert (answer.status_code, answer.content) == (200, LARGE)
    assert AZURE_KEY not in link
    if target.engine != "s3":  # moto doesn't look at a link's signature; see test_cloud.py
        moved = requests.get(link.replace(path_of(digest), path_of(other)), timeout=10)
        assert moved.status_code == 403


@contextmanager
def keys_checked(target: Target, request: pytest.FixtureRequest) -> Iterator[None]:
    if target.engine != "s3":
        yield
        return
    account: MotoAccount = request.getfixturevalue("moto_account")
    account.check_keys(True)
    try:
        yield
    finally:
        account.check_keys(False)


def test_store_that_refuses_us_says_so_without_its_secrets(
    target: Target, request: pytest.FixtureRequest
) -> None:
    store, digest = target.refused, digest_of(SMALL)
    with keys_checked(target, request), pytest.raises(StorageUnavailable, match="here") as raised:
        write(store, digest, SMALL)
    shown = "".join(traceback.format_exception(raised.value)) + repr(store) + str(vars(store))
    assert WRONG_KEY not in shown
    assert "AWS4" not in shown
    assert "; " in str(raised.value)


def test_refused_large_write_leaves_nothing(target: Target, request: pytest.FixtureRequest) -> None:
    store, digest = target.refused, digest_of(LARGE)
    with keys_checked(target, request), pytest.raises(StorageUnavailable):
        write(store, digest, LARGE)
    assert not target.store.exists(digest)


CHILD = """
import json, resource, sys
from data.storage import open_storage

def write_zeros(digest, mebibytes):
    with store.open_write(digest) as writer:
        for _ in range(mebibytes):
            writer.write(bytes(1024 * 1024))
        if "commit" in sys.argv:
            writer.commit()
        else:
            print("writing", flush=True)
            sys.stdin.read()

engine, parameters = json.loads(sys.argv[1])
store = open_storage({"here": (engine, parameters)}, ["here"]).preferred
"""
WRITE_UNTIL_KILLED = CHILD + "write_zeros(sys.argv[2], 20)"
WRITE_AND_MEASURE = (
    CHILD
    + """
write_zeros(sys.argv[2], 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_zeros(sys.argv[2], 200)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
)


def test_a_killed_writer_leaves_nothing_under_the_path(target: Target) -> None:
    content = bytes(20 * MIB)
    digest = digest_of(content)
    command = [sys.executable, "-c", WRITE_UNTIL_KILLED, json.dumps(target.config), digest]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        child.kill()
        assert child.wait(10) == -signal.SIGKILL
    store = target.store
    assert not store.exists(digest)
    assert path_of(digest) not in target.names()
    write(store, digest, content)
    assert store.size(digest) == len(content)
    target.clear_unfinished()


def test_memory_does_not_grow_with_the_blob(target: Target) -> None:
    digest = digest_of(b"200 MiB")
    command = [sys.executable, "-c", WRITE_AND_MEASURE, json.dumps(target.config), digest, "commit"]
    measured = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert int(measured.stdout) < 64
    assert target.store.size(digest) == 200 * MIB
