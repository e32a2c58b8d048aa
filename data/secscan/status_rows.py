"""The row of `manifestsecuritystatus` as it stands in the table: read, inserted, deleted.

Who may do which is not decided here (`data.secscan.status`), nor in what transaction
(`data.secscan.status_records`).
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from peewee import JOIN, ModelSelect, fn

from data.database import lock_rows
from data.errors import UnknownStatus
from data.models import Manifest, ManifestSecurityStatus, utcnow
from data.secscan.notifications import select_wishes
from data.secscan.status import (
    INDEXER_VERSION,
    IndexStatus,
    StatusRow,
    read_claim,
    read_metadata,
)
from data.statements import Statement


def load_row(manifest_id: int, *, lock: bool = False) -> StatusRow | None:
    """The row of the manifest; with `lock`, nobody else changes it until the transaction ends."""
    rows = (LOCKED_ROW if lock else ROW).rows(manifest_id)
    if not rows:
        return None
    row_id, status, last_indexed, indexer_hash, error_json, metadata_json = rows[0]
    return read_row(
        ManifestSecurityStatus(
            id=row_id,
            manifest_id=manifest_id,
            index_status=status,
            last_indexed=as_time(last_indexed),
            indexer_hash=indexer_hash,
            error_json=error_json,
            metadata_json=metadata_json,
        )
    )


def as_time(value: datetime | str) -> datetime:
    """SQLite has no type for times: its driver reads them as text."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def select_row(manifest_id: Any) -> ModelSelect[ManifestSecurityStatus]:
    return ManifestSecurityStatus.select(
        ManifestSecurityStatus.id,
        ManifestSecurityStatus.index_status,
        ManifestSecurityStatus.last_indexed,
        ManifestSecurityStatus.indexer_hash,
        ManifestSecurityStatus.error_json,
        ManifestSecurityStatus.metadata_json,
    ).where(ManifestSecurityStatus.manifest_id == manifest_id)


ROW = Statement(select_row)
LOCKED_ROW = Statement(lambda manifest_id: lock_rows(select_row(manifest_id)))


def read_row(record: ManifestSecurityStatus) -> StatusRow:
    metadata = read_metadata(record.metadata_json)
    retry_count = metadata.get("retry_count")
    last_failed_hash = metadata.get("last_failed_hash")
    return StatusRow(
        id=record.id,
        status=known_status(record),
        last_indexed=record.last_indexed,
        indexer_hash=record.indexer_hash,
        error=record.error_json if record.error_json not in {"", '""', "{}"} else "",
        claim=read_claim(metadata),
        retry_count=retry_count if isinstance(retry_count, int) else 0,
        last_failed_hash=last_failed_hash if isinstance(last_failed_hash, str) else None,
    )


def known_status(record: ManifestSecurityStatus) -> IndexStatus:
    try:
        return IndexStatus(record.index_status)
    except ValueError as error:
        raise UnknownStatus(
            f"manifest {record.manifest_id} has index_status {record.index_status}, which this "
            "version doesn't know; it is left alone. Upgrade to a version for your Quay"
        ) from error


def insert_row(
    manifest_id: int,
    repository_id: int,
    status: IndexStatus,
    *,
    indexer_hash: str,
    error: str = "",
    metadata: dict[str, Any] | None = None,
) -> None:
    INSERT_ROW.run(
        manifest_id,
        repository_id,
        status.value,
        json.dumps(error),
        utcnow(),
        indexer_hash[:128],
        json.dumps(metadata or {}),
    )


def insert_of(
    manifest_id: Any,
    repository_id: Any,
    status: Any,
    error: Any,
    now: Any,
    indexer_hash: Any,
    metadata: Any,
) -> Any:
    return ManifestSecurityStatus.insert(
        manifest_id=manifest_id,
        repository_id=repository_id,
        index_status=status,
        error_json=error,
        last_indexed=now,
        indexer_hash=indexer_hash,
        indexer_version=INDEXER_VERSION,
        metadata_json=metadata,
    )


INSERT_ROW = Statement(insert_of)


def insert_where_none(
    manifest_id: int, repository_id: int, status: IndexStatus, *, indexer_hash: str, metadata: str
) -> bool:
    """One statement: inserts the row unless there is one; True if it did."""
    values = (manifest_id, repository_id, status.value, '""', utcnow(), indexer_hash, metadata)
    return bool(INSERT_WHERE_NONE.run(*values).rowcount == 1)


INSERT_WHERE_NONE = Statement(
    lambda manifest_id, repository_id, status, error, now, indexer_hash, metadata: (
        insert_of(manifest_id, repository_id, status, error, now, indexer_hash, metadata)
    ).on_conflict_ignore()
)


def complete_unless_wished(manifest_id: int, metadata: str, *, indexer_hash: str) -> bool:
    """One statement: makes an IN_PROGRESS row with just this metadata COMPLETED; True if it did.

    Not when somebody wishes to be notified of its repository.
    """
    values = (utcnow(), indexer_hash[:128], manifest_id, metadata)
    return bool(COMPLETE_UNLESS_WISHED.run(*values).rowcount == 1)


COMPLETE_UNLESS_WISHED = Statement(
    lambda now, indexer_hash, manifest_id, metadata: ManifestSecurityStatus.update(
        index_status=IndexStatus.COMPLETED.value,
        indexer_hash=indexer_hash,
        last_indexed=now,
        error_json='""',
        metadata_json="{}",
    ).where(
        (ManifestSecurityStatus.manifest_id == manifest_id)
        & (ManifestSecurityStatus.index_status == IndexStatus.IN_PROGRESS.value)
        & (ManifestSecurityStatus.metadata_json == metadata)
        & ~fn.EXISTS(select_wishes(ManifestSecurityStatus.repository_id))
    )
)


def find_statuses_of_digest(digest: str) -> dict[int, int | None]:
    """Every manifest with this digest, by id, with its `index_status` (None: no row)."""
    return {int(manifest_id): status for manifest_id, status in STATUSES_OF_DIGEST.rows(digest)}


STATUSES_OF_DIGEST = Statement(
    lambda digest: (
        Manifest.select(Manifest.id, ManifestSecurityStatus.index_status)
        .join(
            ManifestSecurityStatus,
            JOIN.LEFT_OUTER,
            on=(ManifestSecurityStatus.manifest_id == Manifest.id),
        )
        .where(Manifest.digest == digest)
    )
)


def delete_row(row: StatusRow | None) -> None:
    if row is not None:
        DELETE_ROW.run(row.id)


def build_delete(row_id: Any) -> Any:
    delete = ManifestSecurityStatus.delete()  # type: ignore[misc]
    return delete.where(ManifestSecurityStatus.id == row_id)


DELETE_ROW = Statement(build_delete)
