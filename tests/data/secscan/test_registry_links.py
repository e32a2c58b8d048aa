from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from data.errors import SettingsError
from data.secscan.registry_links import InstanceKey, RegistryLinks, load_instance_key

DIGEST = f"sha256:{'a' * 64}"
MOMENT = 1767225600
KEY_SETTING = "INSTANCE_SERVICE_KEY_LOCATION"
KEY_ID_SETTING = "INSTANCE_SERVICE_KEY_KID_LOCATION"

# Header and claims of the token that Quay gives Clair for org/team/app.
HEADER = {"alg": "RS256", "kid": "the-key-id", "typ": "JWT"}
CLAIMS: dict[str, Any] = {
    "iss": "quay",
    "aud": "quay.example.test:8443",
    "nbf": MOMENT,
    "iat": MOMENT,
    "exp": MOMENT + 60,
    "sub": "(anonymous)",
    "access": [{"type": "repository", "name": "org/team/app", "actions": ["pull"]}],
    "context": {"com.apostille.roots": None, "com.apostille.root": "$disabled"},
}


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def links(private_key: rsa.RSAPrivateKey) -> RegistryLinks:
    return RegistryLinks(
        scheme="https",
        hostname="quay.example.test:8443",
        key=InstanceKey(key_id="the-key-id", private_key=private_key),
        clock=lambda: MOMENT + 0.7,
    )


def pem(key: PrivateKeyTypes, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def part(token: str, position: int) -> Any:
    encoded = token.split(".")[position]
    return json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))


def test_vector(links: RegistryLinks, private_key: rsa.RSAPrivateKey) -> None:
    location = links.locate("org", "team/app", DIGEST)
    assert location.uri == f"https://quay.example.test:8443/v2/org/team/app/blobs/{DIGEST}"
    assert set(location.headers) == {"Accept", "Authorization"}
    (authorization,) = location.headers["Authorization"]
    token = authorization.removeprefix("Bearer ")
    assert (part(token, 0), part(token, 1)) == (HEADER, CLAIMS)
    verified = jwt.decode(
        token,
        private_key.public_key(),
        algorithms=["RS256"],
        audience="quay.example.test:8443",
        options={"verify_exp": False},
    )
    assert verified == CLAIMS


def test_token_is_minted_when_the_address_is_asked_for(private_key: rsa.RSAPrivateKey) -> None:
    times = iter([MOMENT, MOMENT + 30])
    links = RegistryLinks(
        scheme="http",
        hostname="quay.test",
        key=InstanceKey(key_id="k", private_key=private_key),
        issuer="quay-two",
        clock=lambda: next(times),
    )
    tokens = [links.locate("o", "r", DIGEST).headers["Authorization"][0][7:] for _ in range(2)]
    assert [part(token, 1)["exp"] for token in tokens] == [MOMENT + 60, MOMENT + 90]
    assert part(tokens[0], 1)["iss"] == "quay-two"


def test_key_files_are_read(tmp_path: Path, private_key: rsa.RSAPrivateKey) -> None:
    (tmp_path / "quay.pem").write_bytes(pem(private_key))
    (tmp_path / "quay.kid").write_text("the-key-id\n")
    key = load_instance_key(tmp_path / "quay.pem", tmp_path / "quay.kid")
    assert key.key_id == "the-key-id"
    assert key.private_key.private_numbers() == private_key.private_numbers()


@pytest.mark.parametrize(
    ("key", "key_id", "setting", "problem"),
    [
        (None, b"kid", KEY_SETTING, "No such file"),
        (b"", b"kid", KEY_SETTING, "PEM"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nSECRET", b"kid", KEY_SETTING, "PEM"),
        ("elliptic", b"kid", KEY_SETTING, "RSA"),
        ("locked", b"kid", KEY_SETTING, "pass phrase"),
        ("good", None, KEY_ID_SETTING, "No such file"),
        ("good", b" \n", KEY_ID_SETTING, "key id"),
        ("good", b"two words", KEY_ID_SETTING, "key id"),
        ("good", b"\xff\xfe", KEY_ID_SETTING, "key id"),
    ],
)
def test_wrong_key_file_is_an_error_that_names_setting_and_file(
    tmp_path: Path,
    private_key: rsa.RSAPrivateKey,
    key: bytes | str | None,
    key_id: bytes | None,
    setting: str,
    problem: str,
) -> None:
    made: dict[str, bytes] = {
        "good": pem(private_key),
        "locked": pem(private_key, b"SECRET"),
        "elliptic": pem(ec.generate_private_key(ec.SECP256R1())),
    }
    content = made[key] if isinstance(key, str) else key
    for name, written in (("quay.pem", content), ("quay.kid", key_id)):
        if written is not None:
            (tmp_path / name).write_bytes(written)
    with pytest.raises(SettingsError, match=problem) as caught:
        load_instance_key(tmp_path / "quay.pem", tmp_path / "quay.kid")
    assert caught.value.key == setting
    assert str(tmp_path) in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_key_is_not_in_the_repr(links: RegistryLinks) -> None:
    assert "RSAPrivateKey" not in repr(links)
    assert "the-key-id" in repr(links)
