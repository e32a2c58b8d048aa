"""Kept connections to Clair, on which a time-out bounds the whole answer.

requests gives each single read its time-out, so a server that sends a byte now and then would
hold a worker for ever. Here the read time-out is the time for the answer to its last byte.

A kept connection may have been closed by the other side since it was last used. That shows only
when the next request gets no answer on it, and `closed_while_kept` tells this case, in which
sending the request again is right, from all others, in which it may not be.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager
from urllib3.response import BaseHTTPResponse, HTTPResponse
from urllib3.util import Timeout


class KeptConnectionClosed(ConnectionResetError):
    """A connection that had served before ended without a byte of an answer."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, nearest first."""
    step: BaseException | None = error
    while step is not None:
        yield step
        step = step.__cause__ or step.__context__


def closed_while_kept(error: BaseException) -> bool:
    """Did the request fail only because the other side had closed the kept connection?"""
    return any(isinstance(step, KeptConnectionClosed) for step in causes(error))


class _TimedReader(io.RawIOBase):
    """Reads from a socket until a deadline, and knows whether anything came."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock = sock
        self._raw = raw
        allowed = sock.gettimeout()
        self._deadline = None if allowed is None else time.monotonic() + allowed
        self.began = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer took too long")
            self._sock.settimeout(left)
        count = self._raw.readinto(buffer)
        self.began = self.began or bool(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer read through a `_TimedReader`."""

    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._reader = _TimedReader(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        try:
            super().begin()
        except ConnectionError as error:
            if self._reader.began:
                raise
            raise _NoAnswer("the connection ended without an answer") from error


class _NoAnswer(http.client.RemoteDisconnected):
    """The connection ended before the first byte of an answer."""


class _Connection(HTTPConnection):
    response_class = _Answer
    _served = False

    def connect(self) -> None:
        self._served = False
        super().connect()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3's own does
        try:
            response = super().getresponse()
        except _NoAnswer as error:
            if self._served:
                raise KeptConnectionClosed(*error.args) from error
            raise
        self._served = True
        return response


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class KeptConnections(HTTPAdapter):
    """The adapter to mount on a requests session; proxies of the environment are honoured."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._use_pools(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        self._use_pools(manager)
        return manager

    def _use_pools(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one server, with what the environment says of proxies and authorities.

    A requests session would find it out anew for each request, and be longer at it than Clair takes
    to answer for a manifest that it has.
    """

    pool: HTTPConnectionPool
    base: str  # of the address, where a proxy wants all of it; else empty

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: Timeout,
    ) -> BaseHTTPResponse:
        """The answer, its body unread. Raises an error of urllib3's when there is none."""
        return self.pool.urlopen(
            method,
            self.base + path,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=timeout,
            preload_content=False,
            decode_content=False,
        )


def open_route(endpoint: str) -> Route:
    """The way to the server at this address; a path in it plays no part, as with Quay.

    Raises an error of requests' for an address that it can't use.
    """
    adapter: Any = KeptConnections()
    request = requests.Request("GET", urljoin(endpoint, "/")).prepare()
    url = str(request.url)
    settings: Any = requests.Session().merge_environment_settings(url, {}, None, None, None)
    verify, certificate, proxies = (settings[name] for name in ("verify", "cert", "proxies"))
    pool = adapter.get_connection_with_tls_context(request, verify, proxies, certificate)
    adapter.cert_verify(pool, url, verify, certificate)
    asked = adapter.request_url(request, proxies)
    return Route(pool, "" if asked == "/" else asked.removesuffix("/"))
