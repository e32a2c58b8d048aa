"""Serves the layers of a local storage directory to whoever holds a signed link.

Local storage can't presign, and an installation without an instance key can't send Clair to the
registry: the demo's case. Then Clair is sent here, with links of `data.secscan.signed_links`. A
link that is forged, altered or too old gets 403, whatever it asks for; only blobs of the
content-addressed store are served, by digest, so no other file can be named.

As a process: `python -m workers.demo.layerserver --help`.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from data.secscan.signed_links import SignedLinks
from workers.demo.serving import wait_to_be_stopped, write_port

_SHA256 = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)


def blob_path(directory: Path, digest: str) -> Path | None:
    """Where the blob lies in Quay's local storage; None for what is no sha256 digest."""
    match = _SHA256.fullmatch(digest)
    if match is None:
        return None
    content = match.group(1)
    return directory / "sha256" / content[:2] / content


def application(directory: Path, secret: bytes) -> Starlette:
    """The server: `GET /layers/<digest>?expires=..&signature=..`, byte ranges included."""
    links = SignedLinks(base_url="", secret=secret)

    def layer(request: Request) -> Response:
        digest = request.path_params["digest"]
        expires = request.query_params.get("expires", "")
        signature = request.query_params.get("signature", "")
        if not links.verify(digest, expires, signature):
            return PlainTextResponse("no valid link", status_code=403)
        path = blob_path(directory, digest)
        if path is None or not path.is_file():
            return PlainTextResponse("no such layer", status_code=404)
        # Clair refuses a layer without a content type.
        return FileResponse(path, media_type="application/octet-stream")

    return Starlette(routes=[Route("/layers/{digest:path}", layer)])


class LayerServer:
    """The server in a thread of this process, on loopback; a context manager."""

    def __init__(self, directory: Path, secret: bytes, port: int = 0) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                application(directory, secret),
                log_level="error",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [self._socket]},
            name="layer-server",
            daemon=True,
        )

    @property
    def base_url(self) -> str:
        """What `SignedLinks` takes as `base_url`."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        # The socket listens already: who comes before the loop runs, waits.
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a process until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m workers.demo.layerserver",
        description="Serves the layers of a local storage directory to holders of signed links.",
    )
    parser.add_argument("--directory", type=Path, required=True, help="the storage_path")
    parser.add_argument("--secret-file", type=Path, required=True, help="file with the secret")
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the port")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    options = parser.parse_args(arguments)
    with LayerServer(options.directory, options.secret_file.read_bytes(), options.port) as server:
        write_port(options.port_file, server.port)
        wait_to_be_stopped()
    return 0


if __name__ == "__main__":
    sys.exit(main())
