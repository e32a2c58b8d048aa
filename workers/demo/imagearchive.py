"""The files of an image that a person has: a directory, or a tar archive read in place.

Nothing is unpacked: a blob in an archive is a stretch of the archive file. So an archive can't
write anywhere, whatever the names in it, and memory doesn't grow with its blobs.
"""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import tarfile
import zlib
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from workers.demo.images import PIECE, BlobSource

MAX_ENTRIES = 100_000
MAX_LINKS = 8  # links that lead to links
MAX_DOCUMENT = 4 * 1024 * 1024  # bytes of an index, a manifest or a config
MAX_UNPACKED = 64 * 1024**3  # bytes of the tar in a gzip file

GZIP = b"\x1f\x8b"
OTHER_COMPRESSIONS = {b"BZh": "bzip2", b"\xfd7z": "xz", b"\x28\xb5\x2f": "zstd"}


class ImageUnreadable(Exception):
    """What a person gave as an image is none, or none that can be read. The message says why."""


Parsed = TypeVar("Parsed")


class FileTree(Protocol):
    """Files by their path in the tree."""

    path: Path

    def find(self, name: str) -> BlobSource | None:
        """The file, its digest not yet known, or None if there is none of this name."""


class DirectoryTree:
    """The files of a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, name: str) -> BlobSource | None:
        file = self.path / safe_name(name, self.path)
        if not file.is_file():
            return None
        if not file.resolve().is_relative_to(self.path.resolve()):
            raise ImageUnreadable(f"{self.path}: {name} is a link that leads out of it")
        return BlobSource(digest="", size=file.stat().st_size, source=file)


class TarTree:
    """The files of a tar archive that isn't compressed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, BlobSource] = {}
        self._links: dict[str, str] = {}
        try:
            with tarfile.open(path, mode="r:") as archive:
                for count, entry in enumerate(archive):
                    if count == MAX_ENTRIES:
                        raise ImageUnreadable(f"{path} has more than {MAX_ENTRIES} entries")
                    self._add(entry)
        except tarfile.TarError as error:
            raise ImageUnreadable(f"{path} is no tar archive, or a damaged one: {error}") from error

    def _add(self, entry: tarfile.TarInfo) -> None:
        name = safe_name(entry.name, self.path)
        if entry.isreg() and not entry.issparse():
            self._files[name] = BlobSource(
                digest="", size=entry.size, source=self.path, offset=entry.offset_data
            )
        elif entry.issym():
            target = posixpath.join(posixpath.dirname(name), entry.linkname)
            self._links[name] = safe_name(target, self.path)
        elif entry.islnk():
            self._links[name] = safe_name(entry.linkname, self.path)
        elif not entry.isdir():
            raise ImageUnreadable(f"{self.path}: {name} is neither a file, a link nor a directory")

    def find(self, name: str) -> BlobSource | None:
        name = safe_name(name, self.path)
        for _ in range(MAX_LINKS):
            if name not in self._links:
                break
            name = self._links[name]
        return self._files.get(name)


def open_tree(path: Path, work_directory: Path | None) -> FileTree:
    """The files of a directory or an archive.

    A gzip archive is unpacked to one tar file in `work_directory`, which the caller takes away.
    Raises `ImageUnreadable`.
    """
    if path.is_dir():
        return DirectoryTree(path)
    if not path.is_file():
        raise ImageUnreadable(f"{path}: there is no such file or directory")
    with path.open("rb") as file:
        start = file.read(3)
    if start[:2] == GZIP:
        return TarTree(unpacked(path, work_directory))
    if start in OTHER_COMPRESSIONS:
        compression = OTHER_COMPRESSIONS[start]
        raise ImageUnreadable(f"{path} is compressed with {compression}; unpack it first")
    return TarTree(path)


def unpacked(path: Path, work_directory: Path | None) -> Path:
    """The tar in a gzip file, as a file."""
    if work_directory is None:
        raise ImageUnreadable(f"{path} is compressed with gzip; unpack it first")
    target = work_directory / f"{path.name}.tar"
    try:
        with gzip.open(path) as packed, target.open("wb") as plain:
            while piece := packed.read(PIECE):
                plain.write(piece)
                if plain.tell() > MAX_UNPACKED:
                    raise OSError(f"it unpacks to more than {MAX_UNPACKED} bytes")
    except (OSError, EOFError, zlib.error) as error:
        target.unlink(missing_ok=True)
        raise ImageUnreadable(f"{path} can't be unpacked: {error}") from error
    return target


def safe_name(name: str, path: Path) -> str:
    """The path of a file in its tree. Raises `ImageUnreadable` if it leads out of the tree."""
    normal = posixpath.normpath(name)
    if normal.startswith(("/", "../")) or normal == ".." or "\0" in name:
        raise ImageUnreadable(f"{path}: {name[:80]!r} is a path that leads out of it")
    return normal


def read_document(tree: FileTree, name: str) -> bytes | None:
    """A small file whole, None if it isn't there. Raises `ImageUnreadable` if it is not small."""
    file = tree.find(name)
    if file is None:
        return None
    if file.size > MAX_DOCUMENT:
        raise ImageUnreadable(f"{tree.path}: {name} has {file.size} bytes, over {MAX_DOCUMENT}")
    return file.read()


def parse_document(kind: TypeAdapter[Parsed], content: bytes, name: str, path: Path) -> Parsed:
    """Reads JSON of this kind. Raises `ImageUnreadable` with the first thing that is wrong."""
    try:
        return kind.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        problem = f"{where} {first['msg']}".strip()
        raise ImageUnreadable(f"{path}: {name}: {problem}") from error


def find_blob(tree: FileTree, name: str, digest: str | None = None) -> BlobSource | None:
    """The file as a blob, its bytes hashed. Raises `ImageUnreadable` if they aren't `digest`."""
    file = tree.find(name)
    if file is None:
        return None
    sha256 = hashlib.sha256()
    size = 0
    for piece in file.pieces():
        sha256.update(piece)
        size += len(piece)
    found = f"sha256:{sha256.hexdigest()}"
    if size != file.size or digest not in (None, found):
        raise ImageUnreadable(f"{tree.path}: {name} is damaged: its digest is {found}")
    return BlobSource(digest=found, size=size, source=file.source, offset=file.offset)
