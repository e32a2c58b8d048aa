"""What an answer of Clair's that holds no report means, as an error of ours.

    400             ScannerRejectedManifest   its word on the manifest: no tar, bogus manifest
    401, 403        ScannerDenied             the pre-shared keys differ
    429             ScannerBusy               more index requests than it takes at once
    500, no layer   ScannerFetchFailed        it says that it couldn't fetch the layers
    anything else   ScannerUnavailable        5xx, a redirect, a page of a proxy in between

Clair's own message is handed on, shortened and without the signatures and tokens that it may quote
from the layer addresses. Its error body is `{"code", "message"}`; a proxy's is anything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from pydantic import BaseModel, ValidationError

from data.errors import (
    ScannerBusy,
    ScannerDenied,
    ScannerError,
    ScannerFetchFailed,
    ScannerRejectedManifest,
    ScannerUnavailable,
)

MESSAGE_LIMIT = 500
"""Characters of Clair's own words that go into an error."""

FETCH_FAILED = "failed to fetch layers"
"""How claircore begins when a layer couldn't be had (indexer/controller/fetchlayers.go)."""

_SECRETS = (
    (re.compile(r"(https?://)[^/@\s\"']+@"), r"\1"),
    (re.compile(r"(https?://[^\s\"'?]+)\?[^\s\"']*"), r"\1?..."),
    (re.compile(r"(?i)(bearer|basic)\s+[\w.~+/=-]+"), r"\1 ..."),
    (re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*"), "..."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer as it came: status, headers (names in any case), and all of its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _ErrorBody(BaseModel):
    message: str


def readable(text: str) -> str:
    """Clair's words in one line: shortened, and without what opens a layer."""
    text = text[: 8 * MESSAGE_LIMIT]
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 3] + "..."


def refusal(request: str, answer: Answer) -> ScannerError:
    """The error that this answer to `request` (say, "index sha256:..") stands for."""
    said = _message(answer.body)
    quoted = f": {said}" if said else ""
    match answer.status:
        case 400:
            return ScannerRejectedManifest(f"Clair refused to {request}{quoted}")
        case 401 | 403:
            return ScannerDenied(
                f"Clair denied us to {request} ({answer.status}); give SECURITY_SCANNER_V4_PSK "
                f"the value of Clair's auth.psk.key{quoted}"
            )
        case 429:
            return ScannerBusy(
                f"Clair is too busy to {request} (429)",
                retry_after(answer.headers.get("Retry-After")),
            )
        case status if 300 <= status < 400:
            return ScannerUnavailable(
                f"Clair's address sends us elsewhere ({status}) when asked to {request}; point "
                "SECURITY_SCANNER_V4_ENDPOINT at Clair itself"
            )
        case 500 if FETCH_FAILED in said:
            return ScannerFetchFailed(f"Clair couldn't {request}{quoted}")
        case status:
            return ScannerUnavailable(f"Clair answered {status} when asked to {request}{quoted}")


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait, of a Retry-After header that holds seconds or an HTTP date.

    None where there is no header, or none that can be read.
    """
    if value is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", value, re.ASCII):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - (time.time() if now is None else now))


def _message(body: bytes) -> str:
    try:
        return readable(_ErrorBody.model_validate_json(body).message)
    except ValidationError:
        return readable(body[: 8 * MESSAGE_LIMIT].decode(errors="replace"))
