"""Layers with genuine package databases: what a Debian and an Alpine base image hold, in small.

The names and versions are those of Debian 12 and Alpine 3.19, whose vulnerabilities any scanner
knows. All else is made the same way each time, so that digests stay the same on one machine.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workers.demo.images import BlobSource, Layer, sha256_digest

MODIFIED = 1704067200  # 2024-01-01, seconds since 1970


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """A paragraph of dpkg's status file. `source` is empty where it is the package's own name."""

    name: str
    version: str
    section: str
    size: int  # kB installed
    source: str = ""
    depends: str = ""
    summary: str = "a package of the base system"


@dataclass(frozen=True, slots=True)
class AlpinePackage:
    """A paragraph of apk's installed database."""

    name: str
    version: str
    size: int  # bytes installed
    origin: str
    files: tuple[str, ...]  # paths
    summary: str = "a package of the base system"


DEBIAN_BASE = (
    DebianPackage("adduser", "3.134", "admin", 686, depends="passwd"),
    DebianPackage("apt", "2.6.1", "admin", 4232, depends="libc6 (>= 2.34), libssl3"),
    DebianPackage("base-files", "12.4+deb12u5", "admin", 341),
    DebianPackage("bash", "5.2.15-2+b2", "shells", 7164, "bash (5.2.15-2)", "base-files"),
    DebianPackage("coreutils", "9.1-1", "utils", 18062, depends="libc6 (>= 2.34)"),
    DebianPackage("dpkg", "1.21.22", "admin", 6380, depends="tar (>= 1.28-1)"),
    DebianPackage("gpgv", "2.2.40-1.1", "utils", 897, "gnupg2", "libc6 (>= 2.34)"),
    DebianPackage("libc6", "2.36-9+deb12u4", "libs", 12984, "glibc", "libgcc-s1"),
    DebianPackage("libgcc-s1", "12.2.0-14", "libs", 140, "gcc-12"),
    DebianPackage("libgnutls30", "3.7.9-2+deb12u2", "libs", 3133, "gnutls28"),
    DebianPackage("libssl3", "3.0.11-1~deb12u2", "libs", 6018, "openssl"),
    DebianPackage("passwd", "1:4.13+dfsg1-1+b1", "admin", 2831, "shadow (1:4.13+dfsg1-1)"),
    DebianPackage("perl-base", "5.36.0-7+deb12u1", "perl", 7862, "perl"),
    DebianPackage("tar", "1.34+dfsg-1.2", "utils", 3152),
    DebianPackage("zlib1g", "1:1.2.13.dfsg-1", "libs", 168, "zlib"),
)
DEBIAN_WEB = (
    DebianPackage("ca-certificates", "20230311", "misc", 386, depends="openssl (>= 1.1.1)"),
    DebianPackage("curl", "7.88.1-10+deb12u4", "web", 500, depends="libc6 (>= 2.34)"),
    DebianPackage("nginx", "1.22.1-9", "httpd", 1229, depends="libssl3 (>= 3.0.0)"),
    DebianPackage("openssl", "3.0.11-1~deb12u2", "utils", 2293, depends="libssl3 (>= 3.0.9)"),
)
ALPINE_BASE = (
    AlpinePackage("alpine-baselayout", "3.4.3-r2", 327680, "alpine-baselayout", ("etc/motd",)),
    AlpinePackage("apk-tools", "2.14.0-r5", 307200, "apk-tools", ("sbin/apk",)),
    AlpinePackage("busybox", "1.36.1-r15", 962560, "busybox", ("bin/busybox",)),
    AlpinePackage("libcrypto3", "3.1.4-r2", 4222976, "openssl", ("lib/libcrypto.so.3",)),
    AlpinePackage("libssl3", "3.1.4-r2", 679936, "openssl", ("lib/libssl.so.3",)),
    AlpinePackage("musl", "1.2.4_git20230717-r4", 647168, "musl", ("lib/ld-musl-x86_64.so.1",)),
    AlpinePackage("zlib", "1.3-r2", 110592, "zlib", ("lib/libz.so.1.3",)),
)


def debian_layer(
    packages: Sequence[DebianPackage], *, architecture: str = "amd64", payload: int = 0
) -> Layer:
    """A layer whose `var/lib/dpkg/status` lists all of `packages`.

    `payload` bytes that can't be compressed stand for the programs.
    """
    status = "\n".join(dpkg_paragraph(package, architecture) for package in packages)
    release = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'
    return tar_layer(
        {
            "etc/debian_version": b"12.4\n",
            "usr/lib/os-release": release.encode(),
            "etc/os-release": release.encode(),
            "var/lib/dpkg/status": status.encode(),
            f"usr/lib/{packages[-1].name}.bin": noise(status + architecture, payload),
        }
    )


def alpine_layer(
    packages: Sequence[AlpinePackage], *, architecture: str = "x86_64", payload: int = 0
) -> Layer:
    """A layer whose `lib/apk/db/installed` lists all of `packages`."""
    installed = "\n".join(apk_paragraph(package, architecture) for package in packages)
    release = 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.19.0\n'
    return tar_layer(
        {
            "etc/alpine-release": b"3.19.0\n",
            "etc/os-release": release.encode(),
            "lib/apk/db/installed": installed.encode(),
            f"usr/lib/{packages[-1].name}.bin": noise(installed + architecture, payload),
        }
    )


def application_layer(name: str, *, payload: int) -> Layer:
    """A layer without packages: an application with `payload` bytes of program."""
    return tar_layer({f"srv/{name}/start": b"#!/bin/sh\n", f"srv/{name}/app": noise(name, payload)})


def dpkg_paragraph(package: DebianPackage, architecture: str) -> str:
    fields = {
        "Package": package.name,
        "Status": "install ok installed",
        "Priority": "required",
        "Section": package.section,
        "Installed-Size": str(package.size),
        "Maintainer": "Nobody <nobody@example.org>",
        "Architecture": architecture,
        "Source": package.source,
        "Version": package.version,
        "Depends": package.depends,
        "Description": f"{package.summary}\n Written for the demo in the form that dpkg has.",
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def apk_paragraph(package: AlpinePackage, architecture: str) -> str:
    checksum = base64.b64encode(hashlib.sha1(package.name.encode()).digest()).decode()
    lines = [
        f"C:Q1{checksum}",
        f"P:{package.name}",
        f"V:{package.version}",
        f"A:{architecture}",
        f"S:{package.size // 2}",
        f"I:{package.size}",
        f"T:{package.summary}",
        "L:MIT",
        f"o:{package.origin}",
        "m:Nobody <nobody@example.org>",
        f"t:{MODIFIED}",
    ]
    for path in package.files:
        directory, _, name = path.rpartition("/")
        lines += [f"F:{directory}", f"R:{name}", f"Z:Q1{checksum}"]
    return "".join(f"{line}\n" for line in lines)


def noise(seed: str, size: int) -> bytes:
    """Bytes that no compression makes smaller, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def tar_layer(files: Mapping[str, bytes]) -> Layer:
    """A gzip layer with these files and the directories they lie in."""
    content = tar(files)
    blob = BlobSource.of(gzip.compress(content, compresslevel=6, mtime=0))
    return Layer(blob=blob, diff_id=sha256_digest(content))


def tar(files: Mapping[str, bytes]) -> bytes:
    """A tar archive without anything in it that differs from run to run."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for directory in sorted(directories_of(files)):
            archive.addfile(tar_entry(directory, mode=0o755, kind=tarfile.DIRTYPE))
        for path, content in files.items():
            entry = tar_entry(path, mode=0o644, kind=tarfile.REGTYPE)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def tar_entry(path: str, *, mode: int, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.mode, entry.type, entry.mtime = mode, kind, MODIFIED
    return entry


def directories_of(files: Mapping[str, bytes]) -> set[str]:
    steps = (path.split("/")[:-1] for path in files)
    return {"/".join(parts[:count]) for parts in steps for count in range(1, len(parts) + 1)}
