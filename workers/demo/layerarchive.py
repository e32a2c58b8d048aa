"""Opens a layer file for the scanner stand-in: gzip, zstd or plain tar, whatever its name.

Unpacking is streamed and counted, so that neither a large layer nor one made to explode takes more
memory than a buffer.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import zstandard

from workers.demo.packages import DatabaseTooLarge, LayerContents, read_contents

UNPACKED_LIMIT = 8 * 1024**3
"""Bytes that a layer may unpack to. The limit is the stand-in's own; Clair has a disk for it."""


READ_SIZE = 64 * 1024


class LayerUnreadable(Exception):
    """The layer came, but can't be unpacked; Clair counts this as not fetched."""


class NotATar(Exception):
    """The layer unpacked to something that is no tar archive; Clair answers 400."""


class Compression(Enum):
    """How a layer is packed."""

    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"


class Readable(Protocol):
    """What can be read from, front to back."""

    def readinto(self, buffer: Any, /) -> int | None: ...


def compression_of(path: Path) -> Compression:
    """Told by the first bytes of the file, as Clair does."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"\x1f\x8b":
        return Compression.GZIP
    return Compression.ZSTD if start == b"\x28\xb5\x2f\xfd" else Compression.NONE


def layer_contents(digest: str, path: Path, limit: int = UNPACKED_LIMIT) -> LayerContents:
    """What the layer file says on packages. Raises LayerUnreadable or NotATar."""
    try:
        with _unpacked(path) as unpacked:
            return _read(digest, _Counted(unpacked, limit))
    except tarfile.TarError as error:
        raise NotATar(f"layer {digest} is no tar archive: {error}") from error
    except (EOFError, zlib.error, zstandard.ZstdError, OSError, DatabaseTooLarge) as error:
        raise LayerUnreadable(f"layer {digest} can't be unpacked: {error}") from error


@contextmanager
def _unpacked(path: Path) -> Iterator[Readable]:
    compression = compression_of(path)
    with path.open("rb") as file:
        if compression is Compression.GZIP:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
        elif compression is Compression.ZSTD:
            yield zstandard.ZstdDecompressor().stream_reader(file)
        else:
            yield file


def _read(digest: str, unpacked: _Counted) -> LayerContents:
    try:
        with tarfile.open(fileobj=unpacked, mode="r|") as archive:
            contents = read_contents(digest, archive)
    except tarfile.ReadError:
        if unpacked.count:
            raise
        # No bytes at all are an archive without entries to Clair.
        return LayerContents(digest=digest, databases={}, hidden=frozenset())
    while unpacked.read(READ_SIZE):
        pass  # to the end, where the checksum of the packed stream is
    return contents


class _Counted(io.RawIOBase):
    """Reads on until the limit."""

    def __init__(self, source: Readable, limit: int) -> None:
        self._source = source
        self._limit = limit
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._source.readinto(buffer) or 0
        self.count += count
        if self.count > self._limit:
            raise LayerUnreadable(f"the layer unpacks to more than {self._limit} bytes")
        return count
