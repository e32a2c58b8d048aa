"""Quay's encrypted columns: pinned vectors, and values that can't be read.

The vectors were computed without the code under test and without a CCM implementation: RFC 3610
over single AES blocks, nonce 00 01 .. 0c, a tag of 16 bytes.
"""

from __future__ import annotations

import traceback
from base64 import b64decode, b64encode

import pytest

from data.errors import SecretError
from data.field_encryption import convert_secret_key, decrypt_field, encrypt_field

PLAIN = "s3cret-übung"
DECIMAL = "79160302416213012458317239131284521905476019276154063459374811921374613257498"

VECTORS = {
    DECIMAL: (
        "af0324b61ffbd6b28f9b2b883abf82afe333014bfefa9c8ca7b5e8162356bd1a",
        "v0$$AAECAwQFBgcICQoLDDm/y6WXnrzK4Af7sEAaLdAU8ipviemin6lz4X5Z",
    ),
    "0b8f3c1e-5d7a-4c52-9f0e-2a6b41d7c3e9": (
        "0b8f3c1e5d7a4c529f0e2a6b41d7c3e90b8f3c1e5d7a4c529f0e2a6b41d7c3e9",
        "v0$$AAECAwQFBgcICQoLDKY2eyb+XFc3fncaZxC2qXw5ARPSplRovzfEP1GK",
    ),
    "test1234": (
        "7465737431323334746573743132333474657374313233347465737431323334",
        "v0$$AAECAwQFBgcICQoLDCKkUAFUTsoJ0ij6vxtP6RYLRBLXGYvHcpJNK+12",
    ),
    # 33 hex digits: no whole bytes, so each decimal digit counts as a character.
    "777777777777777777777777777777777777777": (
        "37" * 32,
        "v0$$AAECAwQFBgcICQoLDLpIFkRRiiwQYHzRUIzh45HbHmgLxPh1qamzFr2B",
    ),
}


@pytest.mark.parametrize("secret", VECTORS)
def test_key_and_value_are_read_as_quay_wrote_them(secret: str) -> None:
    key_hex, value = VECTORS[secret]
    key = convert_secret_key(secret)
    assert key.hex() == key_hex
    assert decrypt_field(value, key) == PLAIN


def test_key_that_yaml_read_as_a_number_is_the_same_key() -> None:
    assert convert_secret_key(int(DECIMAL)) == convert_secret_key(DECIMAL)


def test_long_key_is_cut_to_32_bytes() -> None:
    assert convert_secret_key("abcdefghijklmnopqrstuvwxyz0123456789") == (
        b"abcdefghijklmnopqrstuvwxyz012345"
    )


@pytest.mark.parametrize("secret", ["", "schlüssel-€"])
def test_key_that_gives_no_bytes_is_refused(secret: str) -> None:
    with pytest.raises(SecretError, match="DATABASE_SECRET_KEY") as raised:
        convert_secret_key(secret)
    assert "schlüssel" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("plain", ["", "robot$puller", PLAIN, "x" * 4096])
def test_written_values_are_read_back_and_never_look_alike(plain: str) -> None:
    key = convert_secret_key("test1234")
    first, second = encrypt_field(plain, key), encrypt_field(plain, key)
    assert decrypt_field(first, key) == decrypt_field(second, key) == plain
    assert first != second


def damaged(value: str) -> str:
    sealed = bytearray(b64decode(value.removeprefix("v0$$")))
    sealed[15] ^= 1
    return "v0$$" + b64encode(sealed).decode()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", r"v0\$\$"),
        (PLAIN, r"v0\$\$"),
        ("v1$$" + VECTORS["test1234"][1][4:], r"v0\$\$"),
        ("v0$$A", "base64"),
        ("v0$$ünlesbar", "base64"),
        ("v0$$", "cut off"),
        ("v0$$AAECAwQFBgcICQoLDCKkUAFU", "cut off"),
        (damaged(VECTORS["test1234"][1]), "DATABASE_SECRET_KEY"),
        (VECTORS[DECIMAL][1], "DATABASE_SECRET_KEY"),
    ],
)
def test_value_that_cannot_be_read_is_refused_without_showing_it(value: str, message: str) -> None:
    key = convert_secret_key("test1234")
    with pytest.raises(SecretError, match=message) as raised:
        decrypt_field(value, key)
    shown = "".join(traceback.format_exception(raised.value))
    assert key.hex() not in shown
    assert PLAIN not in shown
    assert len(value) < 5 or value[4:] not in shown


def test_sealed_text_that_is_no_utf8_is_refused() -> None:
    key = convert_secret_key("test1234")
    # b"\xff\xfe" sealed with the nonce 00 01 .. 0c, computed as the vectors were.
    with pytest.raises(SecretError, match="damaged"):
        decrypt_field("v0$$AAECAwQFBgcICQoLDK5prz0eUKGwZASE+In3Nwg09Q==", key)
