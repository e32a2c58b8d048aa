"""HTTP of the scanner stand-in: requests in, replies out, with the faults of the wire.

A plain threaded server, because tests want what a good server never does: answers that drip, stop
in the middle, or never come.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from workers.demo.loopback import LoopbackServer

SERVER_NAME = "quay-rescan-scanner-stand-in"

BODY_LIMIT = 16 * 1024 * 1024
"""Bytes of a request's body; a manifest with 10,000 layers is under 10 MB."""


@dataclass(frozen=True, slots=True)
class Dripping:
    """The right answer, but after the first `after` bytes only one every `interval` seconds."""

    interval: float = 0.05
    after: int = 0


@dataclass(frozen=True, slots=True)
class ClosingConnection:
    """The connection ends after the first `after` bytes of the right answer."""

    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request, its body read."""

    method: str
    path: str
    headers: Message
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply; `wire_fault` is what goes wrong while it is sent."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    wire_fault: Dripping | ClosingConnection | None = None

    def as_bytes(self) -> bytes:
        """The reply as it goes over the wire."""
        headers = {
            "Server": SERVER_NAME,
            "Content-Type": "application/json",
            "Content-Length": str(len(self.body)),
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def json_reply(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply with this content as JSON."""
    return Reply(status=status, body=json.dumps(content).encode(), headers=headers or {})


def error_reply(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An error as Clair words it: `{"code", "message"}`."""
    codes = {400: "bad-request", 404: "not-found", 405: "method-not-allowed"}
    code = codes.get(status, "too-many-requests" if status == 429 else "internal-error")
    return json_reply(status, {"code": code, "message": message}, headers)


class Server(LoopbackServer):
    """Answers requests on `address`."""

    def __init__(self, address: tuple[str, int], answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """The stand-in keeps records instead of a log."""

    def _serve(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > BODY_LIMIT:
            self.close_connection = True
            self._send(error_reply(400, "a body of a known, moderate length is wanted"))
            return
        request = Request(
            method=self.command,
            path=self.path,
            headers=self.headers,
            body=self.rfile.read(int(length)),
        )
        self._send(self.server.answer(request))

    def _send(self, reply: Reply) -> None:
        content = reply.as_bytes()
        match reply.wire_fault:
            case ClosingConnection(after=after):
                self.close_connection = True
                self.wfile.write(content[:after])
            case Dripping(interval=interval, after=after):
                self.wfile.write(content[:after])
                for position in range(after, len(content)):
                    time.sleep(interval)
                    self.wfile.write(content[position : position + 1])
            case _:
                self.wfile.write(content)
