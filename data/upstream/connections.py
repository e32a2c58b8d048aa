"""Kept connections that go only where the address guard lets them, and end at a deadline.

A socket's own time-out counts from byte to byte, so a server that sends one now and then would
hold a worker for ever. Here every read of an answer, its headers included, waits for the shorter
of the idle time and what is left until the deadline of the whole exchange.
"""

from __future__ import annotations

import functools
import http.client
import io
import os
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import certifi
from requests.utils import select_proxy, should_bypass_proxies
from urllib3 import PoolManager, ProxyManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.response import BaseHTTPResponse
from urllib3.util.connection import allowed_gai_family, create_connection

from data.errors import UpstreamRefused, UpstreamUnavailable
from data.upstream.addresses import AddressGuard
from data.upstream.registry import authority

CONNECTIONS_A_HOST = 8
# A name may have any number of addresses; the connect time-out is shared out among the first ones.
ADDRESSES_TRIED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds: to connect, and between two pieces of an answer."""

    connect: float
    idle: float


class Deadline:
    """The moment at which an exchange, with all its redirects and tries, must be over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._end

    def left(self, host: str) -> float:
        """Seconds left, more than 0. Raises `UpstreamUnavailable` when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise UpstreamUnavailable(
                f"{host} took longer than the {self.seconds:g} s that an exchange may take"
            )
        return left


class Connections:
    """Connections to any number of hosts, kept between requests; may be used by many threads.

    `proxies` is as `urllib.request.getproxies_environment` gives it: scheme -> URL, and `no`.
    `ca_bundle` is a PEM file that replaces the authorities of the system.
    """

    def __init__(
        self,
        guard: AddressGuard,
        timeouts: Timeouts,
        *,
        proxies: Mapping[str, str],
        ca_bundle: str | None = None,
    ) -> None:
        self._guard = guard
        self._timeouts = timeouts
        self._proxies = dict(proxies)
        self._pools = pool_classes(guard, timeouts.idle)
        self._context = tls_context(ca_bundle)
        self._direct = self._managed(PoolManager)
        self._proxied: dict[str, PoolManager] = {}

    def _managed(self, kind: type[PoolManager], *args: Any) -> PoolManager:
        manager = kind(*args, maxsize=CONNECTIONS_A_HOST, ssl_context=self._context)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def get(self, url: str, headers: Mapping[str, str], deadline: Deadline) -> BaseHTTPResponse:
        """Sends one GET and returns the answer with its body unread; follows no redirect.

        Raises urllib3's errors, `UpstreamRefused` from the guard and `UpstreamUnavailable` once the
        deadline has passed.
        """
        left = deadline.left(urlsplit(url).netloc)
        return self._manager(url).request(
            "GET",
            url,
            headers=headers,
            timeout=Timeout(connect=min(self._timeouts.connect, left), read=left),
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )

    def _manager(self, url: str) -> PoolManager:
        proxy = None
        if self._proxies and not should_bypass_proxies(url, no_proxy=self._proxies.get("no")):
            proxy = select_proxy(url, self._proxies)
        if proxy is None:
            return self._direct
        self._guard.check_name(*authority(urlsplit(url)))
        if proxy not in self._proxied:
            self._proxied[proxy] = self._managed(ProxyManager, proxy)
        return self._proxied[proxy]

    def close(self) -> None:
        for manager in (self._direct, *self._proxied.values()):
            manager.clear()


@functools.cache
def tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """Trusts `ca_bundle` alone, or else the system's authorities and certifi's.

    Made once for all clients: reading the authorities takes some 50 ms.
    """
    if ca_bundle is not None:
        directory = os.path.isdir(ca_bundle)
        return ssl.create_default_context(
            cafile=None if directory else ca_bundle, capath=ca_bundle if directory else None
        )
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def pool_classes(guard: AddressGuard, idle: float) -> dict[str, type[HTTPConnectionPool]]:
    """Pools for http and https whose connections obey this guard and this idle time (seconds)."""

    class Connection(_GuardedConnection):
        address_guard = guard
        # A staticmethod, because from Python 3.14 on a bare partial binds as a method.
        response_class = staticmethod(functools.partial(_TimedAnswer, idle))  # type: ignore[assignment]

    class TLSConnection(Connection, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class TLSPool(HTTPSConnectionPool):
        ConnectionCls = TLSConnection

    return {"http": Pool, "https": TLSPool}


class _GuardedConnection(HTTPConnection):
    """Looks its host up once, and connects to an address that the guard has seen."""

    address_guard: ClassVar[AddressGuard]

    def _new_conn(self) -> socket.socket:
        if self.proxy is not None:
            return super()._new_conn()
        addresses = self._addresses()
        for address in addresses:
            self.address_guard.check_address(self.host, self.port, address)
        return self._connect_to(addresses[:ADDRESSES_TRIED])

    def _addresses(self) -> list[str]:
        host = self.host.strip("[]")
        try:
            found = socket.getaddrinfo(host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError as error:
            raise UpstreamRefused(f"{self.host[:80]} can't be a host name") from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def _connect_to(self, addresses: list[str]) -> socket.socket:
        timeout = self.timeout / len(addresses) if isinstance(self.timeout, float) else self.timeout
        failure: OSError | None = None
        for address in addresses:
            try:
                return create_connection(
                    (address, self.port),
                    timeout,
                    source_address=self.source_address,
                    socket_options=self.socket_options,
                )
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, f"no connection within {self.timeout} s") from failure
        raise NewConnectionError(self, f"no connection: {failure}") from failure


class _TimedReader(io.RawIOBase):
    """Reads a socket until a deadline, and never waits longer than the idle time."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, idle: float) -> None:
        self._sock = sock
        self._raw = raw
        self._idle = idle
        allowed = sock.gettimeout()  # Connections.get: all that is left until the deadline
        self._end = None if allowed is None else time.monotonic() + allowed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        wait = self._idle
        if self._end is not None:
            wait = min(wait, self._end - time.monotonic())
        if wait <= 0:
            raise TimeoutError("the deadline of the exchange has passed")
        if wait != self._sock.gettimeout():  # a system call, for each piece of a blob
            self._sock.settimeout(wait)
        return self._raw.readinto(buffer)

    def readall(self) -> bytes:
        # http.client asks for all there is when a chunk claims to have a size of -1.
        raise http.client.HTTPException("a chunk of negative size")

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedAnswer(http.client.HTTPResponse):
    """An answer that is read through a `_TimedReader`."""

    def __init__(self, idle: float, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_TimedReader(sock, self.fp.detach(), idle))
