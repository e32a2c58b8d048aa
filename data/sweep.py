"""Finds stuck manifests from the database alone: what no event tells of, or a lost one told.

Walks over manifest ids, a page at a time: the rows that say -2, those that say IN_PROGRESS, and the
manifests of proxied repositories that have no row. A page is a window of ids, so each statement
reads a bounded range of an index, however many manifests there are and whatever their rows say; all
are plain reads, and lock nothing that Quay would wait for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from peewee import JOIN, Case, ModelSelect, fn

from data.completion import (
    SharingManifest,
    group_by_manifest,
    keep_complete,
    select_candidates,
)
from data.database import fetch_rows
from data.errors import ManifestError, NotFoundError
from data.manifests import parse_manifest
from data.models import (
    ImageStoragePlacement,
    Manifest,
    ManifestBlob,
    ManifestSecurityStatus,
    ProxyCacheConfig,
    QueueItem,
    Repository,
    User,
    utcnow,
)
from data.secscan.status import IndexStatus

# Manifests of a page, and the ids that one statement looks through to find them.
PAGE = 500
WINDOW = 20_000
# A blob whose retries ran out is tried again this often.
FRESH_TRY_SECONDS = 3600


class Stuck(Enum):
    """Why a manifest is looked at."""

    UNSUPPORTED = "unsupported"  # its row says -2
    CLAIMED = "claimed"  # its row says IN_PROGRESS
    NO_ROW = "no_row"  # it has none


STATUS_OF = {
    Stuck.UNSUPPORTED: IndexStatus.MANIFEST_UNSUPPORTED,
    Stuck.CLAIMED: IndexStatus.IN_PROGRESS,
}


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a walk: the ids found, and the id after which the next page begins."""

    manifest_ids: tuple[int, ...]
    after: int


@dataclass(frozen=True, slots=True)
class ImagePage:
    """One page of a walk: its complete images, and the id after which the next page begins."""

    images: tuple[SharingManifest, ...]
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRow:
    """An IN_PROGRESS row, for whoever can tell whether its owner lives."""

    manifest_id: int
    metadata_json: str
    last_indexed: datetime  # naive UTC


def last_manifest_id() -> int:
    """Where a walk ends; manifests that come later are the next walk's."""
    return int(fetch_rows(Manifest.select(fn.MAX(Manifest.id)))[0][0] or 0)


def next_page(stuck: Stuck, after: int, *, namespace: str | None = None) -> Page:
    """The next manifests that are stuck in this way, in id order: PAGE of WINDOW ids at most.

    Of all proxied organisations, or of the one called `namespace`. One statement.
    """
    query = select_without_row() if stuck is Stuck.NO_ROW else select_by_status(STATUS_OF[stuck])
    column = Manifest.id if stuck is Stuck.NO_ROW else ManifestSecurityStatus.manifest_id
    query = query.where((column > after) & (column <= after + WINDOW))
    if namespace is not None:
        query = query.where(User.username == namespace)
    ids = tuple(int(row[0]) for row in fetch_rows(query.order_by(column).limit(PAGE)))
    return Page(ids, ids[-1] if len(ids) == PAGE else after + WINDOW)


def find_stuck_images(
    stuck: Stuck, *, after: int = 0, namespace: str | None = None
) -> Iterator[ImagePage]:
    """Page after page of one walk, up to the manifest that is the last one now.

    Two statements a page; memory is that of a page, however many manifests there are.
    """
    last = last_manifest_id()
    while after < last:
        page = next_page(stuck, after, namespace=namespace)
        after = page.after
        yield ImagePage(tuple(filter(is_image, find_complete(page.manifest_ids))), after)


def is_image(complete: SharingManifest) -> bool:
    try:
        manifest = parse_manifest(complete.manifest_bytes, complete.media_type)
    except ManifestError:
        return False
    return manifest.unscannable is None


def require_proxy_organization(name: str) -> None:
    """Raises `NotFoundError` unless a proxy organisation has this name: nothing else is stuck."""
    query = (
        User.select(ProxyCacheConfig.id)
        .join(ProxyCacheConfig, JOIN.LEFT_OUTER, on=(ProxyCacheConfig.organization_id == User.id))
        .where(User.username == name)
    )
    rows = fetch_rows(query)
    if not rows:
        raise NotFoundError(f"Quay has no organisation {name}; check the spelling")
    if rows[0][0] is None:
        raise NotFoundError(
            f"{name} is no proxy organisation, so nothing in it is stuck; "
            "name its images as org/repo:tag instead"
        )


def select_by_status(status: IndexStatus) -> ModelSelect[Any]:
    """By manifestsecuritystatus_manifest_id, whose order is the walk's."""
    return (
        ManifestSecurityStatus.select(ManifestSecurityStatus.manifest_id)
        .join(Repository, on=(Repository.id == ManifestSecurityStatus.repository_id))
        .join(User, on=(User.id == Repository.namespace_user_id))
        .join(ProxyCacheConfig, on=(ProxyCacheConfig.organization_id == User.id))
        .where(ManifestSecurityStatus.index_status == status)
    )


def select_without_row() -> ModelSelect[Any]:
    """By the primary key of manifest; a child that nobody pulled has no bytes and is passed."""
    return (
        Manifest.select(Manifest.id)
        .join(Repository, on=(Repository.id == Manifest.repository_id))
        .join(User, on=(User.id == Repository.namespace_user_id))
        .join(ProxyCacheConfig, on=(ProxyCacheConfig.organization_id == User.id))
        .join_from(
            Manifest,
            ManifestSecurityStatus,
            JOIN.LEFT_OUTER,
            on=(ManifestSecurityStatus.manifest_id == Manifest.id),
        )
        .where(ManifestSecurityStatus.id.is_null() & (Manifest.manifest_bytes != ""))
    )


def find_complete(manifest_ids: Sequence[int]) -> list[SharingManifest]:
    """Those of the manifests whose layers are placed, with their bytes. One statement.

    What is complete still may be no image; the caller parses it to see.
    """
    return keep_complete(find_candidates(manifest_ids))


def find_candidates(manifest_ids: Sequence[int]) -> list[SharingManifest]:
    """Those that may be complete, or lack one blob that is no config. One statement."""
    if not manifest_ids:
        return []
    counts = count_missing_blobs(manifest_ids).alias("counts")
    rows = select_candidates(counts, Manifest.manifest_bytes).tuples().iterator()
    return group_by_manifest(rows)


def count_missing_blobs(manifest_ids: Sequence[int]) -> ModelSelect[ManifestBlob]:
    """(manifest_id, missing): how many blobs of each manifest are placeholders."""
    is_missing = Case(None, [(ImageStoragePlacement.id.is_null(), 1)], 0)
    return (
        ManifestBlob.select(ManifestBlob.manifest_id, fn.SUM(is_missing).alias("missing"))
        .join(
            ImageStoragePlacement,
            JOIN.LEFT_OUTER,
            on=(ImageStoragePlacement.storage_id == ManifestBlob.blob_id),
        )
        .where(ManifestBlob.manifest_id.in_(list(manifest_ids)))
        .group_by(ManifestBlob.manifest_id)
    )


def load_claims(manifest_ids: Sequence[int]) -> list[ClaimedRow]:
    """The IN_PROGRESS rows of these manifests. One statement."""
    if not manifest_ids:
        return []
    claimed = ManifestSecurityStatus.manifest_id.in_(list(manifest_ids)) & (
        ManifestSecurityStatus.index_status == IndexStatus.IN_PROGRESS
    )
    rows = ManifestSecurityStatus.select(
        ManifestSecurityStatus.manifest_id,
        ManifestSecurityStatus.metadata_json,
        ManifestSecurityStatus.last_indexed,
    ).where(claimed)
    return [
        ClaimedRow(manifest_id=row[0], metadata_json=row[1], last_indexed=row[2])
        for row in fetch_rows(rows)
    ]


def find_exhausted_items(queue_name: str, after: int) -> list[QueueItem]:
    """Items of the queue without a retry left, an hour after their last try; PAGE of them by id.

    The last try itself runs with no retry left, so an item in somebody's hands is none of them.
    """
    now = utcnow()
    idle = QueueItem.available | (QueueItem.processing_expires <= now)
    query = (
        QueueItem.select()
        .where(
            (QueueItem.id > after)
            & QueueItem.queue_name.startswith(f"{queue_name}/")
            & (QueueItem.retries_remaining <= 0)
            & (QueueItem.available_after <= now - timedelta(seconds=FRESH_TRY_SECONDS))
            & idle
        )
        .order_by(QueueItem.id)
        .limit(PAGE)
    )
    return list(query)
