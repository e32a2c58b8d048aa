"""Which manifests the periodic cycle looks at: Quay's choice, in all repositories.

Each kind is one statement by an index, and bounded: a cycle that has more to do than it can goes on
with the next.
"""

from __future__ import annotations

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


def find_without_row(after: int, window: int) -> list[int]:
    """Manifests without a status row among the `window` ids after `after`, newest first."""
    query = (
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
        .order_by(Manifest.id.desc())
        .limit(BATCH)
    )
    return read_ids(query)


def find_pending() -> list[int]:
    """Rows that a Quay of 3.18 or newer left at 0."""
    return read_ids(select_rows(IndexStatus.PENDING))


def find_abandoned_claims() -> list[int]:
    """IN_PROGRESS rows whose owner can't be waiting for Clair any more."""
    return read_ids(select_rows(IndexStatus.IN_PROGRESS, older_than=CLAIM_LIFETIME))


def find_failed(threshold: timedelta, maximum_retries: int) -> list[int]:
    """FAILED rows older than the threshold, with a retry left by the count in their metadata."""
    query = select_rows(IndexStatus.FAILED, older_than=threshold)
    rows = fetch_rows(query.select_extend(ManifestSecurityStatus.metadata_json))
    return [int(row[0]) for row in rows if retry_count(row[1]) < maximum_retries]


def find_outdated(indexer_state: str, threshold: timedelta) -> list[int]:
    """COMPLETED rows that Clair filled in another state than its present one."""
    query = select_rows(IndexStatus.COMPLETED, older_than=threshold)
    return read_ids(query.where(ManifestSecurityStatus.indexer_hash != indexer_state))


def select_rows(status: IndexStatus, older_than: timedelta | None = None) -> ModelSelect[Any]:
    """By manifestsecuritystatus_index_status; oldest first, so that everyone's turn comes."""
    query = ManifestSecurityStatus.select(ManifestSecurityStatus.manifest_id).where(
        ManifestSecurityStatus.index_status == status
    )
    if older_than is not None:
        before: datetime = utcnow() - older_than
        query = query.where(ManifestSecurityStatus.last_indexed < before)
    return query.order_by(ManifestSecurityStatus.last_indexed).limit(BATCH)


def read_ids(query: ModelSelect[Any]) -> list[int]:
    return [int(row[0]) for row in fetch_rows(query)]


def retry_count(metadata_json: str) -> int:
    count = read_metadata(metadata_json).get("retry_count", 0)
    return count if isinstance(count, int) else 0
