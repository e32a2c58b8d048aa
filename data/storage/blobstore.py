"""The port to one storage location: what the rest of the program may ask of it.

A blob lies at `<storage_path>/sha256/<first two hex digits>/<hex>`, where Quay looks for it. Three
kinds of store stand behind the port: a directory (`local.py`), a bucket or container (`cloud.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from data.digests import parse_digest

# Bytes that `read` hands out at a time, about.
READ_BYTES = 1024 * 1024


class BlobWriter(Protocol):
    """One blob on its way into a store. Memory in use doesn't grow with what was written."""

    def write(self, chunk: bytes) -> None:
        """Add bytes. Raises StorageUnavailable when the store is full, gone or refuses them."""

    def commit(self) -> None:
        """Make the blob visible, whole, in place of what lay there. The last call on a writer.

        When it returns, the bytes survive a crash of this process, and one of the machine after
        the store's `sync`; when it raises StorageUnavailable, what lay under the final path before
        still does.
        """


class BlobStore(Protocol):
    """One location of DISTRIBUTED_STORAGE_CONFIG.

    Safe for use by several threads and processes at once. What is no digest is refused by
    `data.digests.parse_digest` (ManifestError) before anything is touched. Every method
    raises StorageUnavailable when the store can't be reached, is full, or refuses us; no message
    and no repr holds a key or a signature.
    """

    @property
    def location(self) -> str:
        """The location's name, as placements name it."""

    def exists(self, digest: str) -> bool:
        """Whether the bytes are there now (asked of the store each time, nothing is cached)."""

    def size(self, digest: str) -> int | None:
        """Number of bytes stored, None when the blob isn't there."""

    def open_write(self, digest: str) -> AbstractContextManager[BlobWriter]:
        """Write a blob: `with store.open_write(digest) as writer: ...; writer.commit()`.

        Nothing is visible under the final path before `commit`, at no moment and after no crash.
        Leaving the block without `commit`, by an exception or not, removes what was written.
        Several writers of one digest don't disturb each other; the last commit stays. The store
        doesn't check the bytes against the digest: commit only what was checked.
        """

    def sync(self, digests: Iterable[str]) -> None:
        """Have what was committed survive a crash of the machine.

        To be called before anybody is told that the blobs are there; for several at once, which
        takes little longer than for one.
        """

    def read(self, digest: str) -> Iterator[bytes]:
        """The bytes, in pieces of about READ_BYTES.

        The first piece raises BlobNotStored when the blob isn't there.
        """

    def presign(self, digest: str, expires_s: int) -> str | None:
        """A URL that anybody may GET without credentials for `expires_s` seconds.

        None when the engine has no such links. Doesn't ask whether the blob is there.
        """


def blob_path(digest: str) -> str:
    """Path of a blob below the storage path, in Quay's layout: `sha256/ab/abcd..`."""
    algorithm, _, encoded = parse_digest(digest).partition(":")
    return f"{algorithm}/{encoded[:2]}/{encoded}"
