"""Addresses at the registry itself, opened by a token that the instance's key signs.

For engines that can't presign (LocalStorage) Quay sends Clair to its own blob endpoint with a
registry token: RS256, signed with the key pair that every Quay instance makes for itself at start
(`conf/quay.pem`, `conf/quay.kid`). The claims are those that Quay's registry checks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from data.errors import SettingsError
from data.secscan.layers import ACCEPT, LayerLocation

TOKEN_LIFETIME = 60
"""Seconds that a layer token is good for, as in Quay."""

KEY_SETTING = "INSTANCE_SERVICE_KEY_LOCATION"
KEY_ID_SETTING = "INSTANCE_SERVICE_KEY_KID_LOCATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceKey:
    """The instance's private key and the id under which Quay knows its public half."""

    key_id: str
    private_key: RSAPrivateKey = field(repr=False)


def load_instance_key(key_path: Path, key_id_path: Path) -> InstanceKey:
    """Read the two files. Raises SettingsError naming the setting of the file that is wrong."""
    return InstanceKey(
        key_id=_key_id(_read(key_id_path, KEY_ID_SETTING), key_id_path),
        private_key=_private_key(_read(key_path, KEY_SETTING), key_path),
    )


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            setting,
            f"can't read {path}: {error.strerror or 'unknown cause'}; point it at the file that "
            "Quay wrote for this instance, and let the worker's user read it",
        ) from error


def _key_id(content: bytes, path: Path) -> str:
    try:
        key_id = content.decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise SettingsError(KEY_ID_SETTING, f"{path} holds no key id but binary data") from error
    if not key_id or not key_id.isprintable() or " " in key_id:
        raise SettingsError(KEY_ID_SETTING, f"{path} holds no key id; it must be one word")
    return key_id


def _private_key(content: bytes, path: Path) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise SettingsError(
            KEY_SETTING, f"the key in {path} has a pass phrase; store it without one"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            KEY_SETTING, f"{path} holds no private key in PEM form; use the instance's quay.pem"
        ) from error
    if not isinstance(key, RSAPrivateKey):
        raise SettingsError(
            KEY_SETTING, f"the key in {path} is not RSA; use the instance's quay.pem"
        )
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLinks:
    """Addresses at `<scheme>://<hostname>`: PREFERRED_URL_SCHEME and SERVER_HOSTNAME.

    `hostname` may hold a port, and is the audience of the token as it stands. `issuer` is
    INSTANCE_SERVICE_KEY_SERVICE.
    """

    scheme: str
    hostname: str
    key: InstanceKey
    issuer: str = "quay"
    clock: Callable[[], float] = field(default=time.time, repr=False)

    def locate(self, namespace: str, repository: str, digest: str) -> LayerLocation:
        """The blob's address in that repository, and a pull token, good for 60 s from now."""
        name = f"{namespace}/{repository}"
        token = jwt.encode(
            self._claims(name),
            self.key.private_key,
            algorithm="RS256",
            headers={"kid": self.key.key_id},
        )
        return LayerLocation(
            digest=digest,
            uri=f"{self.scheme}://{self.hostname}/v2/{quote(name)}/blobs/{quote(digest, safe=':')}",
            headers={**ACCEPT, "Authorization": (f"Bearer {token}",)},
        )

    def _claims(self, name: str) -> dict[str, Any]:
        now = int(self.clock())
        return {
            "iss": self.issuer,
            "aud": self.hostname,
            "nbf": now,
            "iat": now,
            "exp": now + TOKEN_LIFETIME,
            "sub": "(anonymous)",
            "access": [{"type": "repository", "name": name, "actions": ["pull"]}],
            "context": {"com.apostille.roots": None, "com.apostille.root": "$disabled"},
        }
