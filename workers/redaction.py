"""Keeps secrets out of what is logged, whoever wrote the line.

The last processor before the renderer: our own events and those of rq, peewee and urllib3 pass it.
Nothing secret should get so far; this is for the day when it does, in the text of somebody else's
exception for instance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"
DEEPEST = 8  # levels of a nested value; what lies below is left out
# Characters of one text that are logged: an upstream's error page must not fill the log. Of a
# longer one the beginning and the end stay, because a traceback says at its end what happened.
LONGEST_TEXT = 10_000
BEGINNING = 2_000
SECRET_NAMES = (
    "password|passwd|secret|token|authorization|psk|credential|signature|cookie"
    "|access_?key|account_?key|private_?key|api_?key"
)
SECRET_KEY = re.compile(SECRET_NAMES, re.IGNORECASE)
USERINFO = re.compile(r"(://)[^\s/?#]*@")
# Presigned links of S3, Google, Azure, Swift, CloudFront, Akamai and Cloudflare, and our own.
SIGNED_QUERY = re.compile(
    r"""([?&](?:x-(?:amz|goog)-[a-z-]*|[a-z_-]{0,40}(?:signature|token|password|secret)[a-z_-]{0,40}
        |sig|temp_url_sig|awsaccesskeyid|googleaccessid|policy|key-pair-id|hdnts|hdntl|verify)=)
        [^&\s"'<>\#]*""",
    re.IGNORECASE | re.VERBOSE,
)
VALUE = r"""(?!\[redacted\])("[^"]*"|'[^']*'|[^\s"',;&)}\]]+)"""
NAME = rf"\b[\w-]{{0,40}}(?:{SECRET_NAMES})[\w-]{{0,40}}"
# name=value, 'name': 'value' and headers. A bare "RESCAN_OPS_TOKEN: should be .." is an error's
# words about a setting, so with a colon alone only what looks like YAML in lower case counts.
ASSIGNED = re.compile(
    rf"""({NAME}\s*=\s*|["']{NAME}["']\s*:\s*
         |(?:authorization|cookie)\s*:\s*(?:(?:bearer|basic)\s+)?
         |(?-i:\b[a-z_]{{0,40}}(?:password|passwd|secret|psk))\s*:\s*){VALUE}""",
    re.IGNORECASE | re.VERBOSE,
)
BEARER = re.compile(r"\b(bearer\s+)[\w.~+/-]{8,}=*", re.IGNORECASE)
WEB_TOKEN = re.compile(r"\beyJ[\w-]{1,4000}\.[\w-]{1,4000}\.[\w-]{0,4000}")
# Newlines stay: each renderer writes them in its own way.
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
KEY_CHARACTERS = re.compile(r"[^\w.-]+")
# Whatever one of the patterns above matches has one of these in it. Nearly no text has: looking for
# them together costs a quarter of what looking for each of the patterns does.
SUSPICIOUS = re.compile(rf"[@=]|eyJ|bearer|{SECRET_NAMES}|{CONTROL.pattern}", re.IGNORECASE)


def redact_event(_logger: Any, _method: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """A structlog processor: the event, with text and plain values only and no secret in it."""
    return {logged_name(str(key)): redact_value(str(key), value) for key, value in event.items()}


@lru_cache(maxsize=1024)
def logged_name(key: str) -> str:
    return KEY_CHARACTERS.sub("_", key) or "_"


@lru_cache(maxsize=1024)
def is_secret(key: str) -> bool:
    return SECRET_KEY.search(key) is not None


def redact_value(key: str, value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if is_secret(key):
        return REDACTED
    if isinstance(value, int):
        return value if value.bit_length() < 1024 else "[large number]"
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth >= DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {redact_text(str(k)): redact_value(str(k), v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_value("", entry, depth + 1) for entry in value]
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """`text` without userinfo, signatures and tokens, and without control characters."""
    if len(text) > LONGEST_TEXT:
        text = f"{text[:BEGINNING]} [..] {text[BEGINNING - LONGEST_TEXT :]}"
    if not SUSPICIOUS.search(text):
        return text
    text = USERINFO.sub(rf"\1{REDACTED}@", text)
    text = SIGNED_QUERY.sub(rf"\1{REDACTED}", text)
    text = ASSIGNED.sub(rf"\1{REDACTED}", text)
    text = BEARER.sub(rf"\1{REDACTED}", text)
    text = WEB_TOKEN.sub(REDACTED, text)
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
