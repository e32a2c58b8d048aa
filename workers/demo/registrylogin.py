"""How the upstream stand-in lets clients in: freely, by Basic, or by tokens of a token server."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import threading
import time
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qs

from workers.demo.images import BlobSource
from workers.demo.registryhttp import RegistryReply, RegistryRequest, error_reply

SERVICE = "upstream-stand-in"
TOKEN_PATH = "/token"


class Authentication(Enum):
    """What the stand-in asks for."""

    NONE = "none"
    BASIC = "basic"
    TOKEN = "token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who is let in. Without a login, tokens are given to anybody, as public registries do."""

    authentication: Authentication = Authentication.NONE
    login: tuple[str, str] | None = None  # username, password
    realm: str | None = None  # URL of the token server, None: the stand-in itself
    token_seconds: int = 300


class Doorkeeper:
    """Checks the Authorization header, and gives out tokens."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._tokens: dict[str, tuple[str, float]] = {}  # to scope and end
        self._lock = threading.Lock()

    def lets_in(self, request: RegistryRequest, repository: str) -> bool:
        header = request.headers.get("authorization", "")
        match self.access.authentication:
            case Authentication.NONE:
                return True
            case Authentication.BASIC:
                return self._knows_login(header)
            case Authentication.TOKEN:
                return self._knows_token(header.removeprefix("Bearer "), pull_scope(repository))

    def challenge(self, realm: str, repository: str) -> RegistryReply:
        """The 401 that tells a client how to get in."""
        if self.access.authentication is Authentication.BASIC:
            wanted = f'Basic realm="{SERVICE}"'
        else:
            scope = f',scope="{pull_scope(repository)}"' if repository else ""
            wanted = f'Bearer realm="{self.access.realm or realm}",service="{SERVICE}"{scope}'
        return error_reply(401, "UNAUTHORIZED", {"WWW-Authenticate": wanted})

    def give_token(self, request: RegistryRequest) -> RegistryReply:
        """A token for the scope that is asked for; 401 without the login, if there is one."""
        header = request.headers.get("authorization", "")
        if self.access.login is not None and not self._knows_login(header):
            return error_reply(401, "UNAUTHORIZED")
        scope = " ".join(parse_qs(request.query).get("scope", []))
        token = secrets.token_urlsafe()
        with self._lock:
            self._tokens[token] = scope, time.monotonic() + self.access.token_seconds
        content = {"token": token, "expires_in": self.access.token_seconds}
        return RegistryReply(
            headers={"Content-Type": "application/json"},
            body=BlobSource.of(json.dumps(content).encode()),
        )

    def end_tokens(self) -> None:
        """Lets no token in that was given out before."""
        with self._lock:
            self._tokens.clear()

    def _knows_login(self, header: str) -> bool:
        expected = base64.b64encode(":".join(self.access.login or ("", "")).encode()).decode()
        return hmac.compare_digest(header.encode(), f"Basic {expected}".encode())

    def _knows_token(self, token: str, scope: str) -> bool:
        with self._lock:
            given, end = self._tokens.get(token, ("", 0.0))
        return time.monotonic() < end and scope in ("", given)


def pull_scope(repository: str) -> str:
    return f"repository:{repository}:pull" if repository else ""
