"""Index one manifest, from its bytes to its COMPLETED row.

Look, then claim, then call Clair, then record. No transaction and no lock of the database is open
while Clair works, so everything that was decided before the call is decided again, by
`data.secscan.status`, when its result is written.

This is the last of the five files of the main path.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import structlog

from data.blob_records import find_blobs_of_manifest, placed_digests
from data.errors import (
    DatabaseUnavailable,
    ManifestError,
    ScannerFetchFailed,
    ScannerRejectedManifest,
    ScannerUnavailable,
    UnknownStatus,
)
from data.faultpoints import FaultPoint, reach
from data.manifest_records import ManifestRecord, find_manifests_by_digest, load_manifest
from data.manifests import Layer, Manifest, parse_manifest
from data.policy import Policy
from data.secscan.clair import ClairClient
from data.secscan.gate import ScannerGate
from data.secscan.layers import LayerLinks, LayerLocation, foreign_location
from data.secscan.reports import IndexReport, ReportState
from data.secscan.rescan import (
    UNOBSERVED,
    IndexObserver,
    Outcome,
    RescanRequest,
    RescanResult,
    describe,
    outcome_of_claim,
    outcome_of_finish,
)
from data.secscan.status import Claim, ClaimDecision, FinishDecision, Reason
from data.secscan.status_records import (
    delete_unless_claimed,
    record_failure,
    record_layer_too_large,
    record_over_stale,
    record_success,
    record_unsupported,
    refresh_completed,
    release_claim,
    reset_and_claim,
    write_success,
)
from data.secscan.status_rows import find_statuses_of_digest
from data.sweep import find_complete

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexer:
    """Everything that indexing a manifest needs, built once a process."""

    scanner: ClairClient
    links: LayerLinks
    gate: ScannerGate
    decide_policy: Callable[[ManifestRecord], Policy]
    # What to write in the transaction that completes a manifest for the first time.
    on_first_index: Callable[[ManifestRecord], Callable[[], object] | None]
    max_layer_size: int | None  # bytes; None: no limit
    max_failures: int  # how often Clair may fail on a manifest before it is left at FAILED
    observer: IndexObserver = UNOBSERVED

    def index_manifest(self, request: RescanRequest, job: str) -> RescanResult:
        """Resets, claims, indexes and records one manifest on behalf of the job id `job`.

        Raises `ScannerError`, `StorageError` or `DatabaseUnavailable` for trouble that isn't the
        manifest's; then the row is as if nobody had claimed it.
        """
        record = load_manifest(request.manifest_id)
        if record is None:
            return RescanResult(manifest_id=request.manifest_id, outcome=Outcome.GONE)
        manifest, refusal = self.examine(record, request.reason)
        if manifest is None:
            return refusal
        claim = Claim(job, uuid.uuid4().hex)
        if self.oversized(manifest) is not None:
            return self.refuse_large_layer(record, request.reason, claim, manifest)
        with self.gate.enter(record.digest, request.reason):
            return self.claim_and_index(record, manifest, request.reason, claim)

    def examine(
        self, record: ManifestRecord, reason: Reason
    ) -> tuple[Manifest, RescanResult] | tuple[None, RescanResult]:
        """The manifest, when it may be indexed; else None and the outcome that says why not."""
        nothing = describe(record, Outcome.UNSUPPORTED)
        try:
            manifest = parse_manifest(record.manifest_bytes, record.media_type)
        except ManifestError as error:
            if record.manifest_bytes == "":
                return None, describe(record, Outcome.INCOMPLETE, "nobody pulled this child yet")
            return None, replace(nothing, error=str(error))
        if manifest.unscannable is not None:
            if reason is Reason.CYCLE:
                record_unsupported(record.manifest_id, record.repository_id)
            return None, replace(nothing, error=manifest.unscannable.value)
        policy = self.policy_for(record, reason)
        if policy is Policy.OFF:
            off = "RESCAN_POLICY is off for this repository"
            return None, describe(record, Outcome.POLICY_OFF, off)
        placed = placed_digests(find_blobs_of_manifest(record.manifest_id))
        missing = [each for each in manifest.required_layer_digests if each not in placed]
        if missing:
            waiting = describe(
                record, Outcome.INCOMPLETE, f"waiting for {len(missing)} of its layers"
            )
            return None, replace(waiting, missing=tuple(sorted(missing)))
        # Quay's worker can't index without the config: then its cycle would only say -2 again.
        if policy is Policy.CYCLE and manifest.config_digest in {None, *placed}:
            return None, self.leave_to_cycle(record, reason)
        return manifest, nothing

    def policy_for(self, record: ManifestRecord, reason: Reason) -> Policy:
        """A person's request is carried out whatever the policy, and the cycle is Quay's own."""
        if reason in {Reason.EVENT, Reason.SWEEP}:
            return self.decide_policy(record)
        return Policy.IMMEDIATE

    def leave_to_cycle(self, record: ManifestRecord, reason: Reason) -> RescanResult:
        """Deletes the row, so that the security worker's next pass indexes the manifest."""
        reset = delete_unless_claimed(record.manifest_id, reason)
        if reset:
            self.observer.reset(record)
        error = "RESCAN_POLICY is cycle for this repository: the security worker indexes it"
        return replace(describe(record, Outcome.POLICY_OFF, error), reset=reset)

    def oversized(self, manifest: Manifest) -> Layer | None:
        if self.max_layer_size is None:
            return None
        limit = self.max_layer_size
        return next((layer for layer in manifest.layers if (layer.size or 0) > limit), None)

    def refuse_large_layer(
        self, record: ManifestRecord, reason: Reason, claim: Claim, manifest: Manifest
    ) -> RescanResult:
        claimed = reset_and_claim(record.manifest_id, record.repository_id, reason, claim)
        if claimed.decision is not ClaimDecision.CLAIM:
            return describe(record, outcome_of_claim(claimed.decision, claimed.previous))
        finish = record_layer_too_large(record.manifest_id, record.repository_id, claim)
        layer = self.oversized(manifest)
        error = (
            f"layer {layer.digest if layer else ''} is {layer.size if layer else 0} bytes, more "
            f"than the {self.max_layer_size} of SECURITY_SCANNER_V4_INDEX_MAX_LAYER_SIZE"
        )
        outcome = outcome_of_finish(finish, Outcome.LAYER_TOO_LARGE)
        return replace(describe(record, outcome, error), reset=claimed.reset)

    def claim_and_index(
        self, record: ManifestRecord, manifest: Manifest, reason: Reason, claim: Claim
    ) -> RescanResult:
        claimed = reset_and_claim(
            record.manifest_id,
            record.repository_id,
            reason,
            claim,
            has_row=record.has_status,
        )
        if claimed.decision is ClaimDecision.REFRESH:
            return self.refresh(record, manifest)
        if claimed.decision is not ClaimDecision.CLAIM:
            return describe(record, outcome_of_claim(claimed.decision, claimed.previous))
        log.info("reset", **context(record), job=claim.job, reset=claimed.reset)
        if claimed.reset:
            self.observer.reset(record)
        reach(FaultPoint.CLAIMED)
        with released_on_error(record.manifest_id, claim):
            result = self.index_claimed(record, manifest, claim)
        reach(FaultPoint.RECORDED)
        return replace(result, reset=claimed.reset)

    def index_claimed(
        self, record: ManifestRecord, manifest: Manifest, claim: Claim
    ) -> RescanResult:
        """Clair's word on the manifest, recorded: a report, a refusal, a layer it can't fetch."""
        try:
            report = self.call_scanner(record, manifest)
        except ScannerRejectedManifest as error:
            return self.fail(record, claim, str(error), "api_failure", final=True)
        except ScannerFetchFailed as error:
            return self.fail(record, claim, str(error), "server_error", final=False)
        reach(FaultPoint.INDEXED)
        if report.state is ReportState.ERROR:
            return self.fail(record, claim, report.err, report.indexer_state, final=False)
        return self.complete(record, claim, report)

    def call_scanner(self, record: ManifestRecord, manifest: Manifest) -> IndexReport:
        """Tells Clair where the layers are, and waits. Their tokens live 60 s: minted here."""
        layers = [self.locate(record, layer) for layer in manifest.layers]
        self.gate.charge(record.digest)
        log.info("index call", **context(record))
        self.observer.index_called(record)
        started = time.monotonic()
        try:
            return self.scanner.index(record.digest, layers)
        except ScannerFetchFailed:
            raise
        except ScannerUnavailable as error:
            if not self.gate.is_manifests_own(record.digest):
                raise
            raise ScannerFetchFailed(f"Clair answers for others, but not here: {error}") from error
        finally:
            self.observer.index_answered(record, time.monotonic() - started)

    def locate(self, record: ManifestRecord, layer: Layer) -> LayerLocation:
        if layer.foreign:
            return foreign_location(layer.digest, layer.urls[0])
        return self.links.locate(record.namespace, record.repository, layer.digest)

    def complete(self, record: ManifestRecord, claim: Claim, report: IndexReport) -> RescanResult:
        """Records the report: for this manifest, and for the same one in other repositories.

        One statement looks whether Quay wrote a stale word over it, and who else has the digest.
        """
        row = (record.manifest_id, record.repository_id, claim, report.indexer_state)
        finish = write_success(*row, announce=lambda: self.on_first_index(record))
        if finish is FinishDecision.WRITE:
            statuses = find_statuses_of_digest(record.digest)
            finish = record_over_stale(statuses.get(record.manifest_id), *row)
            if finish is FinishDecision.WRITE and statuses.keys() - {record.manifest_id}:
                self.complete_same_digest(record, claim, report)
        outcome = outcome_of_finish(finish, Outcome.COMPLETED)
        return replace(describe(record, outcome), indexer_hash=report.indexer_state)

    def complete_same_digest(
        self, record: ManifestRecord, claim: Claim, report: IndexReport
    ) -> None:
        """Records the report for the same manifest in other proxied repositories.

        The digest is the content, so Clair's word on one is its word on all of them. Each is held
        to what would be asked of a rescan of its own: its policy, its blobs, its row.
        """
        others = {
            each.manifest_id: each
            for each in find_manifests_by_digest(record.digest)
            if each.manifest_id != record.manifest_id
        }
        for complete in find_complete(list(others)):  # of proxied organisations only
            other = others[complete.completed.manifest_id]
            if self.decide_policy(other) is Policy.IMMEDIATE:
                self.complete_other(other, claim, report)

    def complete_other(self, other: ManifestRecord, claim: Claim, report: IndexReport) -> None:
        try:
            finish = record_success(
                other.manifest_id,
                other.repository_id,
                claim,
                report.indexer_state,
                announce=lambda: self.on_first_index(other),
            )
        except UnknownStatus as error:
            log.warning("left alone", **context(other), job=claim.job, error=str(error))
            return
        if outcome_of_finish(finish, Outcome.COMPLETED) is Outcome.COMPLETED:
            log.info("completed with the same digest", **context(other), job=claim.job)

    def fail(
        self, record: ManifestRecord, claim: Claim, error: str, indexer_hash: str, *, final: bool
    ) -> RescanResult:
        finish, retry_count = record_failure(
            record.manifest_id,
            record.repository_id,
            claim,
            error=error,
            indexer_hash=indexer_hash,
        )
        return replace(
            describe(record, outcome_of_finish(finish, Outcome.FAILED), error),
            retry_count=retry_count,
            final=final or retry_count >= self.max_failures,
        )

    def refresh(self, record: ManifestRecord, manifest: Manifest) -> RescanResult:
        """Indexes again while people go on reading the old result."""
        try:
            report = self.call_scanner(record, manifest)
        except (ScannerRejectedManifest, ScannerFetchFailed) as error:
            return describe(record, Outcome.FAILED, str(error))
        if report.state is ReportState.ERROR:
            return describe(record, Outcome.FAILED, report.err)
        finish = refresh_completed(record.manifest_id, report.indexer_state)
        outcome = outcome_of_finish(finish, Outcome.COMPLETED)
        return replace(describe(record, outcome), indexer_hash=report.indexer_state)


@contextmanager
def released_on_error(manifest_id: int, claim: Claim) -> Iterator[None]:
    """Takes the claim back when the block fails for a reason that isn't the manifest's."""
    try:
        yield
    except BaseException:
        try:
            release_claim(manifest_id, claim)
        except DatabaseUnavailable as error:
            # The job comes back and takes up its own claim, so nothing hangs on this.
            log.warning("claim not released", manifest=manifest_id, error=str(error))
        raise


def context(record: ManifestRecord) -> dict[str, str | int]:
    return {
        "manifest": record.manifest_id,
        "digest": record.digest,
        "repository": record.full_repository,
    }
