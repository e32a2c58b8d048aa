"""The completion check beside two references, written from their description.

per blob       for every manifest that has the blob, one query a blob: is it placed?
per manifest   for every manifest that has the blob, two queries: its blobs, and those placed
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from data.completion import find_manifests_completed_by
from data.database import fetch_rows
from data.models import ImageStorage, ImageStoragePlacement, ManifestBlob, database_proxy
from tests.benchmarks.site import Site

SHARING = 1000
BLOBS = 10


def measure(site: Site, *, rounds: int) -> dict[str, float | None]:
    shared = site.store(b"shared by all")
    fill(site, shared, SHARING)
    site.place(shared)
    ours = timed(lambda: find_manifests_completed_by(shared), rounds)
    per_blob = timed(lambda: check_per_blob(shared), max(1, rounds // 2))
    per_manifest = timed(lambda: check_per_manifest(shared), max(1, rounds // 2))
    return {
        "statements": 1,
        "times_faster_than_per_blob_1000": round(per_blob / ours, 1),
        "times_faster_than_per_manifest_1000": round(per_manifest / ours, 1),
        "p99_ms_large": None,
    }


def fill(site: Site, shared: str, manifests: int) -> None:
    """Manifests of BLOBS placed blobs each, one of which they share."""
    own = [site.store(f"own {number}".encode()) for number in range(BLOBS - 2)]
    for digest in own:
        site.image([digest])
        site.place(digest)
    with database_proxy.atomic():
        for number in range(manifests):
            site.image([shared, *own[: BLOBS - 2]] if number % 2 else [*own[: BLOBS - 2], shared])


def timed(check: Callable[[], object], rounds: int) -> float:
    check()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        check()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def manifests_with(digest: str) -> list[int]:
    query = (
        ManifestBlob.select(ManifestBlob.manifest_id)
        .join(ImageStorage, on=(ImageStorage.id == ManifestBlob.blob_id))
        .where(ImageStorage.content_checksum == digest)
    )
    return [row[0] for row in fetch_rows(query)]


def blobs_of(manifest_id: int) -> list[int]:
    query = ManifestBlob.select(ManifestBlob.blob_id).where(ManifestBlob.manifest_id == manifest_id)
    return [row[0] for row in fetch_rows(query)]


def check_per_blob(digest: str) -> list[int]:
    return [
        manifest_id
        for manifest_id in manifests_with(digest)
        if all(is_placed(blob_id) for blob_id in blobs_of(manifest_id))
    ]


def is_placed(blob_id: int) -> bool:
    query = ImageStoragePlacement.select(ImageStoragePlacement.id)
    return bool(query.where(ImageStoragePlacement.storage_id == blob_id).exists())


def check_per_manifest(digest: str) -> list[int]:
    complete = []
    for manifest_id in manifests_with(digest):
        blobs = set(blobs_of(manifest_id))
        placed = ImageStoragePlacement.select(ImageStoragePlacement.storage_id).where(
            ImageStoragePlacement.storage_id.in_(list(blobs))
        )
        if blobs == {row[0] for row in fetch_rows(placed)}:
            complete.append(manifest_id)
    return complete
