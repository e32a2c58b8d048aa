"""Blobs fetched by curl, which downloads are measured beside."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.fastregistry import FastRegistry


@dataclass(frozen=True, slots=True)
class Took:
    """So many blobs in so many seconds."""

    blobs: int
    seconds: float

    @property
    def a_second(self) -> float:
        return self.blobs / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Curl:
    """curl on the blobs of a registry, and a folder for what it writes.

    What it wrote stays until the end: ext4 looks at every file that was just deleted before it
    makes a new one, which whoever comes next would pay for.
    """

    registry: FastRegistry
    repository: str
    folder: Path

    def fetch_each(self, digests: Sequence[str]) -> Took:
        """`curl | tee FILE | sha256sum` for one blob after the other."""
        return self.run_and_check(
            digests,
            "\n".join(
                f"curl -s {self.url(digest)} | tee {self.file(digest)} | sha256sum"
                for digest in digests
            ),
        )

    def fetch_all(self, digests: Sequence[str]) -> Took:
        """One curl for all blobs, one after the other on one connection, then one sha256sum."""
        options = self.folder / "options"
        options.write_text(
            "".join(
                f"url = {self.url(digest)}\noutput = {self.file(digest)}\n" for digest in digests
            )
        )
        files = "\n".join(self.file(digest) for digest in digests)
        return self.run_and_check(
            digests, f"curl -s -K {options}\nxargs sha256sum <<'.'\n{files}\n.\n"
        )

    def url(self, digest: str) -> str:
        return f"http://{self.registry.address}/v2/{self.repository}/blobs/{digest}"

    def file(self, digest: str) -> str:
        return shlex.quote(str(self.folder / digest.removeprefix("sha256:")))

    def run_and_check(self, digests: Sequence[str], script: str) -> Took:
        """Runs the script, which prints a sha256 a line."""
        started = time.perf_counter()
        done = subprocess.run(["bash"], input=script, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - started
        if [f"sha256:{line.split()[0]}" for line in done.stdout.splitlines()] != list(digests):
            raise RuntimeError("curl has other bytes than the registry")
        return Took(len(digests), seconds)
