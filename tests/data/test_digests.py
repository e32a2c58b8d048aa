"""What is a digest, and what is never let through as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.digests import parse_digest
from data.errors import ManifestError

HEX = "0123456789abcdef" * 4


def test_a_digest_comes_back_as_it_is() -> None:
    assert parse_digest(f"sha256:{HEX}") == f"sha256:{HEX}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        HEX,
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"sha512:{HEX}{HEX}",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"sha256:{HEX[:-1]}٣",  # a digit, but not of hex
        f"sha256:../../{HEX}"[:71],
        "sha256:../../../../etc/passwd",
        f"sha256:{HEX[:-1]}/",
        f"sha256:{HEX[:-1]}\x00",
    ],
)
def test_what_is_no_digest_is_refused_and_named(text: str) -> None:
    with pytest.raises(ManifestError, match="is no digest; one is sha256: and 64 hex") as refusal:
        parse_digest(text)
    assert repr(text[:80]) in str(refusal.value)


def test_a_refusal_is_short_and_on_one_line() -> None:
    with pytest.raises(ManifestError) as refusal:
        parse_digest("a\n" * 1_000_000)
    assert len(str(refusal.value)) < 300
    assert "\n" not in str(refusal.value)


def nested(depth: int) -> list[object]:
    inner: list[object] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "value",
    [None, 1, b"sha256:", [], {}, 10**6000, nested(100_000)],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(ManifestError, match="missing or is no text"):
        parse_digest(value)


@given(st.text() | st.from_regex(r"sha256:[0-9a-f./]{60,68}"))
def test_nothing_else_comes_through(text: str) -> None:
    try:
        digest = parse_digest(text)
    except ManifestError:
        return
    assert digest == text
    assert len(digest) == 71
    assert set(digest.removeprefix("sha256:")) <= set("0123456789abcdef")
