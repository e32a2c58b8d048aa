"""The story of one manifest: where it stands on its way to COMPLETED, and what happens next.

Quay's column can't say "waiting for blobs 3/7"; this can. Told alike by the command line, the page
and the API. `tell_story` is pure: it takes what was read and returns words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from data.blob_records import BlobRecord, find_blobs_of_manifest, placed_digests
from data.errors import ManifestError
from data.manifest_records import ManifestRecord
from data.manifests import Manifest, parse_manifest
from data.policy import Policy, PolicyDecision
from data.secscan.status import IndexStatus, StatusRow
from data.secscan.status_rows import load_row


class Standing(StrEnum):
    """Where a manifest stands."""

    NOT_PULLED = "not pulled"
    UNSUPPORTED = "unsupported"
    WAITING_FOR_BLOBS = "waiting for blobs"
    WAITING = "waiting"  # complete, its job not running
    INDEXING = "indexing"
    DONE = "done"
    FAILED = "failed"
    TOO_LARGE = "layer too large"
    STUCK = "stuck"  # complete, and no job: the sweep's


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """The rescan job of the manifest, as Redis has it."""

    status: str  # queued, started, scheduled, finished, failed, canceled
    lane: str = ""
    attempts: int = 1  # this one included
    waiting_for: str = ""  # why it runs again later
    error: str = ""  # why it failed

    @property
    def live(self) -> bool:
        return self.status in {"queued", "started", "scheduled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """`placed` of `total` layers; why it isn't scanned, and what happens next."""

    standing: Standing
    placed: int
    total: int
    sentence: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a story is told from."""

    record: ManifestRecord
    blobs: Sequence[BlobRecord]
    row: StatusRow | None
    job: JobState | None
    policy: PolicyDecision


def gather_evidence(
    record: ManifestRecord, job: JobState | None, policy: PolicyDecision
) -> Evidence:
    """Reads blobs and row. Two SQL statements."""
    return Evidence(
        record=record,
        blobs=find_blobs_of_manifest(record.manifest_id),
        row=load_row(record.manifest_id),
        job=job,
        policy=policy,
    )


def tell_story(evidence: Evidence) -> Story:
    """The story, in words that an operator knows."""
    record = evidence.record
    if record.manifest_bytes == "":
        return story(
            Standing.NOT_PULLED,
            "it is a child of a manifest list, and no client pulled it yet",
            "it is scanned once a client pulls it",
        )
    try:
        manifest = parse_manifest(record.manifest_bytes, record.media_type)
    except ManifestError as error:
        return story(
            Standing.UNSUPPORTED, f"its manifest can't be read: {error}", "nothing: it stays so"
        )
    if manifest.unscannable is not None:
        return story(Standing.UNSUPPORTED, f"it is {manifest.unscannable.value}", "nothing")
    return tell_image(evidence, manifest)


def story(
    standing: Standing, sentence: str, next_step: str, placed: int = 0, total: int = 0
) -> Story:
    return Story(
        standing=standing, placed=placed, total=total, sentence=sentence, next_step=next_step
    )


def tell_image(evidence: Evidence, manifest: Manifest) -> Story:
    required = manifest.required_layer_digests
    placed, total = len(required & placed_digests(evidence.blobs)), len(required)
    standing, sentence, next_step = (
        tell_row(evidence.row)
        or (tell_waiting_for_blobs(placed, total) if placed < total else None)
        or tell_job(evidence.job, evidence.row)
        or tell_stuck(evidence)
    )
    return story(standing, sentence, next_step, placed, total)


Told = tuple[Standing, str, str]


def tell_row(row: StatusRow | None) -> Told | None:
    """What the row says, where it says something that no job or blob could change."""
    if row is None:
        return None
    match row.status:
        case IndexStatus.COMPLETED:
            return Standing.DONE, f"it is scanned, since {row.last_indexed:%Y-%m-%d %H:%M} UTC", ""
        case IndexStatus.MANIFEST_LAYER_TOO_LARGE:
            return (
                Standing.TOO_LARGE,
                "a layer is above SECURITY_SCANNER_V4_INDEX_MAX_LAYER_SIZE",
                "nothing; raise the limit, then enqueue it with --force",
            )
        case IndexStatus.IN_PROGRESS:
            owner = row.claim.job if row.claim else "Quay's security worker"
            return Standing.INDEXING, f"{owner} is indexing it", "the result is recorded"
    return None


def tell_waiting_for_blobs(placed: int, total: int) -> Told:
    return (
        Standing.WAITING_FOR_BLOBS,
        f"it is waiting for blobs, {placed}/{total} layers are placed",
        "it is scanned as soon as the last layer is placed",
    )


def tell_job(job: JobState | None, row: StatusRow | None) -> Told | None:
    if job is None or job.status in {"finished", "canceled"}:
        return None
    match job.status:
        case "started":
            return Standing.INDEXING, "its rescan is running", "the result is recorded"
        case "queued":
            return Standing.WAITING, f"its rescan is queued on {job.lane}", "a worker takes it"
        case "scheduled":
            why = job.waiting_for or "its time"
            return Standing.WAITING, f"its rescan waits: {why}", "it runs again by itself"
    swept = row is None or row.status is IndexStatus.MANIFEST_UNSUPPORTED
    who = "the sweep tries again in an hour" if swept else "Quay's security worker may try again"
    return (
        Standing.FAILED,
        f"its rescan failed: {job.error or 'see the log of the worker'}",
        f"{who}, `retry` does at once",
    )


def tell_stuck(evidence: Evidence) -> Told:
    """Complete, and nothing on its way."""
    row, policy = evidence.row, evidence.policy
    if row is not None and row.status in {
        IndexStatus.FAILED,
        IndexStatus.SCAN_RETRIES_EXHAUSTED,
    }:
        return (
            Standing.FAILED,
            f"Clair failed on it {row.retry_count} times: {row.error or row.indexer_hash}",
            "Quay's security worker may try again; `enqueue` does at once",
        )
    if policy.policy is Policy.OFF:
        return (
            Standing.STUCK,
            f"its policy is off ({policy.rule})",
            "nothing by itself; `enqueue` works all the same",
        )
    return Standing.STUCK, "no rescan is on its way though it is complete", "the sweep finds it"
