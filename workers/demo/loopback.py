"""What the stand-ins have in common: a server on loopback that can go down and come back."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from http.server import ThreadingHTTPServer
from typing import Any, Self


class LoopbackServer(ThreadingHTTPServer):
    """A thread a connection; knows those that are open, so that it can end them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that hang up are none of our errors; the base class prints all others."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError | ssl.SSLError):
            super().handle_error(request, client_address)

    def end_connections(self) -> None:
        """Cut off everybody who is connected."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # already ended by the other side


class StandIn:
    """A stand-in in threads of this process; a context manager, up inside its context."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: LoopbackServer | None = None

    def new_server(self, address: tuple[str, int]) -> LoopbackServer:
        """The server that listens on `address`. Each stand-in has its own."""
        raise NotImplementedError

    @property
    def port(self) -> int:
        """The port it listens on; stays the same when it goes down and comes back."""
        return self._port

    def __enter__(self) -> Self:
        self.come_up()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_down()

    def come_up(self) -> None:
        """Listen, on the same port as before if it was up before."""
        self._server = self.new_server(("127.0.0.1", self._port))
        self._port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.01},  # a test takes down three
            name=type(self).__name__,
            daemon=True,
        ).start()

    def go_down(self) -> None:
        """Stop listening and cut off everybody; what it holds and has seen stays."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.end_connections()
            self._server = None
