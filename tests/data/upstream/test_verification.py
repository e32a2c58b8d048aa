"""The digest of a manifest is that of its bytes; of a signed one, that of what was signed."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from data.errors import UpstreamRefused
from data.upstream.verification import SIGNED_SCHEMA1, verified_digest

OCI = "application/vnd.oci.image.manifest.v1+json"
CONTENT = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
OTHER = f"sha256:{'0' * 64}"


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def signed(payload: bytes, **protected: object) -> bytes:
    """`payload` with a signature of nobody, in the form that docker gave it."""
    header = {"formatLength": len(payload) - 2, "formatTail": base64url(payload[-2:]), **protected}
    signature = {"protected": base64url(json.dumps(header).encode())}
    return payload[:-2] + b',\n "signatures": [' + json.dumps(signature).encode() + b"]\n}"


@pytest.mark.parametrize("reference", ["latest", DIGEST])
@pytest.mark.parametrize("announced", [None, DIGEST, "sha512:abc", "garbage"])
def test_matching_bytes_have_their_digest(reference: str, announced: str | None) -> None:
    found = verified_digest(CONTENT, OCI, reference=reference, announced=announced, what="it")

    assert found == DIGEST


@pytest.mark.parametrize(("reference", "announced"), [(OTHER, None), ("latest", OTHER)])
def test_other_bytes_are_refused(reference: str, announced: str | None) -> None:
    with pytest.raises(UpstreamRefused, match=f"the 20 bytes that came have digest {DIGEST}"):
        verified_digest(CONTENT, OCI, reference=reference, announced=announced, what="it")


def test_a_signature_is_not_part_of_the_digest() -> None:
    payload = b'{\n "name": "library/web"\n}'
    digest = f"sha256:{hashlib.sha256(payload).hexdigest()}"

    found = verified_digest(
        signed(payload), SIGNED_SCHEMA1, reference=digest, announced=None, what="it"
    )

    assert found == digest


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"signatures": [{"protected": 1}]}',
        b'{"signatures": [{"protected": "!"}]}',
        b"[" * 100_000,
        signed(b"{\n\n}", formatLength="2"),
        signed(b"{\n\n}", formatLength=-1),
        signed(b"{\n\n}", formatLength=10**9),
        signed(b"{\n\n}", formatTail=5),
    ],
)
def test_broken_signatures_are_refused(content: bytes) -> None:
    with pytest.raises(UpstreamRefused, match=r"^it: (a signed schema 1|its signature)"):
        verified_digest(content, SIGNED_SCHEMA1, reference="latest", announced=None, what="it")
