"""Quay's encrypted columns, such as the upstream credentials of a proxy organisation.

A value is `v0$$` and the base64 of a 13-byte nonce, the AES-CCM ciphertext and its 16-byte tag,
with no associated data (Quay's data/encryption.py). The key is made of DATABASE_SECRET_KEY.
"""

from __future__ import annotations

import binascii
import os
from base64 import b64decode, b64encode
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from data.errors import SecretError

VERSION_PREFIX = "v0$$"
KEY_BYTES = 32
NONCE_BYTES = 13
TAG_BYTES = 16


def convert_secret_key(database_secret_key: str | int) -> bytes:
    """The 32-byte key that Quay makes of DATABASE_SECRET_KEY.

    A decimal integer gives the bytes of its hex form, a UUID its 16 bytes, anything else one byte a
    character; these bytes are repeated, or cut, to 32. An integer with an odd number of hex digits
    has no bytes in Quay's eyes and is read as characters. Raises SecretError for a key that gives
    no bytes.
    """
    text = str(database_secret_key)
    material = integer_bytes(text) or uuid_bytes(text) or character_bytes(text)
    if not material:
        raise SecretError("DATABASE_SECRET_KEY is empty; take it from the config.yaml of this Quay")
    return (material * KEY_BYTES)[:KEY_BYTES]


def decrypt_field(value: str, key: bytes) -> str:
    """The plain text of an encrypted column. `key` is that of `convert_secret_key`.

    Raises SecretError when the value has another form or the key isn't the one it was encrypted
    with; the message holds neither.
    """
    if not value.startswith(VERSION_PREFIX):
        raise SecretError(
            f"an encrypted column doesn't begin with {VERSION_PREFIX}; Quay wrote it so"
        )
    try:
        sealed = b64decode(value.removeprefix(VERSION_PREFIX))
    except (binascii.Error, ValueError):
        raise SecretError("an encrypted column is no base64; set it anew in Quay") from None
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise SecretError("an encrypted column is cut off; set it anew in Quay")
    try:
        plain = AESCCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
        return plain.decode("utf-8")
    except (InvalidTag, UnicodeDecodeError):
        raise SecretError(
            "an encrypted column can't be decrypted: DATABASE_SECRET_KEY is not the key that it "
            "was written with, or the value is damaged"
        ) from None


def encrypt_field(value: str, key: bytes) -> str:
    """A value as Quay would store it, with a fresh nonce."""
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + AESCCM(key).encrypt(nonce, value.encode("utf-8"), None)
    return VERSION_PREFIX + b64encode(sealed).decode("ascii")


def integer_bytes(text: str) -> bytes | None:
    try:
        return bytes.fromhex(f"{int(text):02x}")
    except ValueError:
        return None


def uuid_bytes(text: str) -> bytes | None:
    try:
        return UUID(text).bytes
    except ValueError:
        return None


def character_bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise SecretError(
            "DATABASE_SECRET_KEY has a character above U+00FF, which Quay can't make a byte of"
        ) from None
