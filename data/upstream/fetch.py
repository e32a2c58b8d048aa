"""One GET at a registry, with its tries and its redirects.

A redirect is followed by hand, because the Authorization header stays with the host that it was
made for, and because nobody may lead us from https to http, in circles, or to a login of theirs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from data.errors import BlobTruncated, UpstreamRefused, UpstreamUnavailable
from data.upstream.answers import translated_error, worth_another_try
from data.upstream.connections import Connections, Deadline
from data.upstream.registry import authority, same_origin

TRIES = 3
REDIRECTS = 5
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
LONGEST_LOCATION = 8192  # characters
PIECE = 256 * 1024  # bytes of a body read at once
# The body of an answer that is no blob and no manifest is read up to here, to keep its connection.
UNWANTED_BODY = 16 * 1024  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a host answered. Close it: an unread rest would hold the connection."""

    url: str  # of the host that answered, after redirects
    response: BaseHTTPResponse
    deadline: Deadline

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def size(self) -> int | None:
        """Announced bytes of the body, None where there is no such announcement."""
        announced = self.response.headers.get("Content-Length", "")
        chunked = "Transfer-Encoding" in self.response.headers
        plain = announced.isascii() and announced.isdigit() and len(announced) < 20
        return int(announced) if plain and not chunked else None

    def pieces(self, size: int = PIECE) -> Iterator[bytes]:
        """The body, never unpacked, in pieces of at most `size` bytes.

        Raises `UpstreamUnavailable`, `UpstreamRefused`, or `BlobTruncated` for an early end.
        """
        while piece := self._read(size):
            yield piece

    def _read(self, size: int) -> bytes:
        with translated(self.url, self.deadline):
            return self.response.read(size, decode_content=False)

    def body(self, limit: int) -> bytes:
        """The whole body, which must not be longer than `limit` bytes.

        Raises `UpstreamUnavailable` for an early end, `UpstreamRefused` for too long a body.
        """
        content = bytearray()
        self._require_within(self.size or 0, limit)
        try:
            for piece in self.pieces(min(PIECE, limit + 1)):
                content += piece
                self._require_within(len(content), limit)
        except BlobTruncated as error:
            raise UpstreamUnavailable(str(error)) from error
        return bytes(content)

    def _require_within(self, size: int, limit: int) -> None:
        if size > limit:
            raise UpstreamRefused(
                f"{host_of(self.url)} answers with more than the {limit} bytes that we take"
            )

    def discard(self) -> None:
        """Ends with the answer, and keeps the connection if its body is short."""
        if self.size is not None and self.size <= UNWANTED_BODY:
            self.body(UNWANTED_BODY)
        self.close()

    def close(self) -> None:
        self.response.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Gets things over `connections`; `pause` is the wait in seconds before the second try."""

    connections: Connections
    pause: float = 0.25

    def get(
        self,
        url: str,
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
    ) -> Answer:
        """The first answer that is no redirect, of whatever status.

        `authorization` is sent to the host of `url`, and to no other that a redirect leads to.
        Raises `UpstreamUnavailable` or `UpstreamRefused`.
        """
        visited: set[str] = set()
        origin = url
        while url not in visited and len(visited) <= REDIRECTS:
            if not same_origin(origin, url):
                authorization = None
            answer = self._try(url, deadline, request_headers(headers, authorization))
            if answer.status not in REDIRECT_STATUSES:
                return answer
            visited.add(url)
            answer.discard()
            url = redirect_target(url, answer.response.headers.get("Location"))
        circle = "in a circle" if url in visited else f"more than {REDIRECTS} times"
        raise UpstreamRefused(f"{host_of(origin)} redirects {circle}; nothing was fetched")

    def _try(self, url: str, deadline: Deadline, headers: Mapping[str, str]) -> Answer:
        """Asks up to three times, as long as it is the connection that fails."""
        for tried in range(1, TRIES + 1):
            try:
                response = self.connections.get(url, headers, deadline)
            except (HTTPError, OSError, ValueError) as error:
                if tried == TRIES or not worth_another_try(error):
                    raise translated_error(error, host_of(url), deadline) from error
                time.sleep(min(self.pause * 4 ** (tried - 1), deadline.left(host_of(url))))
            else:
                return Answer(url=url, response=response, deadline=deadline)
        raise AssertionError("unreachable: the last try returns or raises")


@contextmanager
def translated(url: str, deadline: Deadline) -> Iterator[None]:
    """Turns what urllib3 and sockets raise into our errors."""
    try:
        yield
    except (HTTPError, OSError, ValueError) as error:
        raise translated_error(error, host_of(url), deadline) from error


def request_headers(more: Mapping[str, str] | None, authorization: str | None) -> dict[str, str]:
    """Asks for the bytes as they are: the digest is of those."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "quay-rescan", **(more or {})}
    if authorization is not None:
        headers["Authorization"] = authorization
    return headers


def redirect_target(url: str, location: str | None) -> str:
    """Where an answer of `url` redirects to.

    Raises `UpstreamRefused` for a target that is no http(s) URL, holds a login, or leaves https.
    """
    where = f"{host_of(url)} redirects"
    if not location or len(location) > LONGEST_LOCATION:
        raise UpstreamRefused(f"{where} to nowhere, or to a URL of more than {LONGEST_LOCATION}")
    try:
        target = urlsplit(urljoin(url, location))
    except ValueError as error:
        raise UpstreamRefused(f"{where} to what is no URL") from error
    if target.scheme not in ("http", "https"):
        raise UpstreamRefused(f"{where} to a URL of another kind than http or https")
    if "@" in target.netloc:
        raise UpstreamRefused(f"{where} to a URL with a login in it")
    if urlsplit(url).scheme == "https" and target.scheme == "http":
        raise UpstreamRefused(f"{where} from https to http, at {authority(target)[0]}")
    authority(target)
    return target._replace(fragment="").geturl()


def host_of(url: str) -> str:
    """Host and port for a message: paths and queries of redirects hold signatures."""
    return urlsplit(url).netloc.rpartition("@")[2]
