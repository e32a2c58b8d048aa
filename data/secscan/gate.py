"""What the indexer asks before it sends Clair a request; `queues.scannergate` answers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from data.secscan.status import Reason


class ScannerGate(Protocol):
    """Lets index requests through: slots, the daily budget, one request a digest at a time."""

    def enter(self, digest: str, reason: Reason) -> AbstractContextManager[object]:
        """Holds one of the scanner's slots; raises when there is none to be had now."""

    def charge(self, digest: str) -> None:
        """An index request for the digest is about to be sent."""

    def is_manifests_own(self, digest: str) -> bool:
        """Whether the scanner gave no answer for this digest though it answers others."""
