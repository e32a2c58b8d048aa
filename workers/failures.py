"""What an error means for the work in hand: retry, later or never. Decided here and nowhere else.

retry   it may be the work's own fault: one of its tries is used up, the wait grows
later   it is not: no try is used up
never   trying again changes nothing
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from redis.exceptions import RedisError
from rq.timeouts import JobTimeoutException

from data.errors import (
    BlobError,
    BlobNotStored,
    DatabaseUnavailable,
    ManifestError,
    NotFoundError,
    ScannerBusy,
    ScannerDenied,
    ScannerError,
    ScannerFetchFailed,
    ScannerRejectedManifest,
    SecretError,
    SettingsError,
    StorageError,
    UnknownStatus,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
)
from queues.errors import InvalidWork, ScannerClosed
from queues.scannergate import LONGEST_PAUSE_SECONDS

LATER_SECONDS = 5.0
# Nobody takes a job while the scanner is down; this is how soon after its return this one is.
SCANNER_LATER_SECONDS = 2.0
# What an upstream registry that asks us to wait gets at most: an hour, as between two tries.
LONGEST_LATER_SECONDS = 3600.0
# Waits between two tries at the same work grow from the first to the last of these.
FIRST_RETRY_SECONDS = 10.0
LAST_RETRY_SECONDS = 3600.0


class Action(Enum):
    RETRY = "retry"
    LATER = "later"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with the work, and in how many seconds."""

    action: Action
    seconds: float = 0.0


def decide(error: BaseException, tries: int = 0) -> Verdict:
    """The verdict on `error`, for work that used up `tries` tries before this one."""
    match error:
        case ScannerClosed(retry_in=seconds):
            return Verdict(Action.LATER, seconds)
        case ScannerBusy(retry_after=seconds):
            return Verdict(
                Action.LATER, min(seconds or SCANNER_LATER_SECONDS, LONGEST_PAUSE_SECONDS)
            )
        case UpstreamBusy(retry_after=seconds):
            return Verdict(Action.LATER, min(seconds or LATER_SECONDS, LONGEST_LATER_SECONDS))
        case InvalidWork() | NotFoundError() | ManifestError() | ScannerRejectedManifest():
            return Verdict(Action.NEVER)
        case UnknownStatus():
            return Verdict(Action.NEVER)
        case UpstreamDenied() | UpstreamNotFound() | UpstreamRefused() | BlobError():
            return Verdict(Action.RETRY, wait_before_retry(tries))
        case SecretError() | SettingsError() | ScannerDenied():
            return Verdict(Action.LATER, 60.0)  # a person has to mend it; nothing is lost meanwhile
        case BlobNotStored() | ScannerFetchFailed():
            return Verdict(Action.RETRY, wait_before_retry(tries))
        case ScannerError():
            return Verdict(Action.LATER, SCANNER_LATER_SECONDS)
        case DatabaseUnavailable() | RedisError() | StorageError():
            return Verdict(Action.LATER, LATER_SECONDS)
        case UpstreamError():
            return Verdict(Action.RETRY, wait_before_retry(tries))
        case JobTimeoutException():
            return Verdict(Action.RETRY, wait_before_retry(tries))
        case _:
            return Verdict(Action.RETRY, wait_before_retry(tries))


def wait_before_retry(tries: int) -> float:
    """Seconds before the next try: 10, 40, 160, 640, then 2560 and an hour."""
    return float(min(FIRST_RETRY_SECONDS * 4 ** min(max(tries, 0), 8), LAST_RETRY_SECONDS))
