"""Takes rescan jobs, has each manifest indexed, and says what became of it.

The job function is found by its name, `workers.rescanworker.rescan_manifest`; RQ calls it in a
process that `main` prepared. Trouble that isn't the manifest's sends the job back for later with no
try used up; Clair's word on the manifest ends it.

Next: data/secscan/indexer.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog
from rq import Retry, get_current_job

from data.database import connection
from data.errors import BlobNotStored, DataError
from data.secscan.giving_up import give_up
from data.secscan.indexer import Indexer
from data.secscan.refusals import readable
from data.secscan.rescan import Outcome, RescanRequest, RescanResult
from data.secscan.status import Reason
from data.settings import Settings, WorkerType
from queues.blobwork import ask_for_lost_blobs
from queues.housekeeping import Housekeeping
from queues.rescanqueue import job_id_of
from queues.scannergate import PROBE_SECONDS, RedisScannerGate, circuit_key_of
from workers.failures import Action, decide, wait_before_retry
from workers.process import Process, run_worker
from workers.reporter import Reporter
from workers.rescanprocess import RescanProcess
from workers.supervisor import Child, supervise
from workers.wiring import (
    build_blob_queue,
    build_database,
    build_indexer,
    build_layer_links,
    build_queue,
    build_redis,
    build_reporter,
    build_scanner,
    build_storage,
    pushing_metrics,
)

log = structlog.get_logger()

# A job that waits for somebody else's claim, a slot or a scanner waits as often as it takes.
FOR_EVER = 10**9
LOOK_AGAIN_SECONDS = 10
# In a job's meta: the FAILED row is its own, so it may reset it, which the sweep else may not.
OWN_FAILURE = "own_failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescanner:
    """What a job needs, once a process."""

    indexer: Indexer
    max_retries: int
    ask_for_blobs: Callable[[int], object]  # of a manifest whose bytes are gone from storage
    reporter: Reporter

    def rescan(
        self,
        request: RescanRequest,
        meta: dict[str, Any],
        complete_since: datetime | None = None,
    ) -> RescanResult | Retry:
        """The result of one rescan, or the wish to run again. `meta` is the job's, kept with it.

        Raises what ends the job as failed: an error that another try can't mend, or the last try's.
        """
        self.reporter.job_begins(meta, complete_since)
        try:
            return self.rescan_or_raise(request, meta)
        except Exception as error:
            self.reporter.job_failed(request, error)
            raise

    def rescan_or_raise(self, request: RescanRequest, meta: dict[str, Any]) -> RescanResult | Retry:
        tries = tries_so_far(meta)
        if request.reason is Reason.SWEEP and OWN_FAILURE in meta:
            request = replace(request, reason=Reason.EVENT)
        try:
            with connection():
                result = self.index(request)
        except Exception as error:
            verdict = decide(error, tries)
            meta["waiting_for"] = str(error)
            if verdict.action is Action.LATER:
                return self.run_again(request, verdict.seconds, str(error))
            if verdict.action is Action.NEVER or tries >= self.max_retries:
                record_end(request.manifest_id, error)
                raise
            meta["tries"] = tries + 1
            return self.run_again(request, verdict.seconds, str(error))
        return self.conclude(request, result, meta)

    def index(self, request: RescanRequest) -> RescanResult:
        try:
            return self.indexer.index_manifest(request, job_id_of(request.manifest_id))
        except BlobNotStored:
            self.ask_for_blobs(request.manifest_id)
            raise

    def conclude(
        self, request: RescanRequest, result: RescanResult, meta: dict[str, Any]
    ) -> RescanResult | Retry:
        if result.outcome is Outcome.CLAIMED_ELSEWHERE:
            meta["waiting_for"] = "somebody else is indexing it"
            return self.run_again(request, LOOK_AGAIN_SECONDS, meta["waiting_for"])
        if result.outcome is Outcome.FAILED and not result.final:
            meta["waiting_for"] = f"next try after Clair failed on it: {result.error}"
            meta[OWN_FAILURE] = True
            return self.run_again(request, wait_before_retry(result.retry_count), result.error)
        log.info("rescanned", **result.as_dict())
        self.reporter.rescanned(request, result)
        return result

    def run_again(self, request: RescanRequest, seconds: float, why: str) -> Retry:
        log.info("rescan again later", manifest=request.manifest_id, seconds=seconds, why=why)
        self.reporter.again_later(request, why)
        return Retry(max=FOR_EVER, interval=max(1, round(seconds)))


def record_end(manifest_id: int, error: Exception) -> None:
    """Says in the manifest's row why its rescan came to nothing, where nobody has more to say.

    What can't be said now isn't lost: without it the sweep tries again in an hour.
    """
    reason = readable(f"its rescan failed: {str(error) or type(error).__name__}")
    try:
        give_up(manifest_id, job_id_of(manifest_id), reason)
    except DataError as failure:
        log.warning("end of a rescan not recorded", manifest=manifest_id, error=str(failure))


def tries_so_far(meta: dict[str, Any]) -> int:
    tries = meta.get("tries", 0)
    return tries if isinstance(tries, int) else 0


_rescanner: Rescanner | None = None


def rescan_manifest(manifest_id: int, reason: str, force: bool = False) -> dict[str, Any] | Retry:
    """The job: `reason` is a `data.secscan.status.Reason`; `force` makes a manual one forced.

    Returns the result as JSON (design, "The rescan job"), or an RQ Retry to run again later.
    """
    if _rescanner is None:
        raise RuntimeError("rescan_manifest runs in a rescanworker only: it prepares the process")
    asked = Reason.FORCED if force else Reason(reason)
    job = get_current_job()
    meta = job.meta if job is not None else {}
    # The blob worker enqueues as soon as the last blob is placed, so that is when it was.
    complete_since = job.created_at if job is not None and asked is Reason.EVENT else None
    request = RescanRequest(manifest_id=manifest_id, reason=asked)
    result = _rescanner.rescan(request, meta, complete_since)
    return result if isinstance(result, Retry) else result.as_dict()


def prepare(process: Process, *, backfill: bool) -> RescanProcess:
    """Builds what this process needs, and the RQ worker on top of it."""
    global _rescanner
    settings = process.settings
    build_database(settings)
    redis = build_redis(settings, hurry=lambda: process.stop.requested)
    storage = build_storage(settings)
    reporter = build_reporter(settings)
    indexer = build_indexer(settings, redis, storage, backfill=backfill, observer=reporter)
    items = build_blob_queue(settings)
    _rescanner = Rescanner(
        indexer=indexer,
        max_retries=settings.rescan.maximum_retries,
        ask_for_blobs=lambda manifest_id: ask_for_lost_blobs(items, storage, manifest_id),
        reporter=reporter,
    )
    queue = build_queue(settings, redis, backfill=backfill)
    return RescanProcess(
        queue,
        stop=process.stop,
        housekeeping=Housekeeping(queue, settings.rescan.job_timeout, give_up),
        circuit_key=circuit_key_of(settings.rescan.queue_name),
        may_work=lambda: scanner_may_work(indexer),
        after_job=reporter.tell,
    )


def scanner_may_work(indexer: Indexer) -> bool:
    gate = indexer.gate
    assert isinstance(gate, RedisScannerGate)
    return gate.may_work(lambda: indexer.scanner.index_state(timeout=PROBE_SECONDS))


def check_settings(settings: Settings) -> None:
    """Raises the `SettingsError` that each child would meet: here it is said once, and ends us.

    Nothing is asked of a server, so nothing is open when the children are forked.
    """
    build_scanner(settings)
    build_layer_links(settings, build_storage(settings))


def work_on_lane(process: Process, *, backfill: bool) -> None:
    worker = prepare(process, backfill=backfill)
    assert _rescanner is not None
    registry = _rescanner.reporter.metrics.registry
    log.info("worker ready", lane=worker.lane.name)
    with pushing_metrics(process.settings, registry, "rescanworker"):
        worker.work(burst=process.burst, logging_level=None)


def work(process: Process) -> None:
    """In burst mode one lane after the other, here; else a child for each rescan at a time."""
    check_settings(process.settings)
    if process.burst:
        work_on_lane(process, backfill=False)
        work_on_lane(process, backfill=True)
        return
    events = process.settings.rescan.maximum_concurrent_indexes
    children = [Child(f"rescan-{n}", work_on_lane, {"backfill": False}) for n in range(events)]
    children.append(Child("rescan-backfill", work_on_lane, {"backfill": True}))
    supervise(process, children)


def main() -> int:
    return run_worker(WorkerType.RESCAN, "Rescans manifests as soon as they are complete.", work)


if __name__ == "__main__":
    # RQ imports this module by its name, so it must not be a second one called __main__.
    from workers.rescanworker import main as run

    sys.exit(run())
