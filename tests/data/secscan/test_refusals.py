from __future__ import annotations

import json
import time
from collections.abc import Mapping

import pytest

from data.errors import (
    ScannerBusy,
    ScannerDenied,
    ScannerError,
    ScannerFetchFailed,
    ScannerRejectedManifest,
    ScannerUnavailable,
)
from data.secscan.refusals import MESSAGE_LIMIT, Answer, readable, refusal, retry_after

FETCH_FAILED = "failed to start scan: failed to fetch layers: fetcher: encountered errors: 404"


def refused(status: int, message: str = "why", headers: Mapping[str, str] | None = None) -> str:
    return str(_refusal(status, message, headers))


def _refusal(
    status: int, message: str = "why", headers: Mapping[str, str] | None = None
) -> ScannerError:
    body = json.dumps({"code": "some-code", "message": message}).encode()
    return refusal("index it", Answer(status=status, headers=headers or {}, body=body))


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "bogus manifest", ScannerRejectedManifest),
        (401, "", ScannerDenied),
        (403, "", ScannerDenied),
        (429, "server handling too many requests", ScannerBusy),
        (500, "could not retrieve indexer state", ScannerUnavailable),
        (500, FETCH_FAILED, ScannerFetchFailed),
        (502, "", ScannerUnavailable),
        (302, "", ScannerUnavailable),
        (404, "", ScannerUnavailable),
        (202, "", ScannerUnavailable),
    ],
)
def test_every_status_has_its_own_error(
    status: int, message: str, kind: type[ScannerError]
) -> None:
    assert type(_refusal(status, message)) is kind


def test_clairs_own_words_are_handed_on() -> None:
    assert refused(400, "failed to start scan: bad block at 0") == (
        "Clair refused to index it: failed to start scan: bad block at 0"
    )


def test_denied_names_the_key_to_mend() -> None:
    assert "SECURITY_SCANNER_V4_PSK" in refused(401)


def test_redirect_names_the_address_to_mend() -> None:
    assert "SECURITY_SCANNER_V4_ENDPOINT" in refused(302)


def test_page_of_a_proxy_is_quoted_in_one_line() -> None:
    answer = Answer(status=502, headers={}, body=b"<html>\n <h1>Bad\tGateway</h1>\x00\xff</html>")
    assert "<html> <h1>Bad Gateway</h1> \ufffd</html>" in str(refusal("index it", answer))


def test_long_words_are_cut() -> None:
    assert len(readable("x" * 10_000)) == MESSAGE_LIMIT
    assert readable("x" * MESSAGE_LIMIT) == "x" * MESSAGE_LIMIT


def test_endless_words_take_no_time() -> None:
    began = time.monotonic()
    readable("http://" + "x" * 50_000_000)
    assert time.monotonic() - began < 40


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            'Get "https://s3.test/b/sha256/ab?X-Amz-Signature=SECRET&a=SECRET": refused',
            'Get "https://s3.test/b/sha256/ab?...": refused',
        ),
        ("at http://user:SECRET@host/x failed", "at http://host/x failed"),
        (
            "sent Authorization: Bearer SECRET.SECRET-SECRET now",
            "sent Authorization: Bearer ... now",
        ),
        ("token eyJhbGciOi.eyJTRUNSRVQ.SECRET gone", "token ... gone"),
    ],
)
def test_what_opens_a_layer_is_left_out(said: str, kept: str) -> None:
    assert readable(said) == kept


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 2026 00:01:30 GMT", 90.0),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("١", None),
        ("9" * 400, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=1767225600) == seconds


def test_busy_carries_the_wait() -> None:
    error = _refusal(429, headers={"Retry-After": "12"})
    assert isinstance(error, ScannerBusy)
    assert error.retry_after == 12
