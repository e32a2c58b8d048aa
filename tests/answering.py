"""HTTP servers for tests, on loopback: canned answers, or a script for each connection."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Canned:
    """An answer that is always the same."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request that came. `port` is the client's: another one means another connection."""

    method: str
    path: str
    headers: Message
    body: bytes
    port: int


class AnsweringServer:
    """Answers by path (query left out), and keeps the requests. Unknown paths get 404.

    With `tls` it speaks https.
    """

    def __init__(self, answers: Mapping[str, Canned], tls: ssl.SSLContext | None = None) -> None:
        self.answers = dict(answers)
        self.seen: list[Seen] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                owner.seen.append(
                    Seen(
                        method=self.command,
                        path=self.path,
                        headers=self.headers,
                        body=body,
                        port=self.client_address[1],
                    )
                )
                answer = owner.answers.get(self.path.partition("?")[0], Canned(status=404))
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class ScriptedServer:
    """Plays one script a connection, in the order they come; later connections are closed.

    `requests` counts the requests that `read_request` has read.
    """

    def __init__(self, *scripts: Callable[[ScriptedServer, socket.socket], None]) -> None:
        self._scripts = list(scripts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests = 0
        self.connections = 0
        self._current: socket.socket | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._play, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        for each in (self._listener, self._current):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def read_request(self, connection: socket.socket) -> bytes:
        """One whole request; empty when the other side has hung up."""
        content = b""
        while b"\r\n\r\n" not in content:
            part = connection.recv(65536)
            if not part:
                return b""
            content += part
        head, _, body = content.partition(b"\r\n\r\n")
        lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-le")]
        length = int(lengths[0].split(b":")[1]) if lengths else 0
        while len(body) < length:
            body += connection.recv(65536)
        self.requests += 1
        return content

    def _play(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                self._current = connection
                if self._scripts and not self._ended:
                    try:
                        self._scripts.pop(0)(self, connection)
                    except ConnectionError:
                        continue  # the client hung up, which some scripts are about


def reset(connection: socket.socket) -> None:
    """Close the connection with a RST in place of a FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def http_answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
