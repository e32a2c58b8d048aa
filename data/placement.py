"""Fetch a blob from upstream, verify it, store it and write its placement.

The bytes go straight through: read a piece, hash it, write it to the store. Only when the sha256 of
all of them is the digest does the store show them under the blob's path, and only then is there a
placement. Nothing is locked while a blob downloads; Quay's blob lock is held from the moment that
the bytes are shown until the placement is written, which is what Quay's garbage collector must not
run into. Placements are written for several blobs at once: a small blob's costs more than its
bytes do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from data.blob_records import BlobRecord, NewPlacement, record_placements
from data.errors import BlobDigestMismatch, BlobTooLarge, BlobTruncated
from data.faultpoints import FaultPoint, reach
from data.storage import BlobWriter, Storage
from data.upstream import BlobStream, UpstreamClient


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBlob:
    """A digest that Quay's lock is held on, and the word by which that lock is ours."""

    digest: str
    owner: str


class BlobLock(Protocol):
    """Quay's lock on a digest, which its garbage collector takes to delete the blob."""

    def acquire(self, digest: str) -> HeldBlob | None:
        """Waits for it; None when it can't be had, for then Quay goes on without it as well."""

    def release(self, blobs: Iterable[HeldBlob]) -> None:
        """Raises nothing: a lock that isn't released ends by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobToPlace:
    """A blob, and the repository on whose behalf it is fetched."""

    digest: str
    repository_id: int
    upstream_repository: str  # its name at the upstream registry
    keep_seconds: int  # how long Quay's garbage collector must leave it alone


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlob:
    """A blob whose bytes are under its path, and whose placement is to be recorded."""

    placement: NewPlacement
    held: HeldBlob | None  # None: it goes on without the lock


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

    def place(self, blob: BlobToPlace, upstream: UpstreamClient) -> NewPlacement:
        """Fetches and places the blob; raises as `store` does, and then nothing was placed."""
        stored = self.store(blob, upstream)
        try:
            self.record([stored])
        finally:
            self.release([stored])
        return stored.placement

    def store(self, blob: BlobToPlace, upstream: UpstreamClient) -> StoredBlob:
        """Fetches the blob, and holds Quay's lock on it until `release`.

        Raises an `UpstreamError`, a `BlobError` or a `StorageError`; then nothing is shown under
        the blob's path, and nothing is held.
        """
        store = self.storage.preferred
        with store.open_write(blob.digest) as writer:
            with upstream.open_blob(blob.upstream_repository, blob.digest) as stream:
                size = copy_verified(stream, writer, blob.digest, self.maximum_size)
            held = self.lock.acquire(blob.digest)
            try:
                writer.commit()
            except BaseException:
                self.lock.release([held] if held else [])
                raise
        reach(FaultPoint.BLOB_STORED)
        placement = NewPlacement(
            digest=blob.digest,
            repository_id=blob.repository_id,
            location=store.location,
            size=size,
            keep_seconds=blob.keep_seconds,
        )
        return StoredBlob(placement=placement, held=held)

    def record(self, blobs: Sequence[StoredBlob]) -> None:
        """Says in the database where the blobs are, once that would survive a power cut.

        Raises what `record_placements` does, and `StorageUnavailable`; then nothing is said of any.
        """
        self.storage.preferred.sync([each.placement.digest for each in blobs])
        record_placements([each.placement for each in blobs])

    def release(self, blobs: Iterable[StoredBlob]) -> None:
        """Lets go of the blobs, whose placements are recorded or can't be."""
        self.lock.release([each.held for each in blobs if each.held is not None])


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
