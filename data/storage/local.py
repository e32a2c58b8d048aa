"""LocalStorage: blobs as files below one directory, which Quay's container shares.

Bytes go to `<storage_path>/uploads/` first, on the same file system as the final path, and are
renamed into place once they are on disk; the rename itself is there after `sync`, which many share.
A file that a killed writer left behind in there is removed by a later writer.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar
from uuid import uuid4

from data.errors import BlobNotStored, StorageUnavailable
from data.storage.blobstore import READ_BYTES, BlobWriter, blob_path

T = TypeVar("T")

# Quay runs as another user of the same group (group 0 in its image) and must read, replace and
# delete what lies here, whatever our umask is.
FILE_MODE = 0o664
DIRECTORY_MODE = 0o775
UPLOADS = "uploads"
# Quay keeps uploads of its own in the same folder: the suffix tells ours apart.
UPLOAD_SUFFIX = ".rescan"
# A writer touches its file with every chunk, so one that rested this long has no writer any more.
ABANDONED_SECONDS = 24 * 3600
# They are looked for this often: that lists the folder, which costs more than a small blob.
CLEAN_SECONDS = 600.0

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})


class LocalStorage:
    """A BlobStore on a directory. It can't presign."""

    def __init__(self, location: str, storage_path: str) -> None:
        self._location = location
        self._root = Path(storage_path)
        self._cleaned = -math.inf

    def __repr__(self) -> str:
        return f"LocalStorage(location={self._location!r}, storage_path={str(self._root)!r})"

    @property
    def location(self) -> str:
        return self._location

    def exists(self, digest: str) -> bool:
        return self.size(digest) is not None

    def size(self, digest: str) -> int | None:
        path = self._root / blob_path(digest)
        try:
            status = path.stat()
        except OSError as error:
            if error.errno in MISSING:
                return None
            raise self.unavailable("look for", digest, error) from error
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def open_write(self, digest: str) -> AbstractContextManager[BlobWriter]:
        return self._writing(digest, self._root / blob_path(digest))

    def sync(self, digests: Iterable[str]) -> None:
        for path in sorted({(self._root / blob_path(digest)).parent for digest in digests}):
            try:
                sync_directory(path)
            except OSError as error:
                raise self.unavailable("write", f"the blobs of {path.name}", error) from error

    def read(self, digest: str) -> Iterator[bytes]:
        return self._reading(digest, self._root / blob_path(digest))

    def presign(self, digest: str, expires_s: int) -> str | None:  # noqa: ARG002
        blob_path(digest)
        return None

    def unavailable(self, doing: str, digest: str, error: OSError) -> StorageUnavailable:
        """The error of the file system as an error of ours, with its mend."""
        return StorageUnavailable(
            f"location {self._location} can't {doing} {digest} below {self._root}: "
            f"{error.strerror or error}; {mend(error)}"
        )

    def _clean_now_and_then(self, uploads: Path) -> None:
        if time.monotonic() >= self._cleaned + CLEAN_SECONDS:
            self._cleaned = time.monotonic()
            remove_abandoned(uploads)

    def _reading(self, digest: str, path: Path) -> Iterator[bytes]:
        try:
            with path.open("rb") as file:
                while chunk := file.read(READ_BYTES):
                    yield chunk
        except OSError as error:
            if error.errno in MISSING:
                raise BlobNotStored(f"{digest} is not in location {self._location}") from error
            raise self.unavailable("read", digest, error) from error

    @contextmanager
    def _writing(self, digest: str, path: Path) -> Iterator[BlobWriter]:
        uploads = self._root / UPLOADS
        upload = uploads / f"{uuid4()}{UPLOAD_SUFFIX}"
        try:
            self._clean_now_and_then(uploads)
            file = with_directory(uploads, lambda: upload.open("xb", buffering=0))
        except OSError as error:
            raise self.unavailable("write", digest, error) from error
        writer = LocalBlobWriter(self, digest, file, upload, path)
        try:
            with file:
                yield writer
        finally:
            if not writer.committed:  # a look for what was moved away locks the folder all the same
                upload.unlink(missing_ok=True)


class LocalBlobWriter:
    """Writes to a file in the uploads folder, and moves it into place on commit."""

    def __init__(
        self, store: LocalStorage, digest: str, file: BinaryIO, upload: Path, path: Path
    ) -> None:
        self._store = store
        self._digest = digest
        self._file = file
        self._upload = upload
        self._path = path
        self.committed = False

    def write(self, chunk: bytes) -> None:
        try:
            rest = memoryview(chunk)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._store.unavailable("write", self._digest, error) from error

    def commit(self) -> None:
        try:
            os.fchmod(self._file.fileno(), FILE_MODE)
            os.fsync(self._file.fileno())
            self._file.close()
            with_directory(self._path.parent, lambda: self._upload.replace(self._path))
            self.committed = True
        except OSError as error:
            raise self._store.unavailable("write", self._digest, error) from error


def with_directory(path: Path, work: Callable[[], T]) -> T:
    """Does what needs the directory; it is made if it turns out to be missing, which is rare."""
    try:
        return work()
    except FileNotFoundError:
        make_directory(path)
        return work()


def make_directory(path: Path) -> None:
    """Make a directory and its parents, writable for the group; one that exists is left alone."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
        path.chmod(stat.S_IMODE(path.stat().st_mode) | DIRECTORY_MODE)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Put a directory's entries on disk, so that a rename or a new entry survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_abandoned(uploads: Path) -> None:
    """Remove the uploads of ours that a killed process left behind."""
    oldest = time.time() - ABANDONED_SECONDS
    for upload in uploads.glob(f"*{UPLOAD_SUFFIX}"):
        # Another writer may be removing the same file.
        with suppress(FileNotFoundError):
            if upload.stat().st_mtime < oldest:
                upload.unlink()


def mend(error: OSError) -> str:
    """What a person can do about an error of the file system."""
    if error.errno in FULL:
        return "free space there, or raise the quota or file size limit"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "let this user or its group read and write there"
    if error.errno == errno.EROFS:
        return "mount it for reading and writing"
    return "check that the volume is mounted and healthy"
