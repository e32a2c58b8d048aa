"""Fetch a blob from upstream, verify it, store it and write its placement.

The bytes go straight through: read a piece, hash it, write it to the store. Only when the sha256 of
all of them is the digest does the store show them under the blob's path, and only then is there a
placement. Nothing is locked while a blob downloads; Quay's blob lock is held for the last step
alone, the only one that Quay's garbage collector must not run into.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from data.blob_records import BlobRecord, record_placement
from data.errors import BlobDigestMismatch, BlobTooLarge, BlobTruncated
from data.faultpoints import FaultPoint, reach
from data.storage import BlobStore, BlobWriter, Storage
from data.upstream import BlobStream, UpstreamClient

# Holds Quay's lock on a digest for as long as the context lasts.
BlobLock = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobToPlace:
    """A blob, and the repository on whose behalf it is fetched."""

    digest: str
    repository_id: int
    upstream_repository: str  # its name at the upstream registry
    keep_seconds: int  # how long Quay's garbage collector must leave it alone


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobPlacer:
    """Places blobs in one storage, under one size limit (bytes)."""

    storage: Storage
    lock: BlobLock
    maximum_size: int

    def is_placed(self, blobs: Iterable[BlobRecord]) -> bool:
        """Whether every row of the blob is placed and a location really holds the bytes.

        A placement whose file is gone from the store counts as none, as it does in Quay.
        """
        records = list(blobs)
        if not records or any(blob.placeholder for blob in records):
            return False
        locations = sorted({location for blob in records for location in blob.locations})
        return self.storage.find(records[0].digest, locations) is not None

    def place(self, blob: BlobToPlace, upstream: UpstreamClient) -> int:
        """Fetches and places the blob; returns its size in bytes.

        Raises an `UpstreamError`, a `BlobError` or a `StorageError`; then nothing was placed.
        """
        store = self.storage.preferred
        with (
            upstream.open_blob(blob.upstream_repository, blob.digest) as stream,
            store.open_write(blob.digest) as writer,
        ):
            size = copy_verified(stream, writer, blob.digest, self.maximum_size)
            with self.lock(blob.digest):
                writer.commit()
                reach(FaultPoint.BLOB_STORED)
                self.record(blob, store, size)
        reach(FaultPoint.BLOB_PLACED)
        return size

    def record(self, blob: BlobToPlace, store: BlobStore, size: int) -> None:
        record_placement(
            blob.digest,
            repository_id=blob.repository_id,
            location=store.location,
            size=size,
            keep_seconds=blob.keep_seconds,
        )


def copy_verified(stream: BlobStream, writer: BlobWriter, digest: str, maximum_size: int) -> int:
    """Copies the stream while hashing it; returns the number of bytes, all of them as named.

    Raises `BlobTooLarge` as soon as there are more bytes than announced or allowed,
    `BlobTruncated` when there are fewer than announced, and `BlobDigestMismatch`.
    """
    announced = stream.size
    limit = maximum_size if announced is None else min(announced, maximum_size)
    if announced is not None and announced > maximum_size:
        raise BlobTooLarge(too_large(digest, announced, maximum_size))
    sha256, size = hashlib.sha256(), 0
    for chunk in stream.chunks:
        size += len(chunk)
        if size > limit:
            raise BlobTooLarge(too_large(digest, size, limit))
        sha256.update(chunk)
        writer.write(chunk)
    if announced is not None and size < announced:
        raise BlobTruncated(f"blob {digest}: got {size} of {announced} bytes; it is fetched again")
    if f"sha256:{sha256.hexdigest()}" != digest:
        raise BlobDigestMismatch(
            f"blob {digest}: the {size} bytes that came have sha256 {sha256.hexdigest()}; "
            "nothing was placed. Check the upstream registry, or a proxy on the way to it"
        )
    return size


def too_large(digest: str, size: int, limit: int) -> str:
    return (
        f"blob {digest}: {size} bytes or more, where {limit} are announced or allowed; "
        "MAXIMUM_LAYER_SIZE sets what is allowed"
    )
