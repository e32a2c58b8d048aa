"""Who may change something: whoever has RESCAN_OPS_TOKEN.

Programs send it as a bearer token. A person types it once and gets a session: a cookie that holds
its end and a signature made with a key drawn from the token, so that every ops server knows it and
a new token ends it. Every form of a session carries a second signature of the same key, which a
page of somebody else's can't know.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.requests import Request

from workers.ops.problems import Problem

COOKIE = "rescan_session"
SESSION_SECONDS = 12 * 3600
# Wrong tokens that are heard within a minute, over all clients, before the others have to wait.
MOST_WRONG = 20
WRONG_SECONDS = 60.0

SWITCHED_OFF = (
    "RESCAN_OPS_TOKEN is not set, so nothing can be asked for or changed here; set it in "
    "config.yaml and send the ops server a SIGHUP"
)


@dataclass(slots=True)
class WrongTokens:
    """Slows down guessing: after MOST_WRONG in a minute no token is looked at until it is over."""

    since: float = 0.0
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def refuse_when_many(self) -> None:
        with self.lock:
            if time.monotonic() - self.since > WRONG_SECONDS:
                self.since, self.count = time.monotonic(), 0
            if self.count >= MOST_WRONG:
                raise Problem(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    "too many wrong tokens; wait a minute",
                    {"Retry-After": str(int(WRONG_SECONDS))},
                )

    def add(self) -> None:
        with self.lock:
            self.count += 1


@dataclass(frozen=True, slots=True)
class Authentication:
    """`token` is RESCAN_OPS_TOKEN; None or empty: nobody may."""

    token: str | None
    wrong: WrongTokens = field(default_factory=WrongTokens)

    @property
    def switched_on(self) -> bool:
        return bool(self.token)

    def require_bearer(self, request: Request) -> None:
        """Raises a 503, 401 or 429 `Problem`."""
        self.require_switched_on()
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.is_token(given.strip()):
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "send RESCAN_OPS_TOKEN as `Authorization: Bearer <token>`",
                {"WWW-Authenticate": 'Bearer realm="quay-rescan"'},
            )

    def require_switched_on(self) -> None:
        if not self.switched_on:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, SWITCHED_OFF)

    def is_token(self, given: str) -> bool:
        """Compared in a time that says nothing about how much of it is right."""
        if not given or self.token is None:
            return False
        self.wrong.refuse_when_many()
        right = hmac.compare_digest(given.encode(), self.token.encode())
        if not right:
            self.wrong.add()
        return right

    def new_session(self) -> str:
        """The value of a new session's cookie: `<end>.<nonce>.<signature>`."""
        content = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_urlsafe(16)}"
        return f"{content}.{self.sign('session', content)}"

    def session(self, request: Request) -> str | None:
        """The session of the request's cookie while it is valid, else None."""
        value = request.cookies.get(COOKIE, "")
        content, _, signature = value.rpartition(".")
        end = content.partition(".")[0]
        if not self.switched_on or not (end.isascii() and end.isdigit()):
            return None
        valid = hmac.compare_digest(signature.encode(), self.sign("session", content).encode())
        return value if valid and int(end[:12]) > time.time() else None

    def form_token(self, session: str) -> str:
        return self.sign("form", session)

    def require_form(self, request: Request, form: Mapping[str, str]) -> None:
        """Raises a `Problem` unless a signed-in person sent this form from our own page."""
        self.require_switched_on()
        self.require_same_origin(request)
        session = self.session(request)
        if session is None:
            raise Problem(HTTPStatus.UNAUTHORIZED, "sign in first, at /sign-in")
        given = form.get("form_token", "")
        if not hmac.compare_digest(given.encode(), self.form_token(session).encode()):
            raise Problem(HTTPStatus.FORBIDDEN, "the form is not of this session; load / again")

    def require_same_origin(self, request: Request) -> None:
        """A browser says where a form comes from; another site's is refused."""
        site = request.headers.get("sec-fetch-site", "same-origin")
        origin = request.headers.get("origin")
        host = request.headers.get("host", "")
        foreign = origin is not None and origin.partition("://")[2] != host
        if site not in {"same-origin", "none"} or foreign:
            raise Problem(HTTPStatus.FORBIDDEN, "the form was sent by another site")

    def sign(self, purpose: str, content: str) -> str:
        key = hashlib.sha256(f"quay-rescan {purpose} {self.token}".encode()).digest()
        return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()
