"""Every error that `queues` raises.

QueueError
├── QueueUnavailable        Redis can't be reached
├── InvalidWork             a queue item or a job that no program of Quay's or ours wrote
└── ScannerClosed           no index request may be sent now; `retry_in` says when to look again
    ├── NoSlotFree          RESCAN_MAX_CONCURRENT_INDEXES requests are open
    ├── DigestBusy          the same digest is being indexed for another repository
    ├── CircuitOpen         the scanner is down or asked for a pause
    └── BudgetSpent         RESCAN_MAX_INDEXES_PER_DAY for this digest
"""

from __future__ import annotations


class QueueError(Exception):
    """Root of what `queues` raises."""


class QueueUnavailable(QueueError):
    """Redis can't be reached."""


class InvalidWork(QueueError):
    """A queue item or a job whose content no program of Quay's or ours wrote."""


class ScannerClosed(QueueError):
    """No index request may be sent now. `retry_in` is in seconds."""

    def __init__(self, message: str, retry_in: float) -> None:
        super().__init__(message)
        self.retry_in = retry_in


class NoSlotFree(ScannerClosed):
    """All the scanner's slots are held by index requests of ours."""


class DigestBusy(ScannerClosed):
    """The same digest is being indexed; its result will be recorded here too."""


class CircuitOpen(ScannerClosed):
    """The scanner is down, or asked for a pause; one probe at a time finds out when it is back."""


class BudgetSpent(ScannerClosed):
    """The digest cost the scanner as many index requests today as it may."""
