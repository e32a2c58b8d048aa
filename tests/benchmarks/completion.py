"""The completion check beside two references, written from their description.

per blob       for every manifest that has the blob, one query a blob: is it placed?
per manifest   for every manifest that has the blob, two queries: its blobs, and those placed
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median, quantiles
from typing import Any

from data.completion import find_manifests_completed_by
from data.database import fetch_rows
from data.models import ImageStorage, ImageStoragePlacement, ManifestBlob, database_proxy
from tests.benchmarks.growth import Curve, Growth
from tests.benchmarks.largetables import LargeTables, loading
from tests.benchmarks.site import Site, sha256

BLOBS = 10
SHARING = 1000
LARGE_ROUNDS = 500


def measure(site: Site, growth: Growth, *, rounds: int, quick: bool) -> dict[str, float | None]:
    """Ratios at SHARING manifests of BLOBS blobs; all are complete, so each has to be looked at."""
    shared = fill(site, SHARING, BLOBS)
    ours = timed(lambda: find_manifests_completed_by(shared), rounds)
    per_blob = timed(lambda: check_per_blob(shared), rounds)
    per_manifest = timed(lambda: check_per_manifest(shared), rounds)
    growth.add(Curve.BLOBS, BLOBS, ours * 1000)
    for blobs in () if quick else (5, 100):
        wide = fill(site, SHARING, blobs)
        cost = timed(partial(find_manifests_completed_by, wide), rounds)
        growth.add(Curve.BLOBS, blobs, cost * 1000)
    return {
        "statements": statements_of(lambda: find_manifests_completed_by(shared)),
        "times_faster_than_per_blob_1000": round(per_blob / ours, 1),
        "times_faster_than_per_manifest_1000": round(per_manifest / ours, 1),
        "p99_ms_large": None,
    }


def measure_large(tables: LargeTables, growth: Growth) -> dict[str, float | None]:
    """In the large tables: one manifest, then 10, 1,000 and 100,000 that share the blob."""
    singles = tables.blobs_of_single_manifests(LARGE_ROUNDS)
    find_manifests_completed_by(singles[0])
    seconds = [once(partial(find_manifests_completed_by, blob)) for blob in singles]
    growth.add(Curve.SHARING, 1, median(seconds) * 1000)
    for sharing, blob in tables.shared.items():
        found = len(find_manifests_completed_by(blob))
        if found != sharing:
            raise RuntimeError(f"{found} manifests are complete, {sharing} should be")
        rounds = 5 if found < 10_000 else 1
        cost = timed(partial(find_manifests_completed_by, blob), rounds)
        growth.add(Curve.SHARING, sharing, cost * 1000)
    return {"p99_ms_large": round(quantiles(seconds, n=100)[98] * 1000, 2)}


def fill(site: Site, manifests: int, blobs: int) -> str:
    """So many manifests of the same placed blobs; the digest of one of these."""
    name = f"blob of {next(site.numbers)}"
    with loading(site) as loader:
        first = loader.next_id("manifest")
        last = first + manifests - 1
        blob = loader.insert_blobs(blobs, f"'{name} ' || i")
        loader.insert_manifests(first, last, first)
        for number in range(blobs):
            loader.link_blob(first, last, str(blob + number))
        loader.set_sequences()
    return sha256(f"{name} 0")


def timed(check: Callable[[], object], rounds: int) -> float:
    check()
    return median(once(check) for _ in range(rounds))


def once(check: Callable[[], object]) -> float:
    started = time.perf_counter()
    check()
    return time.perf_counter() - started


def statements_of(check: Callable[[], object]) -> int:
    """How many SQL statements the check runs."""
    database, statements = database_proxy.obj, []
    execute = database.execute_sql

    def execute_and_note(sql: str, *arguments: Any, **options: Any) -> Any:
        statements.append(sql)
        return execute(sql, *arguments, **options)

    database.execute_sql = execute_and_note
    try:
        check()
    finally:
        database.execute_sql = execute
    return len(statements)


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
