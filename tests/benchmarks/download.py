"""Blob downloads beside curl on the same blobs: large ones, and many of 10 KiB.

large   `curl | tee FILE | sha256sum`, beside data.placement.BlobPlacer
small   the same for one blob after the other, each on one connection, beside the blob worker's
        process at its defaults on Quay's queue and database: both fetch, hash and write a file a
        blob; the worker also claims the item, takes Quay's lock, puts the file on disk, places the
        blob, asks what it completes, enqueues that, and completes the item
memory  of the worker's process, its peak over one blob of 4 GiB less what it had before

download_full.py beside this file measures more than there is time for here.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from data.models import (
    ImageStorage,
    ImageStoragePlacement,
    QueueItem,
    UploadedBlob,
    database_proxy,
    new_uuid,
    utcnow,
)
from data.placement import BlobPlacer, BlobToPlace
from data.proxycache import create_proxy_organization, create_repository
from data.upstream import UpstreamClient, parse_upstream
from queues.blobwork import BlobWork
from queues.wiring import build_storage
from queues.workqueue import MAX_RETRIES
from tests.benchmarks.fastregistry import MIB, FastRegistry, running_registry
from tests.benchmarks.growth import Curve, Growth
from tests.benchmarks.site import Site
from workers.downloadpool import SETTLED_TOGETHER
from workers.wiring import build_blob_placer, build_upstream_client

ROUNDS = 5
REPOSITORY = "blobs"
LAYERS = 10  # small blobs a manifest
PATIENCE_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What is measured: the large blob, that of the memory, and small ones a round."""

    large_mib: int
    memory_mib: int
    placed: int
    curled: int  # of those that are placed: curl is the slower


WHOLE = Sizes(large_mib=1024, memory_mib=4096, placed=1000, curled=300)


def measure(site: Site, growth: Growth) -> dict[str, float | None]:
    return measure_sizes(site, growth, WHOLE)


def measure_sizes(site: Site, growth: Growth, sizes: Sizes) -> dict[str, float | None]:
    tenth = max(1, sizes.large_mib // 10)
    large_mib = (tenth, sizes.large_mib, sizes.memory_mib)
    with (
        running_registry(large_mib=large_mib, small=ROUNDS * sizes.placed) as registry,
        organization(site, registry, "download") as downloads,
    ):
        downloads.add_manifests()
        ratios_large = [downloads.large_ratio(sizes.large_mib) for _ in range(ROUNDS)]
        for mib in (tenth, sizes.large_mib):
            growth.add(Curve.DOWNLOAD, mib, downloads.place(registry.large[mib]).seconds * 1000)
        with site.worker("proxycacheblobworker") as pid:
            ratios_small = [
                downloads.work_off(digests) / downloads.curl(digests[: sizes.curled]).a_second
                for digests in slices(registry.small, sizes.placed)
            ]
            for count in (max(SETTLED_TOGETHER + 1, sizes.placed // 10), sizes.placed):
                digests = registry.small[:count]
                downloads.forget(digests)
                growth.add(Curve.SMALL_BLOBS, count, count / downloads.work_off(digests) * 1000)
            memory = downloads.memory_growth(pid, registry.large[sizes.memory_mib])
    site.redis.flushall()
    return {
        "ratio_large": round(median(ratios_large), 2),
        "ratio_small": round(median(ratios_small), 2),
        "rss_growth_mib": round(memory, 1),
    }


@dataclass(frozen=True, slots=True)
class Took:
    """So many blobs in so many seconds."""

    blobs: int
    seconds: float

    @property
    def a_second(self) -> float:
        return self.blobs / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloads:
    """An organisation that proxies the registry, and a folder for what curl writes."""

    site: Site
    registry: FastRegistry
    organization: str
    repository_id: int
    folder: Path
    placer: BlobPlacer
    client: UpstreamClient

    def add_manifests(self) -> None:
        """Of LAYERS small blobs each, all of them placeholders; the large blobs are in none."""
        with database_proxy.atomic():
            for layers in slices(self.registry.small, LAYERS):
                self.site.write_image(layers)
            for mib, digest in self.registry.large.items():
                ImageStorage.create(content_checksum=digest, image_size=mib * MIB)

    def large_ratio(self, mib: int) -> float:
        """How much sooner our code has placed the blob than curl and its pipeline have it."""
        digest = self.registry.large[mib]
        return self.curl([digest]).seconds / self.place(digest).seconds

    def curl(self, digests: Sequence[str]) -> Took:
        """`curl | tee FILE | sha256sum` for one blob after the other."""
        return self.run_and_check(
            digests,
            "\n".join(
                f"curl -s {self.url(digest)} | tee {self.file(digest)} | sha256sum"
                for digest in digests
            ),
        )

    def curl_kept(self, digests: Sequence[str]) -> Took:
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
        return f"http://{self.registry.address}/v2/{REPOSITORY}/blobs/{digest}"

    def file(self, digest: str) -> str:
        return shlex.quote(str(self.folder / digest.removeprefix("sha256:")))

    def run_and_check(self, digests: Sequence[str], script: str) -> Took:
        """Runs the script, which prints a sha256 a line.

        What it wrote stays until the end: ext4 looks at every file that was just deleted before it
        makes a new one, which whoever comes next would pay for.
        """
        started = time.perf_counter()
        done = subprocess.run(["bash"], input=script, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - started
        if [f"sha256:{line.split()[0]}" for line in done.stdout.splitlines()] != list(digests):
            raise RuntimeError("curl has other bytes than the registry")
        return Took(len(digests), seconds)

    def place(self, digest: str) -> Took:
        blob = BlobToPlace(
            digest=digest,
            repository_id=self.repository_id,
            upstream_repository=REPOSITORY,
            keep_seconds=3600,
        )
        started = time.perf_counter()
        self.placer.place(blob, self.client)
        took = Took(1, time.perf_counter() - started)
        self.forget([digest])
        return took

    def forget(self, digests: Sequence[str]) -> None:
        """Makes placeholders of them again."""
        blobs = ImageStorage.select(ImageStorage.id).where(
            ImageStorage.content_checksum.in_(digests)
        )
        placements = ImageStoragePlacement.delete()  # type: ignore[misc]
        placements.where(ImageStoragePlacement.storage_id.in_(blobs)).execute()
        for digest in digests:
            encoded = digest.removeprefix("sha256:")
            (self.site.storage / "sha256" / encoded[:2] / encoded).unlink(missing_ok=True)

    def work_off(self, digests: Sequence[str]) -> float:
        """Has the worker that runs place them; blobs a second, from first to last placement.

        More of them than SETTLED_TOGETHER, or there may be one moment alone.
        """
        first, *others = self.moments_of_placement(digests)
        later = [each for each in others if each > first]  # several are placed at one moment
        return len(later) / (later[-1] - first).total_seconds()

    def moments_of_placement(self, digests: Sequence[str]) -> list[datetime]:
        """Has the worker that runs place them; when it placed each, in that order."""
        UploadedBlob.delete().execute()  # type: ignore[misc]
        with database_proxy.atomic():
            QueueItem.insert_many([self.item(digest) for digest in digests]).execute()
        self.wait_for_the_worker()
        placed = UploadedBlob.select(UploadedBlob.uploaded_at).order_by(UploadedBlob.uploaded_at)
        moments = [each.uploaded_at for each in placed]
        if len(moments) != len(digests):
            raise RuntimeError(f"{len(digests) - len(moments)} blobs were not placed")
        return moments

    def item(self, digest: str) -> dict[str, Any]:
        work = BlobWork(
            digest=digest, repository_id=self.repository_id, namespace=self.organization
        )
        return {
            "queue_name": "/".join(("proxycacheblob", *work.path(), "")),
            "body": json.dumps(work.body()),
            "available_after": utcnow(),
            "available": True,
            "retries_remaining": MAX_RETRIES,
            "state_id": new_uuid(),
        }

    def wait_for_the_worker(self) -> None:
        """Looks seldom: each look takes from what is measured."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while QueueItem.select().exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the blob worker isn't done after {PATIENCE_SECONDS} s")
            time.sleep(0.2)

    def memory_growth(self, pid: int, digest: str) -> float:
        """MiB that the worker's resident memory grows by, at its peak, while it places the blob."""
        before = memory_mib(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is what there is now
        self.moments_of_placement([digest])
        peak = memory_mib(pid, "VmHWM")
        self.forget([digest])
        return max(0.0, peak - before)


def memory_mib(pid: int, name: str) -> float:
    """VmRSS: what is resident now; VmHWM: the most that was since `clear_refs` was written to."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no {name}")


def slices(digests: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(digests), size):
        yield digests[start : start + size]


@contextmanager
def organization(site: Site, registry: FastRegistry, name: str) -> Iterator[Downloads]:
    """An organisation called `name` that proxies the registry."""
    folder = site.storage.with_name(f"curl-{name}")
    folder.mkdir()
    create_proxy_organization(name, registry.address, insecure=True)
    upstream = parse_upstream(registry.address, insecure=True)
    with closing(build_upstream_client(site.settings, upstream)) as client:
        yield Downloads(
            site=site,
            registry=registry,
            organization=name,
            repository_id=create_repository(name, REPOSITORY),
            folder=folder,
            placer=build_blob_placer(site.settings, build_storage(site.settings)),
            client=client,
        )
    shutil.rmtree(folder)
