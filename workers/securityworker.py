"""The periodic cycle of Quay's security worker, for where Quay's own doesn't run.

Every SECURITY_SCANNER_INDEXING_INTERVAL seconds it indexes, in all repositories, manifests without
a row, pending ones, failed ones past their threshold, abandoned claims, and those that Clair filled
in an older state. It uses the same `Indexer` as a rescan, so both keep one protocol. It isn't among
the default RESCAN_WORKERS: beside Quay's own worker it would only do the same work.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import structlog
from redis.exceptions import RedisError

from data.database import connection
from data.errors import DatabaseUnavailable, DataError, ScannerError
from data.secscan import candidates
from data.secscan.indexer import Indexer
from data.secscan.rescan import RescanRequest
from data.secscan.status import Reason
from data.settings import Settings, WorkerType
from data.sweep import last_manifest_id
from queues.errors import BudgetSpent, DigestBusy, ScannerClosed
from workers.process import Process, Stop, run_worker
from workers.reporter import Reporter
from workers.wiring import (
    build_database,
    build_indexer,
    build_redis,
    build_reporter,
    build_storage,
    pushing_metrics,
)

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class SecurityCycle:
    """One cycle after another; each walk goes on where the cycle before left it."""

    indexer: Indexer
    settings: Settings
    job: str
    reporter: Reporter
    without_row: int = 0
    failed: candidates.Place | None = None
    outdated: candidates.Place | None = None

    def run(self, process: Process) -> int:
        """Indexes the candidates of one cycle, and returns how many were looked at.

        Raises what makes going on pointless: a scanner, a database or a Redis that is away.
        """
        looked_at = 0
        for manifest_id in self.candidates():
            if process.stop.requested:
                break
            self.index(manifest_id)
            looked_at += 1
        return looked_at

    def candidates(self) -> Iterator[int]:
        """Newest first, as a pull of now shall not wait for the past; then what may be retried."""
        scanner = self.settings.scanner
        threshold = timedelta(seconds=scanner.reindex_threshold)
        window = scanner.batch_size or candidates.WINDOW
        last = last_manifest_id()
        yield from candidates.find_newest_without_row(max(0, last - window), window)
        yield from candidates.find_pending()
        yield from candidates.find_abandoned_claims()
        found, self.failed = candidates.walk_failed(
            threshold, scanner.maximum_scan_retries, self.failed
        )
        yield from found
        found, self.outdated = candidates.walk_outdated(
            self.indexer.scanner.index_state(), threshold, self.outdated
        )
        yield from found
        found, reached = candidates.walk_without_row(self.without_row, window)
        self.without_row = reached if reached < last else 0
        yield from found

    def index(self, manifest_id: int) -> None:
        """One bad manifest never ends the cycle; a scanner that is away does."""
        request = RescanRequest(manifest_id=manifest_id, reason=Reason.CYCLE)
        try:
            result = self.indexer.index_manifest(request, self.job)
        except (BudgetSpent, DigestBusy) as error:
            log.info("passed over", manifest=manifest_id, reason=str(error))
        except (ScannerError, ScannerClosed, DatabaseUnavailable):
            raise
        except DataError as error:
            log.error("not indexed", manifest=manifest_id, error=str(error))
        else:
            log.info("indexed", **result.as_dict())
            self.reporter.rescanned(request, result)
        self.reporter.tell()


def build_cycle(settings: Settings, stop: Stop) -> SecurityCycle:
    build_database(settings)
    redis = build_redis(settings, hurry=lambda: stop.requested)
    reporter = build_reporter(settings)
    return SecurityCycle(
        indexer=build_indexer(settings, redis, build_storage(settings), observer=reporter),
        reporter=reporter,
        settings=settings,
        job=f"securityworker-{socket.gethostname()}-{os.getpid()}",
    )


def work(process: Process) -> None:
    cycle = build_cycle(process.settings, process.stop)
    interval = process.settings.scanner.indexing_interval
    log.info("worker ready", interval=interval)
    with pushing_metrics(process.settings, cycle.reporter.metrics.registry, "securityworker"):
        while not process.stop.requested:
            run_cycle(cycle, process)
            if process.burst or process.stop.wait(interval):
                return


def run_cycle(cycle: SecurityCycle, process: Process) -> None:
    try:
        with connection():
            log.info("cycle ended", manifests=cycle.run(process))
    except (DataError, ScannerClosed, RedisError) as error:
        log.error("cycle cut short", error=str(error))


def main() -> int:
    return run_worker(
        WorkerType.SECURITY, "The periodic cycle, where Quay's own doesn't run.", work
    )


if __name__ == "__main__":
    sys.exit(main())
