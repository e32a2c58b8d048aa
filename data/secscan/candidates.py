"""Which manifests the periodic cycle looks at: Quay's choice, in all repositories.

Each kind is one statement by an index, and bounded: a cycle that has more to do than it can goes on
with the next. What can grow with manifests that nothing can be done for is walked, a batch a cycle:
a hundred of these must not keep the cycle from all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import JOIN, ModelSelect

from data.database import fetch_rows
from data.models import Manifest, ManifestSecurityStatus, utcnow
from data.secscan.status import CLAIM_LIFETIME, IndexStatus, read_metadata

# Manifests of one kind in one cycle.
BATCH = 100
# Ids that one look for manifests without a row goes through, unless SECURITY_SCANNER_V4_BATCH_SIZE
# says how many.
WINDOW = 20_000


@dataclass(frozen=True, slots=True)
class Place:
    """The last row of a batch, in the order of the walk: the next batch begins behind it."""

    last_indexed: datetime
    row_id: int


def find_newest_without_row(after: int, window: int) -> list[int]:
    """Manifests without a status row among the `window` ids after `after`, newest first."""
    return read_ids(select_without_row(after, window).order_by(Manifest.id.desc()))


def walk_without_row(after: int, window: int) -> tuple[list[int], int]:
    """The same from the lowest id on, and the id that the walk has come to."""
    found = read_ids(select_without_row(after, window).order_by(Manifest.id))
    return found, found[-1] if len(found) == BATCH else after + window


def select_without_row(after: int, window: int) -> ModelSelect[Any]:
    return (
        Manifest.select(Manifest.id)
        .join(
            ManifestSecurityStatus,
            JOIN.LEFT_OUTER,
            on=(ManifestSecurityStatus.manifest_id == Manifest.id),
        )
        .where(
            (Manifest.id > after)
            & (Manifest.id <= after + window)
            & ManifestSecurityStatus.id.is_null()
            & (Manifest.manifest_bytes != "")
        )
        .limit(BATCH)
    )


def find_pending() -> list[int]:
    """Rows that a Quay of 3.18 or newer left at 0."""
    return read_ids(select_rows(IndexStatus.PENDING))


def find_abandoned_claims() -> list[int]:
    """IN_PROGRESS rows whose owner can't be waiting for Clair any more."""
    return read_ids(select_rows(IndexStatus.IN_PROGRESS, older_than=CLAIM_LIFETIME))


def walk_failed(
    threshold: timedelta, maximum_retries: int, place: Place | None
) -> tuple[list[int], Place | None]:
    """FAILED rows older than the threshold, with a retry left by the count in their metadata."""
    rows, place = walk(select_rows(IndexStatus.FAILED, older_than=threshold), place)
    return [int(row[0]) for row in rows if retry_count(row[3]) < maximum_retries], place


def walk_outdated(
    indexer_state: str, threshold: timedelta, place: Place | None
) -> tuple[list[int], Place | None]:
    """COMPLETED rows that Clair filled in another state than its present one."""
    query = select_rows(IndexStatus.COMPLETED, older_than=threshold)
    rows, place = walk(query.where(ManifestSecurityStatus.indexer_hash != indexer_state), place)
    return [int(row[0]) for row in rows], place


def walk(query: ModelSelect[Any], place: Place | None) -> tuple[list[Any], Place | None]:
    """The batch behind `place`, and the place to go on from: None, from the beginning again."""
    row = ManifestSecurityStatus
    if place is not None:
        query = query.where(
            (row.last_indexed > place.last_indexed)
            | ((row.last_indexed == place.last_indexed) & (row.id > place.row_id))
        )
    rows = fetch_rows(query.select_extend(row.last_indexed, row.id, row.metadata_json))
    return rows, Place(rows[-1][1], rows[-1][2]) if len(rows) == BATCH else None


def select_rows(status: IndexStatus, older_than: timedelta | None = None) -> ModelSelect[Any]:
    """By manifestsecuritystatus_index_status; oldest first, so that everyone's turn comes."""
    query = ManifestSecurityStatus.select(ManifestSecurityStatus.manifest_id).where(
        ManifestSecurityStatus.index_status == status
    )
    if older_than is not None:
        before: datetime = utcnow() - older_than
        query = query.where(ManifestSecurityStatus.last_indexed < before)
    order = (ManifestSecurityStatus.last_indexed, ManifestSecurityStatus.id)
    return query.order_by(*order).limit(BATCH)


def read_ids(query: ModelSelect[Any]) -> list[int]:
    return [int(row[0]) for row in fetch_rows(query)]


def retry_count(metadata_json: str) -> int:
    count = read_metadata(metadata_json).get("retry_count", 0)
    return count if isinstance(count, int) else 0
