"""HTTP of the upstream stand-in: replies with bodies of any size, and the faults of the wire."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from workers.demo.images import PIECE, BlobSource
from workers.demo.loopback import LoopbackServer
from workers.demo.registryfaults import (
    Announcing,
    Endless,
    Fault,
    Held,
    Paced,
    Raw,
    Truncated,
    WrongBytes,
)

# The longest that a held answer waits, so that a test which forgets it ends.
LONGEST_HOLD = 60.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryRequest:
    """A request; header names in lower case."""

    method: str
    path: str  # without the query
    query: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryReply:
    """A reply; `body` is sent a piece at a time."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: BlobSource = field(default_factory=lambda: BlobSource.of(b""))
    fault: Fault | None = None


def error_reply(status: int, code: str, headers: Mapping[str, str] | None = None) -> RegistryReply:
    """An error as the distribution specification words it."""
    content = {"errors": [{"code": code, "message": "told by the upstream stand-in"}]}
    return RegistryReply(
        status=status,
        headers={"Content-Type": "application/json", **(headers or {})},
        body=BlobSource.of(json.dumps(content).encode()),
    )


class RegistryServer(LoopbackServer):
    """Answers requests on `address`."""

    def __init__(
        self, address: tuple[str, int], reply_to: Callable[[RegistryRequest], RegistryReply]
    ) -> None:
        self.reply_to = reply_to
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: RegistryServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def version_string(self) -> str:
        return "quay-rescan-upstream-stand-in"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as the base class has it
        """The stand-in keeps the requests themselves."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._send(
            self.server.reply_to(
                RegistryRequest(method=self.command, path=path, query=query, headers=headers)
            )
        )

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, reply: RegistryReply) -> None:
        match reply.fault:
            case Raw(content=content, interval=interval):
                self.close_connection = True
                self._write(sliced([content], 1 if interval else PIECE), interval)
                return
            case Held(arrived=arrived, released=released):
                arrived.set()
                released.wait(LONGEST_HOLD)
        self._send_head(reply)
        if self.command != "HEAD":
            self._send_body(reply)

    def _send_head(self, reply: RegistryReply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        match reply.fault:
            case Endless():
                self.send_header("Transfer-Encoding", "chunked")
            case Announcing(size=size):
                self.close_connection = True
                self.send_header("Content-Length", str(size))
            case _:
                self.send_header("Content-Length", str(reply.body.size))
        self.end_headers()

    def _send_body(self, reply: RegistryReply) -> None:
        pieces = reply.body.pieces()
        match reply.fault:
            case Endless():
                piece = bytes(PIECE)
                self._write(itertools.repeat(b"%x\r\n%b\r\n" % (len(piece), piece)))
            case Truncated(after=after):
                self.close_connection = True
                self._write(first_bytes(pieces, after))
            case WrongBytes():
                self._write(first_byte_changed(pieces))
            case Paced(piece=size, interval=interval):
                self._write(sliced(pieces, size), interval)
            case _:
                self._write(pieces)

    def _write(self, pieces: Iterable[bytes], interval: float = 0.0) -> None:
        for piece in pieces:
            self.wfile.write(piece)
            if interval:
                time.sleep(interval)


def sliced(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of at most `size`."""
    for piece in pieces:
        for position in range(0, len(piece), size):
            yield piece[position : position + size]


def first_bytes(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    """The first `count` bytes."""
    for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return


def first_byte_changed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for position, piece in enumerate(pieces):
        yield piece if position else bytes([piece[0] ^ 1]) + piece[1:]
