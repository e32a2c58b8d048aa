"""The status row of a manifest: who may reset, claim, finish and fail it.

Quay's security worker and we write the same row, in any order, and either may die at any point.
This table is the whole protocol. *Token* is the attempt that wrote a claim of ours; *live* is a
claim younger than `CLAIM_LIFETIME`, *dead* an older one. Every cell is decided by `decide_claim` or
`decide_finish` under a lock on the row, so nobody acts on a stale look.

    row                     event   sweep   manual  forced   cycle    success        failure
    none                    claim   claim   claim   claim    claim    write          leave
    -2 unsupported          claim   claim   claim   claim    settled  write          leave
    -1 failed               claim   settled claim   claim    claim    write          leave
    -4 retries exhausted    claim   settled claim   claim    settled  write          leave
     0 pending              claim   settled claim   claim    claim    write          leave
    -3 layer too large      settled settled settled claim    settled  leave          leave
     2 completed            done    done    done    refresh  refresh  leave *        leave
     1 ours, same job       claim   claim   claim   claim    claim    token: write   token: write
     1 ours, other job live wait    wait    wait    wait     wait     leave          leave
     1 Quay's, live         wait    wait    wait    wait     wait     leave          leave
     1 anybody's, dead      claim   claim   claim   claim    claim    write          leave

`claim` deletes the row and inserts an IN_PROGRESS one in the same transaction. `settled` leaves
what is there, `done` says that the work was done already, `wait` looks again until the other claim
has ended. `refresh` indexes while the COMPLETED row stays readable, guarded by a lock in Redis, and
then (*) only brings it up to date. A same-job claim with another token belongs to a later attempt,
which thought ours dead: then ours writes nothing.

What a crash leaves: before the claim's commit nothing; after it our IN_PROGRESS row, which the same
job takes up at once with a new token (the job itself comes back, or the sweep enqueues it again).
A job that took three workers down, or whose retries ran out, doesn't come back: FAILED is written
over its claim, -2 or none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, IntEnum, StrEnum
from typing import Any

INDEXER_VERSION = 4
# Quay and we both give Clair 600 s, so whoever claimed a row this long ago is not waiting any more.
CLAIM_LIFETIME = timedelta(seconds=900)


class IndexStatus(IntEnum):
    """`index_status` as Quay writes it. We read them all and never write 0 or -4."""

    SCAN_RETRIES_EXHAUSTED = -4
    MANIFEST_LAYER_TOO_LARGE = -3
    MANIFEST_UNSUPPORTED = -2
    FAILED = -1
    PENDING = 0
    IN_PROGRESS = 1
    COMPLETED = 2


class Reason(StrEnum):
    """Why a manifest is looked at: this decides which rows may be reset."""

    EVENT = "event"  # a blob worker placed the last blob
    SWEEP = "sweep"  # the periodic search found it
    MANUAL = "manual"  # a person asked
    FORCED = "forced"  # a person asked with --force
    CYCLE = "cycle"  # the security worker's periodic pass


class ClaimDecision(Enum):
    CLAIM = "claim"
    SETTLED = "settled"  # the row's state may not be reset by this reason
    DONE = "done"  # COMPLETED, and nobody forced
    REFRESH = "refresh"  # COMPLETED, to be indexed again beside its readers
    WAIT = "wait"  # a live claim of somebody else
    GONE = "gone"  # the manifest itself was deleted


class FinishDecision(Enum):
    WRITE = "write"
    COMPLETED_ELSEWHERE = "completed_elsewhere"
    CLAIMED_ELSEWHERE = "claimed_elsewhere"
    SUPERSEDED = "superseded"  # a later attempt of the same job holds the claim
    SETTLED = "settled"  # -3: a decision that indexing doesn't overturn
    GONE = "gone"  # the manifest itself was deleted


RESETTABLE: Mapping[Reason, frozenset[IndexStatus]] = {
    Reason.EVENT: frozenset(
        {
            IndexStatus.MANIFEST_UNSUPPORTED,
            IndexStatus.FAILED,
            IndexStatus.SCAN_RETRIES_EXHAUSTED,
            IndexStatus.PENDING,
        }
    ),
    Reason.SWEEP: frozenset({IndexStatus.MANIFEST_UNSUPPORTED}),
    Reason.MANUAL: frozenset(
        {
            IndexStatus.MANIFEST_UNSUPPORTED,
            IndexStatus.FAILED,
            IndexStatus.SCAN_RETRIES_EXHAUSTED,
            IndexStatus.PENDING,
        }
    ),
    Reason.FORCED: frozenset(
        {
            IndexStatus.MANIFEST_UNSUPPORTED,
            IndexStatus.FAILED,
            IndexStatus.SCAN_RETRIES_EXHAUSTED,
            IndexStatus.PENDING,
            IndexStatus.MANIFEST_LAYER_TOO_LARGE,
        }
    ),
    Reason.CYCLE: frozenset({IndexStatus.FAILED, IndexStatus.PENDING}),
}
# Each of these was decided before the layers were there, or decides nothing.
OLDER_THAN_THE_EVIDENCE = frozenset(
    {
        IndexStatus.MANIFEST_UNSUPPORTED,
        IndexStatus.FAILED,
        IndexStatus.SCAN_RETRIES_EXHAUSTED,
        IndexStatus.PENDING,
    }
)


@dataclass(frozen=True, slots=True)
class Claim:
    """Who is indexing: the id of the job, and the token of this attempt at it."""

    job: str
    attempt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """A row of `manifestsecuritystatus`, read."""

    id: int
    status: IndexStatus
    last_indexed: datetime  # naive UTC
    indexer_hash: str = ""
    error: str = ""
    claim: Claim | None = None  # of ours; None for Quay's
    retry_count: int = 0
    last_failed_hash: str | None = None

    def is_live_claim(self, now: datetime) -> bool:
        """A claim from the future (a clock was set back) is as dead as an old one."""
        return (
            self.status is IndexStatus.IN_PROGRESS and abs(now - self.last_indexed) < CLAIM_LIFETIME
        )


def decide_claim(row: StatusRow | None, reason: Reason, job: str, now: datetime) -> ClaimDecision:
    """What `job` may do with the row of a scannable, complete manifest; see the table above."""
    if row is None or row.status in RESETTABLE[reason]:
        return ClaimDecision.CLAIM
    if row.status is IndexStatus.COMPLETED:
        forced = reason in {Reason.FORCED, Reason.CYCLE}
        return ClaimDecision.REFRESH if forced else ClaimDecision.DONE
    if row.status is not IndexStatus.IN_PROGRESS:
        return ClaimDecision.SETTLED
    own = row.claim is not None and row.claim.job == job
    return ClaimDecision.CLAIM if own or not row.is_live_claim(now) else ClaimDecision.WAIT


def decide_finish(
    row: StatusRow | None, claim: Claim, now: datetime, *, success: bool
) -> FinishDecision:
    """Whether the result of the attempt `claim` may be written over `row`; see the table above."""
    if row is not None and row.claim == claim and row.status is IndexStatus.IN_PROGRESS:
        return FinishDecision.WRITE
    if row is not None and row.status is IndexStatus.COMPLETED:
        return FinishDecision.COMPLETED_ELSEWHERE
    if row is not None and row.claim is not None and row.claim.job == claim.job:
        return FinishDecision.SUPERSEDED
    if row is not None and row.is_live_claim(now):
        return FinishDecision.CLAIMED_ELSEWHERE
    if not success:
        return FinishDecision.CLAIMED_ELSEWHERE
    if row is not None and row.status is IndexStatus.MANIFEST_LAYER_TOO_LARGE:
        return FinishDecision.SETTLED
    return FinishDecision.WRITE


def may_give_up(row: StatusRow | None, job: str) -> bool:
    """Whether the row may say that `job` came to nothing: nobody else has more to say of it."""
    if row is None or row.status is IndexStatus.MANIFEST_UNSUPPORTED:
        return True
    own = row.claim is not None and row.claim.job == job
    return own and row.status is IndexStatus.IN_PROGRESS


def read_metadata(text: str) -> dict[str, Any]:
    """`metadata_json` as a dict; what isn't a JSON object (also an empty string) reads as {}."""
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_claim(metadata: Mapping[str, Any]) -> Claim | None:
    match metadata.get("rescan"):
        case {"job": str(job), "attempt": str(attempt)}:
            return Claim(job, attempt)
        case _:
            return None
