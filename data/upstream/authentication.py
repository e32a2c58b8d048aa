"""Challenges of a registry, and the Authorization headers that answer them.

Registries ask for a login (Basic), or for a token of a server that they name (Bearer): RFC 9110,
section 11, and the distribution project's token specification. The login goes to the registry and
to the token server it names, never over http unless the registry itself is configured as insecure.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import UpstreamRefused
from data.upstream.registry import Upstream

# A token names no lifetime: what the token specification says it then is.
DEFAULT_LIFETIME = 60.0  # seconds
# A token is not used in its last seconds: it would end on the way.
RENEWED_BEFORE_END = 10.0  # seconds
LONGEST_LIFETIME = 24 * 3600.0  # seconds
HEADER_SAFE = "^[!-~]+$"

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PIECE = re.compile(
    rf'\s*(?:,|(?P<name>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+))'
    rf"|(?P<scheme>{_TOKEN})(?=[\s,]|$))"
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate that a 401 offers: its scheme and parameters, names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Reads WWW-Authenticate headers, each of which may hold several challenges.

    What can't be understood ends the reading of its header: the challenges before it count.
    """
    found: list[Challenge] = []
    for header in headers:
        position, parameters = 0, None
        while piece := _PIECE.match(header, position):
            position = piece.end()
            if piece["scheme"]:
                parameters = dict[str, str]()
                found.append(Challenge(piece["scheme"].lower(), parameters))
            elif piece["name"] and parameters is not None:
                parameters.setdefault(piece["name"].lower(), parameter_value(piece))
    return found


def parameter_value(piece: re.Match[str]) -> str:
    if piece["plain"] is not None:
        return piece["plain"]
    return re.sub(r"\\(.)", r"\1", piece["quoted"])


def choose_challenge(challenges: Iterable[Challenge], *, has_login: bool) -> Challenge | None:
    """The first Bearer challenge, else Basic where there is a login; None if neither helps."""
    offered = list(challenges)
    for scheme in ("bearer", "basic") if has_login else ("bearer",):
        for challenge in offered:
            if challenge.scheme == scheme:
                return challenge
    return None


def token_url(challenge: Challenge, scope: str, *, insecure: bool) -> str:
    """Where to ask for a token for `scope`.

    The scope is ours, not the challenge's: we pull one repository, whatever else is offered.
    Raises `UpstreamRefused` for a realm that is no URL, or one on http though the registry is not.
    """
    realm = urlsplit(challenge.parameters.get("realm", ""))
    if realm.scheme not in ("http", "https") or not realm.netloc or "@" in realm.netloc:
        raise UpstreamRefused("the upstream registry names a token server that is no http(s) URL")
    if realm.scheme == "http" and not insecure:
        raise UpstreamRefused(
            f"the upstream registry speaks https but its token server {realm.netloc} http; "
            "no login is sent there"
        )
    query = parse_qsl(realm.query, keep_blank_values=True)
    if "service" in challenge.parameters:
        query.append(("service", challenge.parameters["service"]))
    return realm._replace(query=urlencode([*query, ("scope", scope)]), fragment="").geturl()


def basic_authorization(upstream: Upstream) -> str | None:
    """The login of the organisation as an Authorization header, None if it has none."""
    if not upstream.username or upstream.password is None:
        return None
    login = f"{upstream.username}:{upstream.password}".encode()
    return f"Basic {base64.b64encode(login).decode('ascii')}"


class _TokenAnswer(BaseModel):
    """What a token server answers; OAuth 2 calls the same thing `access_token`."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    token: str | None = Field(default=None, pattern=HEADER_SAFE, max_length=16384, repr=False)
    access_token: str | None = Field(
        default=None, pattern=HEADER_SAFE, max_length=16384, repr=False
    )
    expires_in: float | None = Field(default=None, allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An Authorization header, and the seconds for which it may be used."""

    authorization: str = field(repr=False)
    lifetime: float


def parse_token_answer(body: bytes, host: str) -> Token:
    """Raises `UpstreamRefused` unless there is a token in it that fits in a header."""
    try:
        answer = _TokenAnswer.model_validate_json(body)
    except ValidationError as error:
        raise UpstreamRefused(f"the token server {host} answers with what is no token") from error
    token = answer.token or answer.access_token
    if not token:
        raise UpstreamRefused(f"the token server {host} answers without a token")
    named = DEFAULT_LIFETIME if answer.expires_in is None else answer.expires_in
    lifetime = min(named, LONGEST_LIFETIME) - RENEWED_BEFORE_END
    return Token(authorization=f"Bearer {token}", lifetime=lifetime)


class Authorizations:
    """Authorization headers by scope, each until its end; for the use of many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._headers: dict[str, tuple[str, float]] = {}

    def get(self, scope: str) -> str | None:
        """The header to send for `scope`, None if there is none that still holds."""
        with self._lock:
            header, end = self._headers.get(scope, ("", 0.0))
        return header if time.monotonic() < end else None

    def keep(self, scope: str, header: str, lifetime: float) -> None:
        """Keeps `header` for `lifetime` seconds, and drops those that have ended."""
        now = time.monotonic()
        with self._lock:
            held = {key: value for key, value in self._headers.items() if value[1] > now}
            self._headers = {**held, scope: (header, now + lifetime)}
