"""Puts Quay's notifications of a first index on Quay's queue. Never at the cost of the scan."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from data.errors import DataError, ScannerUnavailable
from data.manifest_records import ManifestRecord
from data.secscan.clair import ClairClient
from data.secscan.notifications import (
    Notification,
    RegistryAddress,
    build_notifications,
    find_tags,
    find_wishes,
)
from data.secscan.reports import Severity, VulnerabilityReport
from queues.workqueue import WorkQueue

log = structlog.get_logger()

# Clair's matcher may need a moment after an index before it knows the manifest.
REPORT_TRIES = 4
REPORT_WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcer:
    """Asked before each manifest that was indexed is completed."""

    scanner: ClairClient
    notifications: WorkQueue
    minimum: Severity
    address: RegistryAddress

    def prepare(self, record: ManifestRecord) -> Callable[[], object] | None:
        """What puts the manifest's notifications on the queue, with SQL alone; or None.

        It is run in the transaction that completes the manifest, so that none is lost or sent
        twice, whoever dies when. Trouble here is logged, for the scan is done.
        """
        try:
            wishes = find_wishes(record.repository_id)
            if not wishes:
                return None
            notifications = self.build(record, wishes, self.vulnerability_report(record.digest))
        except DataError as error:
            log.error(
                "notifications not queued",
                manifest=record.manifest_id,
                repository=record.full_repository,
                error=str(error),
            )
            return None
        log.info("notifications", manifest=record.manifest_id, count=len(notifications))
        return lambda: self.put(notifications)

    def vulnerability_report(self, digest: str) -> VulnerabilityReport:
        for _ in range(REPORT_TRIES):
            report = self.scanner.vulnerability_report(digest)
            if report is not None:
                return report
            time.sleep(REPORT_WAIT_SECONDS)
        raise ScannerUnavailable(f"Clair's matcher doesn't know {digest} though it was indexed")

    def build(
        self, record: ManifestRecord, wishes: list[str], report: VulnerabilityReport
    ) -> list[Notification]:
        return build_notifications(
            record,
            report,
            self.minimum,
            wishes=wishes,
            tags=find_tags(record.manifest_id),
            address=self.address,
        )

    def put(self, notifications: Sequence[Notification]) -> None:
        for notification in notifications:
            self.notifications.put(notification.path, notification.body, available_after=0)
