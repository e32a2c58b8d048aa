"""Which packages an image holds, for the scanner stand-in: dpkg's and apk's own databases.

A layer is read for the two database files and for what hides them below (whiteouts, and files put
where a directory was); the layers are then laid over each other as OCI's image spec says. Pure
functions over bytes and tar archives; Clair itself looks for far more than this.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

DPKG_STATUS = "var/lib/dpkg/status"
APK_INSTALLED = "lib/apk/db/installed"

DATABASE_LIMIT = 64 * 1024 * 1024
"""Bytes of a database file; Debian's with 2,000 packages has about 2 MB."""

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


class DatabaseTooLarge(Exception):
    """A package database has more than DATABASE_LIMIT bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An installed package. `database` is the path of the file that lists it."""

    name: str
    version: str
    architecture: str
    source: str
    database: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerContents:
    """What one layer says on package databases.

    `hidden` holds paths that, with all below them, this layer takes away from the layers beneath.
    """

    digest: str
    databases: Mapping[str, bytes]
    hidden: frozenset[str]

    def hides(self, path: str) -> bool:
        """Does this layer take `path` away from the layers beneath?"""
        return "" in self.hidden or any(step in self.hidden for step in _path_and_parents(path))


def read_contents(digest: str, archive: tarfile.TarFile) -> LayerContents:
    """Walk a layer once, front to back. Raises DatabaseTooLarge, and tarfile's errors."""
    databases: dict[str, bytes] = {}
    hidden: set[str] = set()
    for member in archive:
        path = posixpath.normpath("/" + member.name).lstrip("/")
        directory, name = posixpath.split(path)
        if name == OPAQUE:
            hidden.add(directory)
        elif name.startswith(WHITEOUT):
            hidden.add(posixpath.join(directory, name.removeprefix(WHITEOUT)))
        elif path in _PARSERS and member.isreg():
            databases[path] = _read(archive, member)
        elif path in _WATCHED and not (member.isdir() and path not in _PARSERS):
            # A link or a file in place of a directory, or anything but a file in place of a file.
            hidden.add(path)
    return LayerContents(digest=digest, databases=databases, hidden=frozenset(hidden))


def installed_packages(layers: Sequence[LayerContents]) -> dict[Package, str]:
    """The packages of the image (base layer first), each with the layer that brought it in."""
    found: dict[str, dict[Package, str]] = {}
    for layer in layers:
        found = {path: packages for path, packages in found.items() if not layer.hides(path)}
        for path, content in layer.databases.items():
            below = found.get(path, {})
            found[path] = {
                package: below.get(package, layer.digest) for package in _PARSERS[path](content)
            }
    return {package: layer for packages in found.values() for package, layer in packages.items()}


def dpkg_packages(status: bytes) -> list[Package]:
    """The installed packages of a dpkg status file: paragraphs of `Field: value` lines."""
    return [
        Package(
            name=fields["package"],
            version=fields.get("version", ""),
            architecture=fields.get("architecture", ""),
            source=fields.get("source", "").partition(" ")[0],
            database=DPKG_STATUS,
        )
        for fields in _paragraphs(status, str.lower)
        if "package" in fields and {"ok", "installed"} <= set(fields.get("status", "").split())
    ]


def apk_packages(installed: bytes) -> list[Package]:
    """The packages of apk's installed database: paragraphs of `X:value` lines, X one letter."""
    return [
        Package(
            name=fields["P"],
            version=fields.get("V", ""),
            architecture=fields.get("A", ""),
            source=fields.get("o", ""),
            database=APK_INSTALLED,
        )
        for fields in _paragraphs(installed, str)
        if "P" in fields
    ]


def _paragraphs(content: bytes, field: Callable[[str], str]) -> Iterator[dict[str, str]]:
    """The first value of every field, a paragraph at a time; continuation lines are left out."""
    fields: dict[str, str] = {}
    for line in content.decode(errors="replace").split("\n"):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line[0].isspace():
            name, _, value = line.partition(":")
            fields.setdefault(field(name), value.strip())
    if fields:
        yield fields


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > DATABASE_LIMIT:
        raise DatabaseTooLarge(f"{member.name} has {member.size} bytes, over {DATABASE_LIMIT}")
    file = archive.extractfile(member)
    assert file is not None, "a regular file can be read"
    return file.read()


def _path_and_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = posixpath.dirname(path)


_PARSERS: Mapping[str, Callable[[bytes], list[Package]]] = {
    DPKG_STATUS: dpkg_packages,
    APK_INSTALLED: apk_packages,
}
_WATCHED = frozenset(step for path in _PARSERS for step in _path_and_parents(path))
