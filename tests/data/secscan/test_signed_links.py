from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from data.secscan.signed_links import SignedLinks

DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"
MOMENT = 1767225600
SECRET = b"a secret of thirty-two bytes, ok"

# Made once: hex of HMAC-SHA256(SECRET, "<DIGEST>\n1767225660"), by hand with hashlib.
SIGNATURE = "8910b3533d18a429be6299d93f9ea700ad60ccfb65eca5cda1a308a4d41d23f0"


def links(moment: float = MOMENT, secret: bytes = SECRET) -> SignedLinks:
    return SignedLinks(base_url="http://127.0.0.1:1/", secret=secret, clock=lambda: moment)


def test_vector() -> None:
    location = links().locate("org", "repo", DIGEST)
    parts = urlsplit(location.uri)
    assert (parts.scheme, parts.netloc) == ("http", "127.0.0.1:1")
    assert parts.path == f"/layers/{DIGEST}"
    assert parse_qs(parts.query) == {"expires": [str(MOMENT + 60)], "signature": [SIGNATURE]}
    assert "Authorization" not in location.headers


def test_own_link_is_good_until_it_expires() -> None:
    assert links().verify(DIGEST, str(MOMENT + 60), SIGNATURE)
    assert links(MOMENT + 59.9).verify(DIGEST, str(MOMENT + 60), SIGNATURE)
    assert not links(MOMENT + 60).verify(DIGEST, str(MOMENT + 60), SIGNATURE)


@pytest.mark.parametrize(
    ("digest", "expires", "signature"),
    [
        (OTHER, str(MOMENT + 60), SIGNATURE),
        (DIGEST, str(MOMENT + 6000), SIGNATURE),
        (DIGEST, str(MOMENT + 60), SIGNATURE[:-1] + "1"),
        (DIGEST, str(MOMENT + 60), SIGNATURE.upper()),
        (DIGEST, str(MOMENT + 60), ""),
        (DIGEST, "", ""),
        (DIGEST, "never", "\ud800"),
    ],
)
def test_altered_link_is_no_good(digest: str, expires: str, signature: str) -> None:
    assert not links().verify(digest, expires, signature)


def test_link_of_another_secret_is_no_good() -> None:
    assert not links(secret=b"another").verify(DIGEST, str(MOMENT + 60), SIGNATURE)


def test_no_secret_no_links() -> None:
    with pytest.raises(ValueError, match="secret"):
        links(secret=b"")


def test_secret_is_not_in_the_repr() -> None:
    assert "thirty-two" not in repr(links())
