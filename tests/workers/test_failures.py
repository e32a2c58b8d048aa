"""What an error means for the work in hand: one decision for every error that there is."""

from __future__ import annotations

import inspect

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from data import errors
from queues import errors as queue_errors
from workers.failures import LAST_RETRY_SECONDS, Action, decide, wait_before_retry

LATER = {
    errors.DatabaseUnavailable("x"),
    errors.StorageUnavailable("x"),
    errors.ScannerUnavailable("x"),
    errors.ScannerBusy("x"),
    errors.ScannerDenied("x"),
    errors.UpstreamBusy("x"),
    errors.SettingsError("KEY", "x"),
    errors.SecretError("x"),
    queue_errors.NoSlotFree("x", retry_in=1),
    RedisConnectionError("x"),
}
NEVER = {
    errors.ManifestError("x"),
    errors.NotFoundError("x"),
    errors.ScannerRejectedManifest("x"),
    errors.UnknownStatus("x"),
    queue_errors.InvalidWork("x"),
}
RETRY = {
    errors.UpstreamUnavailable("x"),
    errors.UpstreamDenied("x"),
    errors.UpstreamNotFound("x"),
    errors.UpstreamRefused("x"),
    errors.BlobDigestMismatch("x"),
    errors.BlobTooLarge("x"),
    errors.BlobTruncated("x"),
    errors.BlobNotStored("x"),
    errors.ScannerFetchFailed("x"),
    ValueError("nobody expected this"),
}


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (error, action)
        for action, group in ((Action.LATER, LATER), (Action.NEVER, NEVER), (Action.RETRY, RETRY))
        for error in sorted(group, key=lambda each: type(each).__name__)
    ],
    ids=lambda value: getattr(value, "name", type(value).__name__),
)
def test_each_error_has_its_verdict(error: Exception, action: Action) -> None:
    assert decide(error).action is action


def test_every_error_of_data_is_decided_on_here() -> None:
    leaves = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.DataError) and not kind.__subclasses__()
    }
    assert leaves <= {type(error) for error in LATER | NEVER | RETRY}


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (errors.ScannerBusy("x", retry_after=17), 17),
        (errors.UpstreamBusy("x", retry_after=3), 3),
        (queue_errors.BudgetSpent("x", retry_in=3600), 3600),
    ],
)
def test_who_names_a_time_is_believed(error: Exception, seconds: float) -> None:
    assert decide(error).seconds == seconds


def test_waits_grow_from_try_to_try_and_end() -> None:
    waits = [wait_before_retry(tries) for tries in range(-1, 20)]
    assert waits == sorted(waits)
    assert waits[1:5] == [10, 40, 160, 640]
    assert waits[-1] == LAST_RETRY_SECONDS
