"""Buckets and containers, all through obstore: S3 and what speaks its protocol, and Azure.

A blob goes up in parts of PART_BYTES that the store joins when the last one is there, so nothing is
visible before and memory in use is a few parts. Parts of a writer that was killed are never
visible; S3 keeps (and bills) them until Quay's own clean-up of orphaned uploads or a lifecycle rule
of the bucket takes them away, Azure drops them after a week.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, S3Store

from data.errors import BlobNotStored, StorageUnavailable
from data.storage.blobstore import READ_BYTES, BlobWriter, blob_path

if TYPE_CHECKING:
    from obstore import WritableFile

# S3 takes 10,000 parts of one object at most: 8 MiB each make 78 GiB, the largest layer that fits.
PART_BYTES = 8 * 1024 * 1024
PARTS_AT_ONCE = 2

# What obstore raises: its own tree; OSError from readers, writers and for a missing object;
# ValueError for a path or URL it can't work with.
OBSTORE_ERRORS = (BaseError, OSError, ValueError)
STATUS = re.compile(r"status code: (\d{3}) ?([A-Za-z -]*)")
# The process in which obstore started its threads; they don't survive a fork.
process_of_obstore: int | None = None
# Azure's word for: another writer committed this blob meanwhile, and our parts went with that.
PARTS_GONE = "InvalidBlockList"


class CloudStorage:
    """A BlobStore on a bucket or container.

    `place` says where it is in words for people (bucket and endpoint, no keys); `prefix` is Quay's
    storage_path without slashes around it. `presigns` is False where the keys at hand can't sign.
    """

    def __init__(
        self,
        location: str,
        store: S3Store | AzureStore,
        *,
        place: str,
        prefix: str,
        presigns: bool = True,
    ) -> None:
        self._location = location
        self._store = store
        self._place = place
        self._prefix = prefix
        self._presigns = presigns

    def __repr__(self) -> str:
        return f"CloudStorage(location={self._location!r}, place={self._place!r})"

    @property
    def location(self) -> str:
        return self._location

    def exists(self, digest: str) -> bool:
        return self.size(digest) is not None

    def size(self, digest: str) -> int | None:
        path = self._path(digest)
        refuse_forked_process()
        try:
            return obstore.head(self._store, path)["size"]
        except FileNotFoundError:
            return None
        except OBSTORE_ERRORS as error:
            raise self.unavailable("look for", digest, error) from None

    def open_write(self, digest: str) -> AbstractContextManager[BlobWriter]:
        return self._writing(digest, self._path(digest))

    def sync(self, digests: Iterable[str]) -> None:
        """Nothing: what such a store has taken, it keeps."""

    def read(self, digest: str) -> Iterator[bytes]:
        return self._reading(digest, self._path(digest))

    def presign(self, digest: str, expires_s: int) -> str | None:
        path = self._path(digest)
        if not self._presigns:
            return None
        refuse_forked_process()
        try:
            return obstore.sign(self._store, "GET", path, timedelta(seconds=expires_s))
        except OBSTORE_ERRORS as error:
            raise self.unavailable("sign a link to", digest, error) from None

    def unavailable(self, doing: str, digest: str, error: Exception) -> StorageUnavailable:
        """obstore's error as one of ours. To be raised `from None`: obstore's may hold secrets."""
        return StorageUnavailable(
            f"location {self._location} can't {doing} {digest} in {self._place}: "
            f"{cause(error)}; {mend(error)}"
        )

    def _path(self, digest: str) -> str:
        path = blob_path(digest)
        return f"{self._prefix}/{path}" if self._prefix else path

    def _reading(self, digest: str, path: str) -> Iterator[bytes]:
        refuse_forked_process()
        try:
            for chunk in obstore.get(self._store, path).stream(min_chunk_size=READ_BYTES):
                yield bytes(chunk)
        except FileNotFoundError:
            raise BlobNotStored(f"{digest} is not in location {self._location}") from None
        except OBSTORE_ERRORS as error:
            raise self.unavailable("read", digest, error) from None

    @contextmanager
    def _writing(self, digest: str, path: str) -> Iterator[BlobWriter]:
        refuse_forked_process()
        upload = obstore.open_writer(
            self._store, path, buffer_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
        )
        writer = CloudBlobWriter(self, digest, upload)
        try:
            yield writer
        except BaseException as reason:
            # The reason is what the caller must hear of, not that the clean-up failed as well.
            try:
                writer.abandon()
            except StorageUnavailable as error:
                reason.add_note(str(error))
            raise
        writer.abandon()


class CloudBlobWriter:
    """Sends parts as they fill up; the store joins them on commit."""

    def __init__(self, store: CloudStorage, digest: str, upload: WritableFile) -> None:
        self._store = store
        self._digest = digest
        self._upload = upload
        self._ended = False
        self._failed = False
        self._written = 0

    def write(self, chunk: bytes) -> None:
        try:
            self._written += self._upload.write(chunk)
        except OBSTORE_ERRORS as error:
            self._failed = True
            raise self._store.unavailable("write", self._digest, error) from None

    def commit(self) -> None:
        # After a failed part obstore would join those that are there.
        if self._failed:
            raise StorageUnavailable(f"{self._digest}: a part was not stored, so nothing is")
        self._ended = True
        try:
            self._upload.close()
        except OBSTORE_ERRORS as error:
            if PARTS_GONE in str(error) and self._store.size(self._digest) == self._written:
                return
            raise self._store.unavailable("write", self._digest, error) from None

    def abandon(self) -> None:
        """Remove the parts, unless the upload ended in one way or the other."""
        if self._ended:
            return
        self._ended = True
        try:
            # obstore's way to abort: leaving its own `with` block by an exception.
            self._upload.__exit__(StorageUnavailable, StorageUnavailable(), None)
        except OBSTORE_ERRORS as error:
            raise self._store.unavailable("remove the parts of", self._digest, error) from None


def refuse_forked_process() -> None:
    """Raise StorageUnavailable where obstore would wait for ever for threads it doesn't have."""
    global process_of_obstore
    if process_of_obstore is None:
        process_of_obstore = os.getpid()
    if process_of_obstore != os.getpid():
        raise StorageUnavailable(
            f"process {os.getpid()} was forked after its parent {process_of_obstore} had used "
            "cloud storage, and can't use it; fork before the first use, or start a new process"
        )


def cause(error: Exception) -> str:
    """What obstore says happened, in one line without bodies, queries or headers.

    Those hold secrets: an S3 error body repeats the string that was signed, an Azure URL carries
    the SAS token.
    """
    text = str(error)
    code = re.search(r"<Code>(\w{1,64})</Code>", text)
    status = STATUS.search(text)
    if status:
        said = f"it answered {status[1]} {status[2]}".rstrip()
    else:
        line = re.sub(r"(https?://[^\s?]*)\?\S*", r"\1", text.split("\n", 1)[0].split("<", 1)[0])
        said = re.sub(r"Error performing \w+ \S+ in .* - ", "", line).strip(" :-")
    return said + (f" ({code[1]})" if code else "")


def mend(error: Exception) -> str:
    """What a person can do about it."""
    status = STATUS.search(str(error))
    if (status and status[1] in {"401", "403"}) or "credential" in str(error):
        return "check the keys, their rights to read and write there, and this machine's clock"
    if status and status[1] in {"301", "307", "400"}:
        return "check that the region and the endpoint are those of the bucket"
    if status and status[1] == "404":
        return "check the name of the bucket or container"
    return "check that the endpoint is right, up and reachable from here"
