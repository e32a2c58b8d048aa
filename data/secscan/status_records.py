"""Reads and writes the status row as `data.secscan.status` decides, one transaction a step.

Every write locks the row first. A row that isn't there can't be locked, so two inserts may meet:
the unique index on manifest_id lets one through, and the other looks again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from peewee import IntegrityError

from data.database import statement, transaction
from data.errors import DatabaseUnavailable
from data.models import Manifest, ManifestSecurityStatus, utcnow
from data.secscan.status import (
    OLDER_THAN_THE_EVIDENCE,
    Claim,
    ClaimDecision,
    FinishDecision,
    IndexStatus,
    Reason,
    StatusRow,
    decide_claim,
    decide_finish,
)
from data.secscan.status_rows import (
    complete_unless_wished,
    delete_row,
    insert_row,
    insert_where_none,
    load_row,
)

T = TypeVar("T")

# Two inserts that meet: one more look settles it. More only when a row comes and goes meanwhile.
INSERT_TRIES = 5
# What Clair worked for up to 10 minutes isn't thrown away for a restart of the database.
RECORD_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """What became of a claim, and the row that was there before (None: none)."""

    decision: ClaimDecision
    previous: StatusRow | None

    @property
    def reset(self) -> bool:
        """Whether a decided row was deleted to make way for the claim."""
        return (
            self.decision is ClaimDecision.CLAIM
            and self.previous is not None
            and self.previous.status is not IndexStatus.IN_PROGRESS
        )


def reset_and_claim(
    manifest_id: int, repository_id: int, reason: Reason, claim: Claim, *, has_row: bool = True
) -> ClaimResult:
    """Deletes the row and inserts our claim, in one transaction, when `decide_claim` allows it.

    `has_row` is what a look without a lock said. Where it saw no row, anybody may claim, and one
    statement does it; a row that came in between keeps it from inserting, and is looked at.
    """
    if not has_row and insert_claim(manifest_id, repository_id, claim):
        return ClaimResult(ClaimDecision.CLAIM, None)

    def reset_then_insert() -> ClaimResult:
        row = load_row(manifest_id, lock=True)
        decision = decide_claim(row, reason, claim.job, utcnow())
        if decision is ClaimDecision.CLAIM:
            delete_row(row)
            insert_row(
                manifest_id,
                repository_id,
                IndexStatus.IN_PROGRESS,
                indexer_hash="in_progress",
                metadata=claim_metadata(claim, row),
            )
        return ClaimResult(decision, row)

    return write_once(manifest_id, reset_then_insert, ClaimResult(ClaimDecision.GONE, None))


def insert_claim(manifest_id: int, repository_id: int, claim: Claim) -> bool:
    """Claims a manifest that has no row; False when it has one, or is gone."""
    metadata = json.dumps(claim_metadata(claim, None))
    try:
        return statement(
            lambda: insert_where_none(
                manifest_id,
                repository_id,
                IndexStatus.IN_PROGRESS,
                indexer_hash="in_progress",
                metadata=metadata,
            )
        )
    except IntegrityError:
        return False


def record_success(
    manifest_id: int,
    repository_id: int,
    claim: Claim,
    indexer_state: str,
    announce: Callable[[], Callable[[], object] | None] = lambda: None,
) -> FinishDecision:
    """Writes COMPLETED as `write_success` does, and looks again as `record_over_stale` wants it."""
    decision = write_success(manifest_id, repository_id, claim, indexer_state, announce)
    row = load_row(manifest_id) if decision is FinishDecision.WRITE else None
    if row is None:
        return decision
    return record_over_stale(row.status, manifest_id, repository_id, claim, indexer_state)


def write_success(
    manifest_id: int,
    repository_id: int,
    claim: Claim,
    indexer_state: str,
    announce: Callable[[], Callable[[], object] | None] = lambda: None,
) -> FinishDecision:
    """Writes COMPLETED over our claim and over anything older than the evidence.

    Where nobody wishes to be notified, one statement makes the claim as it was inserted COMPLETED.
    Else `announce` is asked what belongs to a first index, and what it returns is run in the same
    transaction: a process that dies leaves both or neither.
    """
    own = json.dumps(claim_metadata(claim, None))
    patience = RECORD_PATIENCE_SECONDS
    if statement(
        lambda: complete_unless_wished(manifest_id, own, indexer_hash=indexer_state),
        patience=patience,
    ):
        return FinishDecision.WRITE
    also = announce()

    def write() -> FinishDecision:
        decision = write_completed(manifest_id, repository_id, claim, indexer_state)
        if also is not None and decision is FinishDecision.WRITE:
            also()
        return decision

    return write_once(manifest_id, write, FinishDecision.GONE, patience=patience)


def record_over_stale(
    status: int | None, manifest_id: int, repository_id: int, claim: Claim, indexer_state: str
) -> FinishDecision:
    """Writes COMPLETED again where `status`, read after it was written, is a stale word.

    Quay's worker writes its -2 without a look at what is there. Later ones are the sweep's.
    """
    if status not in OLDER_THAN_THE_EVIDENCE:
        return FinishDecision.WRITE
    return write_once(
        manifest_id,
        lambda: write_completed(manifest_id, repository_id, claim, indexer_state),
        FinishDecision.GONE,
    )


def write_completed(
    manifest_id: int, repository_id: int, claim: Claim, indexer_state: str
) -> FinishDecision:
    row = load_row(manifest_id, lock=True)
    decision = decide_finish(row, claim, utcnow(), success=True)
    if decision is FinishDecision.WRITE:
        delete_row(row)
        status = IndexStatus.COMPLETED
        insert_row(manifest_id, repository_id, status, indexer_hash=indexer_state)
    return decision


def refresh_completed(manifest_id: int, indexer_state: str) -> FinishDecision:
    """Brings a COMPLETED row up to date with `indexer_state`; leaves any other row alone."""
    changed = (
        ManifestSecurityStatus.update(
            indexer_hash=indexer_state, last_indexed=utcnow(), error_json='""', metadata_json="{}"
        )
        .where(
            (ManifestSecurityStatus.manifest_id == manifest_id)
            & (ManifestSecurityStatus.index_status == IndexStatus.COMPLETED)
        )
        .execute()
    )
    return FinishDecision.WRITE if changed else FinishDecision.CLAIMED_ELSEWHERE


def record_failure(
    manifest_id: int, repository_id: int, claim: Claim, *, error: str, indexer_hash: str
) -> tuple[FinishDecision, int]:
    """Writes FAILED with the reason over our own claim only, and returns the retry count.

    `retry_count` and `last_failed_hash` go into metadata_json in Quay's form.
    """

    def write() -> tuple[FinishDecision, int]:
        row = load_row(manifest_id, lock=True)
        decision = decide_finish(row, claim, utcnow(), success=False)
        retry_count = (row.retry_count if row else 0) + 1
        if decision is FinishDecision.WRITE:
            delete_row(row)
            insert_row(
                manifest_id,
                repository_id,
                IndexStatus.FAILED,
                indexer_hash=indexer_hash,
                error=error,
                metadata={"retry_count": retry_count, "last_failed_hash": indexer_hash},
            )
        return decision, retry_count

    return write_once(
        manifest_id, write, (FinishDecision.GONE, 0), patience=RECORD_PATIENCE_SECONDS
    )


def record_layer_too_large(manifest_id: int, repository_id: int, claim: Claim) -> FinishDecision:
    """Writes -3 over our own claim, as Quay does for a layer above its limit."""
    return replace_claim(manifest_id, repository_id, claim, IndexStatus.MANIFEST_LAYER_TOO_LARGE)


def record_unsupported(manifest_id: int, repository_id: int) -> None:
    """Writes -2 where there is no row yet, as Quay does for what it can't scan."""

    def write() -> None:
        if load_row(manifest_id, lock=True) is None:
            status = IndexStatus.MANIFEST_UNSUPPORTED
            insert_row(manifest_id, repository_id, status, indexer_hash="none")

    write_once(manifest_id, write, None)


def release_claim(manifest_id: int, claim: Claim) -> None:
    """Takes our claim back, so that anybody may index the manifest: it now has no row."""

    def delete_own_claim() -> None:
        row = load_row(manifest_id, lock=True)
        if row is not None and row.claim == claim and row.status is IndexStatus.IN_PROGRESS:
            delete_row(row)

    transaction(delete_own_claim)


def delete_unless_claimed(manifest_id: int, reason: Reason) -> bool:
    """Deletes a row that `reason` may reset, for Quay's worker to index; True if it did."""

    def delete() -> bool:
        row = load_row(manifest_id, lock=True)
        if row is None or row.status is IndexStatus.IN_PROGRESS:
            return False
        if decide_claim(row, reason, "", utcnow()) is not ClaimDecision.CLAIM:
            return False
        delete_row(row)
        return True

    return transaction(delete)


def replace_claim(
    manifest_id: int, repository_id: int, claim: Claim, status: IndexStatus
) -> FinishDecision:
    def write() -> FinishDecision:
        row = load_row(manifest_id, lock=True)
        decision = decide_finish(row, claim, utcnow(), success=False)
        if decision is FinishDecision.WRITE:
            delete_row(row)
            insert_row(manifest_id, repository_id, status, indexer_hash="none")
        return decision

    return write_once(manifest_id, write, FinishDecision.GONE)


def claim_metadata(claim: Claim, previous: StatusRow | None) -> dict[str, Any]:
    """Keeps the retry count of a failure that is reset, so that retries end in the end."""
    metadata: dict[str, Any] = {"rescan": {"job": claim.job, "attempt": claim.attempt}}
    if previous is not None and previous.retry_count:
        metadata["retry_count"] = previous.retry_count
        metadata["last_failed_hash"] = previous.last_failed_hash
    return metadata


def write_once(manifest_id: int, work: Callable[[], T], gone: T, *, patience: float = 0.0) -> T:
    """`work` in a transaction; again when an insert met another one; `gone` without a manifest."""
    for _ in range(INSERT_TRIES):
        try:
            return transaction(work, patience=patience)
        except IntegrityError:
            if not Manifest.select(Manifest.id).where(Manifest.id == manifest_id).exists():
                return gone
    raise DatabaseUnavailable(
        f"the status row of manifest {manifest_id} was written by somebody else "
        f"{INSERT_TRIES} times in a row; it is tried again later"
    )
