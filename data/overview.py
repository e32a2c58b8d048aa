"""What an operator asks of the whole database at a glance: each a read whose cost is bounded.

Nothing here walks the manifests: the counts of status rows come from the index on `index_status`,
and every list is the first rows of an index.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import JOIN, fn

from data.blob_records import find_blobs_of_manifest, placed_digests
from data.database import fetch_rows
from data.errors import ManifestError
from data.manifest_records import ManifestRecord, load_manifests
from data.manifests import parse_manifest
from data.models import (
    ImageStorage,
    ImageStoragePlacement,
    Manifest,
    ManifestBlob,
    ManifestSecurityStatus,
    QueueItem,
    Repository,
    User,
    utcnow,
)
from data.secscan.status import IndexStatus
from data.secscan.status_rows import read_row

FAILURES = (IndexStatus.FAILED, IndexStatus.SCAN_RETRIES_EXHAUSTED)
# How many of Quay's blob items are looked at, and of the manifests that wait for their blobs are
# counted; where there are more, the count says so.
MOST_ITEMS = 500
MOST_COUNTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedManifest:
    """A manifest whose row says that Clair failed on it."""

    manifest_id: int
    repository: str  # org/repo
    digest: str
    error: str
    retry_count: int
    last_indexed: datetime  # naive UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingManifest:
    """A manifest that has an item in Quay's blob queue, and how many of its layers are placed."""

    manifest_id: int
    repository: str  # org/repo
    digest: str
    placed: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits for blobs. At most MOST_ITEMS items were looked at, `more` if there are others.

    `manifests` are the first of the `count` that wait.
    """

    blobs: int
    more: bool
    oldest_due_seconds: float | None  # since when the first item could have been done
    count: int
    manifests: tuple[WaitingManifest, ...]


NOTHING_WAITS = Waiting(blobs=0, more=False, oldest_due_seconds=None, count=0, manifests=())


def count_status_rows() -> dict[IndexStatus, int]:
    """Rows of manifestsecuritystatus by status. A million rows take about 0.1 s, by the index."""
    query = ManifestSecurityStatus.select(
        ManifestSecurityStatus.index_status, fn.COUNT(ManifestSecurityStatus.id)
    ).group_by(ManifestSecurityStatus.index_status)
    known = {int(status) for status in IndexStatus}
    found = {int(status): int(count) for status, count in fetch_rows(query)}
    return {IndexStatus(status): found.get(status, 0) for status in sorted(known)}


def last_completed() -> datetime | None:
    """When a manifest was last indexed well, naive UTC; None: never."""
    query = (
        ManifestSecurityStatus.select(ManifestSecurityStatus.last_indexed)
        .where(ManifestSecurityStatus.index_status == IndexStatus.COMPLETED)
        .order_by(ManifestSecurityStatus.last_indexed.desc())
        .limit(1)
    )
    rows = fetch_rows(query)
    return rows[0][0] if rows else None


def find_failed_manifests(most: int) -> list[FailedManifest]:
    """The failures written last, at most so many of each failing status. Two SQL statements."""
    found = [each for status in FAILURES for each in find_by_status(status, most)]
    return sorted(found, key=lambda each: each.last_indexed, reverse=True)[:most]


def find_by_status(status: IndexStatus, most: int) -> list[FailedManifest]:
    """One status at a time: with one alone the index gives the newest without sorting."""
    query = (
        ManifestSecurityStatus.select(
            ManifestSecurityStatus, Manifest.digest, Repository.name, User.username
        )
        .join(Manifest, on=(Manifest.id == ManifestSecurityStatus.manifest_id), attr="manifest")
        .join(Repository, on=(Repository.id == Manifest.repository_id), attr="repository")
        .join(User, on=(User.id == Repository.namespace_user_id), attr="owner")
        .where(ManifestSecurityStatus.index_status == status)
        .order_by(ManifestSecurityStatus.id.desc())
        .limit(most)
    )
    return [failed_manifest(record) for record in query]


def failed_manifest(record: Any) -> FailedManifest:
    row = read_row(record)
    repository = record.manifest.repository
    return FailedManifest(
        manifest_id=record.manifest_id,
        repository=f"{repository.owner.username}/{repository.name}",
        digest=record.manifest.digest,
        error=row.error.strip('"'),
        retry_count=row.retry_count,
        last_indexed=row.last_indexed,
    )


def find_waiting(queue_name: str, most: int) -> Waiting:
    """What Quay's blob queue `queue_name` waits for, and at most `most` of the manifests concerned.

    Three SQL statements, and one a manifest. An item's name is
    `<queue>/<organisation>/<repository id>/<digest>/`.
    """
    prefix = f"{queue_name}/"
    query = (
        QueueItem.select(QueueItem.queue_name, QueueItem.available_after)
        .where(QueueItem.queue_name.startswith(prefix))
        .limit(MOST_ITEMS + 1)
    )
    rows = fetch_rows(query)
    if not rows:
        return NOTHING_WAITS
    named = {(repository, digest) for name, _ in rows for repository, digest in blob_of_item(name)}
    oldest = min(due for _, due in rows)
    ids = find_manifests_that_lack(named)
    measured = [measure(record) for record in load_manifests(Manifest.id.in_(ids[:most]))]
    waiting = [each for each in measured if each is not None and each.placed < each.total]
    return Waiting(
        blobs=min(len(named), MOST_ITEMS),
        more=len(rows) > MOST_ITEMS or len(ids) >= MOST_COUNTED,
        oldest_due_seconds=max(0.0, (utcnow() - oldest).total_seconds()),
        count=len(ids) - len(measured) + len(waiting),  # some lack nothing but their config
        manifests=tuple(waiting),
    )


def blob_of_item(name: str) -> list[tuple[int, str]]:
    """(repository id, digest), or nothing for a name that Quay doesn't write."""
    parts = name.rstrip("/").split("/")
    if len(parts) < 4 or not parts[-2].isdecimal():
        return []
    return [(int(parts[-2]), parts[-1])]


def find_manifests_that_lack(named: Collection[tuple[int, str]]) -> list[int]:
    """Manifests of these repositories for which one of these blobs isn't placed, by id."""
    if not named:
        return []
    query = (
        ManifestBlob.select(ManifestBlob.manifest_id)
        .join(ImageStorage, on=(ImageStorage.id == ManifestBlob.blob_id))
        .join(
            ImageStoragePlacement,
            JOIN.LEFT_OUTER,
            on=(ImageStoragePlacement.storage_id == ImageStorage.id),
        )
        .where(
            ImageStorage.content_checksum.in_(sorted({digest for _, digest in named}))
            & ManifestBlob.repository_id.in_(sorted({repository for repository, _ in named}))
            & ImageStoragePlacement.id.is_null()
        )
        .distinct()
        .order_by(ManifestBlob.manifest_id)
        .limit(MOST_COUNTED)
    )
    return [int(row[0]) for row in fetch_rows(query)]


def measure(record: ManifestRecord) -> WaitingManifest | None:
    """How many of its layers are placed, told as `data.secscan.story` tells it."""
    try:
        manifest = parse_manifest(record.manifest_bytes, record.media_type)
    except ManifestError:
        return None
    required = manifest.required_layer_digests
    placed = required & placed_digests(find_blobs_of_manifest(record.manifest_id))
    return WaitingManifest(
        manifest_id=record.manifest_id,
        repository=record.full_repository,
        digest=record.digest,
        placed=len(placed),
        total=len(required),
    )


def load_names(manifest_ids: Sequence[int]) -> dict[int, tuple[str, str]]:
    """(org/repo, digest) of each manifest that is still there; one SQL statement."""
    query = (
        Manifest.select(Manifest.id, User.username, Repository.name, Manifest.digest)
        .join(Repository, on=(Repository.id == Manifest.repository_id))
        .join(User, on=(User.id == Repository.namespace_user_id))
        .where(Manifest.id.in_(list(manifest_ids)))
    )
    return {int(row[0]): (f"{row[1]}/{row[2]}", str(row[3])) for row in fetch_rows(query)}
