"""What a rescan is asked to do, and what it says when it is done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from data.manifest_records import ManifestRecord
from data.secscan.status import ClaimDecision, FinishDecision, IndexStatus, Reason, StatusRow


class Outcome(StrEnum):
    """How a rescan ended. `claimed_elsewhere` is no end: the job looks again."""

    COMPLETED = "completed"  # Clair read it, and the row says so
    FAILED = "failed"  # Clair's word on the manifest itself, recorded with its reason
    UNSUPPORTED = "unsupported"  # no image: a list, an artifact, or unreadable bytes
    LAYER_TOO_LARGE = "layer_too_large"  # above SECURITY_SCANNER_V4_INDEX_MAX_LAYER_SIZE
    INCOMPLETE = "incomplete"  # a layer is still a placeholder
    CLAIMED_ELSEWHERE = "claimed_elsewhere"  # somebody else is indexing it now
    UP_TO_DATE = "up_to_date"  # it was COMPLETED already
    GONE = "gone"  # the manifest was deleted
    POLICY_OFF = "policy_off"  # RESCAN_POLICY leaves it alone, or leaves indexing to Quay


@dataclass(frozen=True, slots=True, kw_only=True)
class RescanRequest:
    """One manifest, and why it is looked at."""

    manifest_id: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RescanResult:
    """The result of a rescan job. Everything up to `error` is in the job's JSON."""

    manifest_id: int
    outcome: Outcome
    digest: str = ""
    repository: str = ""  # org/repo
    reset: bool = False  # whether a decided row was deleted
    indexer_hash: str = ""  # Clair's state, when completed
    error: str = ""
    missing: tuple[str, ...] = ()  # digests of the layers that are placeholders, when incomplete
    retry_count: int = 0  # how often Clair failed on the manifest, when failed
    final: bool = True  # False: failed in a way that is worth another try

    def as_dict(self) -> dict[str, str | int | bool]:
        return {
            "manifest_id": self.manifest_id,
            "digest": self.digest,
            "repository": self.repository,
            "outcome": self.outcome.value,
            "reset": self.reset,
            "indexer_hash": self.indexer_hash,
            "error": self.error,
        }


class IndexObserver(Protocol):
    """Is told of the steps of an index, to count and time them; must not raise."""

    def reset(self, record: ManifestRecord) -> None:
        """A decided row was deleted."""

    def index_called(self, record: ManifestRecord) -> None:
        """Clair is about to be called."""

    def index_answered(self, record: ManifestRecord, seconds: float) -> None:
        """Clair has answered, well or badly."""


class Unobserved:
    """The `IndexObserver` of whoever counts nothing."""

    def reset(self, record: ManifestRecord) -> None:
        del record

    def index_called(self, record: ManifestRecord) -> None:
        del record

    def index_answered(self, record: ManifestRecord, seconds: float) -> None:
        del record, seconds


UNOBSERVED = Unobserved()


def describe(record: ManifestRecord, outcome: Outcome, error: str = "") -> RescanResult:
    return RescanResult(
        manifest_id=record.manifest_id,
        digest=record.digest,
        repository=record.full_repository,
        outcome=outcome,
        error=error,
    )


def outcome_of_claim(decision: ClaimDecision, row: StatusRow | None) -> Outcome:
    """The outcome of a rescan that wasn't allowed to claim the row."""
    match decision:
        case ClaimDecision.GONE:
            return Outcome.GONE
        case ClaimDecision.WAIT:
            return Outcome.CLAIMED_ELSEWHERE
        case ClaimDecision.SETTLED:
            return outcome_of_settled(row)
        case _:
            return Outcome.UP_TO_DATE


def outcome_of_settled(row: StatusRow | None) -> Outcome:
    status = row.status if row else None
    if status is IndexStatus.MANIFEST_LAYER_TOO_LARGE:
        return Outcome.LAYER_TOO_LARGE
    if status is IndexStatus.MANIFEST_UNSUPPORTED:
        return Outcome.UNSUPPORTED
    if status is IndexStatus.PENDING:
        return Outcome.CLAIMED_ELSEWHERE
    return Outcome.FAILED


def outcome_of_finish(decision: FinishDecision, written: Outcome) -> Outcome:
    """The outcome of a rescan whose result was, or wasn't, allowed over the row."""
    return {
        FinishDecision.WRITE: written,
        FinishDecision.COMPLETED_ELSEWHERE: Outcome.UP_TO_DATE,
        FinishDecision.CLAIMED_ELSEWHERE: Outcome.CLAIMED_ELSEWHERE,
        FinishDecision.SUPERSEDED: Outcome.CLAIMED_ELSEWHERE,
        FinishDecision.SETTLED: Outcome.LAYER_TOO_LARGE,
        FinishDecision.GONE: Outcome.GONE,
    }[decision]
