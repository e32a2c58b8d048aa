"""An upstream registry on loopback, for demo and tests: the pull half of OCI's distribution API.

    GET, HEAD  /v2/                               200; 401
    GET, HEAD  /v2/<repository>/manifests/<ref>   200; 401, 404
    GET, HEAD  /v2/<repository>/blobs/<digest>    200; 401, 404
    GET        /token?scope=..                    200; 401

As a process: `python -m workers.demo.upstreamregistry --image PATH --port-file FILE`.
"""

from __future__ import annotations

import argparse
import re
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workers.demo.imagearchive import ImageUnreadable
from workers.demo.imagefiles import load_image
from workers.demo.images import BlobSource
from workers.demo.imagestore import ImageStore
from workers.demo.loopback import StandIn
from workers.demo.registryfaults import Call, Failing, Fault, Redirecting, Troubles
from workers.demo.registryhttp import (
    RegistryReply,
    RegistryRequest,
    RegistryServer,
    error_reply,
)
from workers.demo.registrylogin import TOKEN_PATH, Access, Doorkeeper
from workers.demo.serving import wait_to_be_stopped, write_port

_CONTENT = re.compile(r"/v2/(?P<repository>.+)/(?P<kind>manifests|blobs)/(?P<reference>[^/]+)")


@dataclass(frozen=True, slots=True)
class Route:
    """What a request is about; repository and reference are empty where there is none."""

    call: Call
    repository: str = ""
    reference: str = ""


class UpstreamRegistry(StandIn):
    """The registry as a server in threads of this process; a context manager.

    `troubles` is what goes wrong; `requests` are all that came, in order. It may go down and come
    up again on the same port.
    """

    def __init__(
        self,
        store: ImageStore | None = None,
        *,
        access: Access | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.store = store or ImageStore()
        self.troubles = Troubles()
        self.doorkeeper = Doorkeeper(access or Access())
        self.requests: list[RegistryRequest] = []
        self._tls = tls
        super().__init__(port)

    @property
    def host(self) -> str:
        """What `upstream_registry` is to be; `insecure` too, unless there is `tls`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}"

    def new_server(self, address: tuple[str, int]) -> RegistryServer:
        server = RegistryServer(address, self.answer)
        if self._tls is not None:
            server.socket = self._tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        return server

    def count(self, call: Call, reference: str | None = None) -> int:
        """How many requests came that are of this call, for one tag or digest or for all."""
        routes = [route(request.path) for request in list(self.requests)]
        return sum(found.call is call and reference in (None, found.reference) for found in routes)

    def answer(self, request: RegistryRequest) -> RegistryReply:
        """The reply to a request, spoiled by what trouble there is."""
        self.requests.append(request)
        wanted = route(request.path)
        reply = self._reply(request, wanted)
        fault = self.troubles.next(wanted.call, wanted.reference) if reply.status != 401 else None
        return spoiled(reply, fault)

    def _reply(self, request: RegistryRequest, wanted: Route) -> RegistryReply:
        if wanted.call is Call.TOKEN:
            return self.doorkeeper.give_token(request)
        if not self.doorkeeper.lets_in(request, wanted.repository):
            return self.doorkeeper.challenge(f"{self.url}{TOKEN_PATH}", wanted.repository)
        match wanted.call:
            case Call.PING:
                return RegistryReply(body=BlobSource.of(b"{}"))
            case Call.MANIFEST:
                return self._manifest(wanted)
            case Call.BLOB:
                return self._blob(wanted)
        return error_reply(404, "UNSUPPORTED")

    def _manifest(self, wanted: Route) -> RegistryReply:
        found = self.store.manifest(wanted.repository, wanted.reference)
        if found is None:
            return error_reply(404, "MANIFEST_UNKNOWN")
        headers = {"Content-Type": found.media_type, "Docker-Content-Digest": found.digest}
        return RegistryReply(headers=headers, body=BlobSource.of(found.content))

    def _blob(self, wanted: Route) -> RegistryReply:
        found = self.store.blob(wanted.repository, wanted.reference)
        if found is None:
            return error_reply(404, "BLOB_UNKNOWN")
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": found.digest,
        }
        return RegistryReply(headers=headers, body=found)


def route(path: str) -> Route:
    """What a path asks for."""
    if path == TOKEN_PATH:
        return Route(Call.TOKEN)
    if path in ("/v2", "/v2/"):
        return Route(Call.PING)
    found = _CONTENT.fullmatch(path)
    if found is None:
        return Route(Call.OTHER)
    call = Call.MANIFEST if found["kind"] == "manifests" else Call.BLOB
    return Route(call, found["repository"], found["reference"])


def spoiled(reply: RegistryReply, fault: Fault | None) -> RegistryReply:
    """The reply with a fault in it, or in its place."""
    match fault:
        case Failing(status=status, headers=headers):
            return error_reply(status, "TROUBLE", headers)
        case Redirecting(location=location, status=status):
            return RegistryReply(status=status, headers={"Location": location})
    return replace(reply, fault=fault)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs as a process until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m workers.demo.upstreamregistry",
        description="An upstream registry on loopback, for demo and tests.",
    )
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the port")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    parser.add_argument(
        "--image",
        type=Path,
        action="append",
        default=[],
        help="an OCI layout, an OCI archive or what docker save wrote; may be given repeatedly",
    )
    options = parser.parse_args(arguments)
    try:
        store = ImageStore(*(load_image(path) for path in options.image))
    except ImageUnreadable as error:
        parser.error(str(error))
    with UpstreamRegistry(store, port=options.port) as registry:
        write_port(options.port_file, registry.port)
        wait_to_be_stopped()
    return 0


if __name__ == "__main__":
    sys.exit(main())
