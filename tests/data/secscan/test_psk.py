from __future__ import annotations

import base64

import jwt
import pytest

from data.errors import SettingsError
from data.secscan.psk import PskSignature, decode_psk

KEY = bytes(range(32))
PSK = base64.b64encode(KEY).decode()

# Made once, without a JWT library, with the key above at 2026-01-01T00:00:00Z.
MOMENT = 1767225600
VECTOR = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJxdWF5IiwiZXhwIjoxNzY3MjI1OTAwfQ."
    "iax-xWpWlectwmIVJhNjqOumzci4Yw-T-6xrs2fCE7c"
)


def signed(psk: str | None) -> dict[str, str]:
    return PskSignature(psk, clock=lambda: MOMENT).headers()


def test_vector() -> None:
    assert signed(PSK)["Authorization"] == f"Bearer {VECTOR}"


def test_claims_are_those_that_clair_checks() -> None:
    token = signed(PSK)["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, KEY, algorithms=["HS256"], options={"verify_exp": False})
    assert claims == {"iss": "quay", "exp": MOMENT + 300}
    assert jwt.get_unverified_header(token)["alg"] == "HS256"


def test_token_is_minted_for_each_request() -> None:
    times = iter([MOMENT, MOMENT + 60])
    signature = PskSignature(PSK, clock=lambda: next(times))
    first, second = (signature.headers()["Authorization"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize("psk", [None, ""])
def test_no_key_no_signature(psk: str | None) -> None:
    assert signed(psk) == {}


def test_line_breaks_in_the_setting_are_no_matter() -> None:
    assert decode_psk(f"  {PSK[:20]}\n{PSK[20:]}\n") == KEY


@pytest.mark.parametrize(
    "psk", ["secret-word!", "c2Vjcm!V0d29yZA==", "c2VjcmV0d29yZA", "sécret", " \n"]
)
def test_bad_base64_is_an_error_that_names_the_key_and_not_the_secret(psk: str) -> None:
    with pytest.raises(SettingsError) as caught:
        decode_psk(psk)
    assert caught.value.key == "SECURITY_SCANNER_V4_PSK"
    assert "auth.psk.key" in str(caught.value)
    assert not psk.strip() or psk.strip() not in str(caught.value)


def test_key_is_not_in_the_repr() -> None:
    assert PSK not in repr(PskSignature(PSK))
    assert repr(KEY) not in repr(PskSignature(PSK))
