"""Blob downloads beside curl on the same blobs: large ones, and many of 10 KiB.

large   `curl | tee FILE | sha256sum`, beside data.placement.BlobPlacer
small   the same for one blob after the other, each on one connection, beside the blob worker's
        process at its defaults on Quay's queue and database: both fetch, hash and write a file a
        blob; the worker also claims the item, takes Quay's lock, puts the file on disk, places the
        blob, asks what it completes, enqueues that, and completes the item
memory  of the worker's process, its peak over one blob of 4 GiB less what it had before

Into local storage, and into S3: rclone's server, a process beside the rest on the same cores.
download_full.py beside this file measures more than there is time for here.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import Any

from data.models import (
    ImageStorage,
    ImageStorageLocation,
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
from tests.benchmarks.curl import Curl, Took
from tests.benchmarks.fastregistry import MIB, FastRegistry, running_registry
from tests.benchmarks.growth import Curve, Growth
from tests.benchmarks.memory import forget_peak, peak_mib, resident_mib
from tests.benchmarks.s3 import running_s3
from tests.benchmarks.site import Site
from workers.downloadpool import SETTLED_TOGETHER
from workers.wiring import build_blob_placer, build_upstream_client

Figures = dict[str, float | None]
ROUNDS = 5
REPOSITORY = "blobs"
LAYERS = 10  # small blobs a manifest
PATIENCE_SECONDS = 300.0
S3 = "s3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What is measured: the large blob, that of the memory, and small ones a round."""

    large_mib: int
    memory_mib: int
    placed: int
    curled: int  # of those that are placed: curl is the slower


WHOLE = Sizes(large_mib=1024, memory_mib=4096, placed=1000, curled=300)


def measure(site: Site, growth: Growth) -> Figures:
    return measure_sizes(site, growth, WHOLE)


def measure_sizes(site: Site, growth: Growth, sizes: Sizes) -> Figures:
    tenth = max(1, sizes.large_mib // 10)
    large_mib = (tenth, sizes.large_mib, sizes.memory_mib)
    with (
        running_registry(large_mib=large_mib, small=ROUNDS * sizes.placed) as registry,
        organization(site, registry, "download") as local,
        into_s3(local) as s3,
    ):
        local.add_manifests()
        storages = {"": local, "_s3": s3}
        large = large_ratios(list(storages.values()), registry.large[sizes.large_mib])
        figures: Figures = {}
        for (suffix, downloads), ratio in zip(storages.items(), large, strict=True):
            small, memory = measure_worker(downloads, sizes)
            figures[f"ratio_large{suffix}"] = round(ratio, 2)
            figures[f"ratio_small{suffix}"] = round(small, 2)
            figures[f"rss_growth_mib{suffix}"] = round(memory, 1)
        measure_growth(local, growth, (tenth, sizes.large_mib), sizes.placed)
    site.redis.flushall()
    return figures


def large_ratios(storages: Sequence[Downloads], digest: str) -> list[float]:
    """How much sooner the blob is in each storage than curl and its pipeline have it."""
    rounds = [
        [curl.seconds / each.seconds for each in ours]
        for curl, ours in large_rounds(storages, digest)
    ]
    return [median(ratios) for ratios in zip(*rounds, strict=True)]


def large_rounds(
    storages: Sequence[Downloads], digest: str
) -> Iterator[tuple[Took, Sequence[Took]]]:
    """What curl took, and then each storage; none waits for the disk to take another's bytes."""
    for _ in range(ROUNDS):
        os.sync()
        curl, ours = storages[0].curl.fetch_each([digest]), []
        for each in storages:
            os.sync()
            ours.append(each.place(digest))
        yield curl, ours


def measure_worker(downloads: Downloads, sizes: Sizes) -> tuple[float, float]:
    """How many times as many small blobs a second it places as curl fetches, and its memory."""
    with downloads.worker() as pid:
        rounds = small_rounds(downloads, sizes.placed, sizes.curled)
        ratios = [ours / curl.a_second for _, ours, curl in rounds]
        memory = downloads.memory_growth(pid, downloads.registry.large[sizes.memory_mib])
    return median(ratios), memory


def small_rounds(
    downloads: Downloads, placed: int, curled: int
) -> Iterator[tuple[Sequence[str], float, Took]]:
    """The blobs of a round, how many a second the worker placed, and what curl took for some."""
    downloads.forget(downloads.registry.small)
    for digests in slices(downloads.registry.small, placed):
        yield digests, downloads.work_off(digests), downloads.curl.fetch_each(digests[:curled])


def measure_growth(
    downloads: Downloads, growth: Growth, large_mib: Sequence[int], placed: int
) -> None:
    for mib in large_mib:
        took = downloads.place(downloads.registry.large[mib])
        growth.add(Curve.DOWNLOAD, mib, took.seconds * 1000)
    with downloads.worker():
        for count in (max(SETTLED_TOGETHER + 1, placed // 10), placed):
            digests = downloads.registry.small[:count]
            downloads.forget(digests)
            growth.add(Curve.SMALL_BLOBS, count, count / downloads.work_off(digests) * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloads:
    """An organisation that proxies the registry, its blobs placed into one storage."""

    site: Site
    registry: FastRegistry
    organization: str
    repository_id: int
    curl: Curl
    storage: Mapping[str, Any]  # changes to the config that choose it
    placer: BlobPlacer
    client: UpstreamClient

    def add_manifests(self) -> None:
        """Of LAYERS small blobs each, all of them placeholders; the large blobs are in none."""
        with database_proxy.atomic():
            for layers in slices(self.registry.small, LAYERS):
                self.site.write_image(layers)
            for mib, digest in self.registry.large.items():
                ImageStorage.create(content_checksum=digest, image_size=mib * MIB)
        database_proxy.execute_sql("ANALYZE")  # as PostgreSQL does by itself within a minute

    @contextmanager
    def worker(self) -> Iterator[int]:
        """A blob worker at its defaults; its pid."""
        with self.site.worker("proxycacheblobworker", **self.storage) as pid:
            yield pid

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
        """Makes placeholders of them again. What S3 has is replaced by the next that comes."""
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
        before = resident_mib(pid)
        forget_peak(pid)
        self.moments_of_placement([digest])
        peak = peak_mib(pid)
        self.forget([digest])
        return max(0.0, peak - before)


def slices(digests: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(digests), size):
        yield digests[start : start + size]


@contextmanager
def organization(site: Site, registry: FastRegistry, name: str) -> Iterator[Downloads]:
    """An organisation called `name` that proxies the registry into local storage."""
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
            curl=Curl(registry=registry, repository=REPOSITORY, folder=folder),
            storage={},
            placer=build_blob_placer(site.settings, build_storage(site.settings)),
            client=client,
        )
    shutil.rmtree(folder)


@contextmanager
def into_s3(downloads: Downloads) -> Iterator[Downloads]:
    """The same, but that blobs are placed into a bucket of an S3 server."""
    if not ImageStorageLocation.select().where(ImageStorageLocation.name == S3).exists():
        ImageStorageLocation.create(name=S3)
    with running_s3(2 * WHOLE.memory_mib * MIB) as engine:
        storage = {
            "DISTRIBUTED_STORAGE_CONFIG": {S3: engine},
            "DISTRIBUTED_STORAGE_PREFERENCE": [S3],
        }
        settings = downloads.site.settings_with(**storage)
        placer = build_blob_placer(settings, build_storage(settings))
        yield replace(downloads, storage=storage, placer=placer)
