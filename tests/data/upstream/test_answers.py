"""What a status, a header or an error of the network means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from data.errors import (
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamUnavailable,
)
from data.upstream.answers import LONGEST_WAIT, seconds_to_wait, status_error

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, UpstreamDenied, r"denied to the organisation's upstream login \(401\); check"),
        (403, UpstreamDenied, r"denied to the organisation's upstream login \(403\); check"),
        (404, UpstreamNotFound, r"doesn't have it \(404\)"),
        (408, UpstreamUnavailable, r"has trouble \(408\)"),
        (429, UpstreamBusy, r"limits our requests \(429\); tried again later"),
        (500, UpstreamUnavailable, r"has trouble \(500\)"),
        (503, UpstreamUnavailable, r"has trouble \(503\)"),
        (204, UpstreamRefused, "status 204, which is no answer"),
        (206, UpstreamRefused, "status 206, which is no answer"),
        (304, UpstreamRefused, "status 304, which is no answer"),
        (400, UpstreamRefused, "status 400, which is no answer"),
    ],
)
def test_every_status_has_its_error(status: int, kind: type[UpstreamError], message: str) -> None:
    error = status_error(status, "blob X", retry_after=None, anonymous=False, now=NOON)

    with pytest.raises(kind, match=f"^blob X: .*{message}"):
        raise error


def test_without_a_login_the_message_says_so() -> None:
    error = status_error(401, "blob X", retry_after=None, anonymous=True, now=NOON)

    assert "denied to anonymous clients (401)" in str(error)


def test_busy_carries_the_wait() -> None:
    error = status_error(429, "blob X", retry_after="7", anonymous=True, now=NOON)

    assert isinstance(error, UpstreamBusy)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1e3", None),
        ("0", 0),
        (" 120 ", 120),
        ("9" * 500, LONGEST_WAIT),
        ("Fri, 02 Jan 2026 12:01:30 GMT", 90),
        ("Fri, 02 Jan 2026 12:01:30 -0000", 90),
        ("Fri, 02 Jan 2026 11:00:00 GMT", 0),
        ("Fri, 02 Jan 2999 11:00:00 GMT", LONGEST_WAIT),
        ("Fri, 99 Jan 2026 11:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert seconds_to_wait(header, NOON) == seconds
