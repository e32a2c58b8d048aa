"""Whether the bytes of a manifest are those that its digest names."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from data.digests import DIGEST
from data.errors import UpstreamRefused

SIGNED_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def verified_digest(
    content: bytes, media_type: str, *, reference: str, announced: str | None, what: str
) -> str:
    """The sha256 of a manifest, which must be what was asked for and what was announced.

    `announced` is the Docker-Content-Digest header; a digest of another algorithm in it is left
    alone, because nobody here could use it. Raises `UpstreamRefused` where the two differ.
    """
    signed = media_type == SIGNED_SCHEMA1
    payload = signed_payload(content, what) if signed else content
    digest = f"sha256:{hashlib.sha256(payload).hexdigest()}"
    for expected in (reference, announced or ""):
        if DIGEST.fullmatch(expected) and expected != digest:
            raise UpstreamRefused(
                f"{what}: the {len(content)} bytes that came have digest {digest} instead of "
                f"{expected}; check the upstream registry, or a proxy on the way to it"
            )
    return digest


def signed_payload(content: bytes, what: str) -> bytes:
    """What the digest of a signed schema 1 manifest is of: its JSON without the signatures.

    The protected header of a signature says how many bytes to take, and what to put behind them.
    Raises `UpstreamRefused` where it doesn't.
    """
    try:
        protected = json.loads(from_base64url(json.loads(content)["signatures"][0]["protected"]))
        length, tail = protected["formatLength"], from_base64url(protected["formatTail"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UpstreamRefused(f"{what}: a signed schema 1 manifest without signature") from error
    if not isinstance(length, int) or not 0 <= length <= len(content):
        raise UpstreamRefused(f"{what}: its signature is of more bytes than it has")
    return content[:length] + tail


def from_base64url(text: Any) -> bytes:
    """Base64 in its form for URLs, whose padding is left out. Raises ValueError."""
    padded = text + "=" * (-len(text) % 4)
    return base64.urlsafe_b64decode(padded)
