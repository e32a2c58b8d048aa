"""What the row says of a manifest that we gave up on, so that a person reads of it."""

from __future__ import annotations

from data.database import connection
from data.manifest_records import load_manifest
from data.secscan.status import IndexStatus, may_give_up
from data.secscan.status_records import write_once
from data.secscan.status_rows import delete_row, insert_row, load_row

# One of the three hashes that Quay writes with FAILED.
INDEXER_HASH = "unknown_state"
POISON = (
    "its rescan ended three workers before they could report, so it was set aside; look at the "
    "workers' logs for what ended them (memory, a crash in a library), then enqueue it by hand"
)


def give_up(manifest_id: int, job: str, reason: str = POISON) -> bool:
    """Writes FAILED with the reason where `may_give_up` lets it; True if it did.

    Raises `DatabaseUnavailable`, and `UnknownStatus` when a newer Quay wrote the row.
    """

    def write(repository_id: int) -> bool:
        row = load_row(manifest_id, lock=True)
        if not may_give_up(row, job):
            return False
        delete_row(row)
        count = (row.retry_count if row else 0) + 1
        insert_row(
            manifest_id,
            repository_id,
            IndexStatus.FAILED,
            indexer_hash=INDEXER_HASH,
            error=reason,
            metadata={"retry_count": count, "last_failed_hash": INDEXER_HASH},
        )
        return True

    with connection():
        manifest = load_manifest(manifest_id)
        if manifest is None:
            return False
        repository_id = manifest.repository_id
        return write_once(manifest_id, lambda: write(repository_id), False)
