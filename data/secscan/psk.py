"""The signature on requests to Clair: SECURITY_SCANNER_V4_PSK.

Clair and Quay share a key. Each request carries a token that it signs (HS256), issued by "quay" and
good for five minutes, which is what Clair's `auth.psk` checks.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable

import jwt

from data.errors import SettingsError

TOKEN_LIFETIME = 300
"""Seconds, as in Quay."""

SETTING = "SECURITY_SCANNER_V4_PSK"


def decode_psk(encoded: str) -> bytes:
    """The key itself. Raises SettingsError when the text is no base64 or holds nothing."""
    try:
        key = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(
            SETTING, "is not base64; copy the value of Clair's auth.psk.key as it stands"
        ) from error
    if not key:
        raise SettingsError(SETTING, "holds no key; copy the value of Clair's auth.psk.key")
    return key


class PskSignature:
    """Signs each request anew; does nothing without a key."""

    def __init__(self, encoded: str | None, clock: Callable[[], float] = time.time) -> None:
        self._key = decode_psk(encoded) if encoded else None
        self._clock = clock

    def token(self, key: bytes) -> str:
        """A token that is good for five minutes from now."""
        claims = {"iss": "quay", "exp": int(self._clock()) + TOKEN_LIFETIME}
        return jwt.encode(claims, key, algorithm="HS256")

    def headers(self) -> dict[str, str]:
        """What is to stand in the headers of one request."""
        return {} if self._key is None else {"Authorization": f"Bearer {self.token(self._key)}"}
