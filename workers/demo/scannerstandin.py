"""A scanner stand-in that speaks Clair v4's API on loopback. It is not Clair.

It does what the API promises as far as our pipeline can see: it fetches every layer from the
address and with the headers it was given, checks the digest, refuses what Clair refuses, and
reports the packages of dpkg's and apk's databases. It holds them against no source of
vulnerabilities. Its Server header, its state and this module's name say that it is a stand-in.

    GET  /indexer/api/v1/index_state                      200
    POST /indexer/api/v1/index_report                     201; 400, 429, 500
    GET  /indexer/api/v1/index_report/<digest>            200; 400, 404
    GET  /matcher/api/v1/vulnerability_report/<digest>    200; 400, 404
    GET  /stand-in/requests                               what was asked: scannerrecords.py

As a process: `python -m workers.demo.scannerstandin --port-file FILE`.
"""

from __future__ import annotations

import argparse
import base64
import sys
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

import jwt

from workers.demo.layerarchive import NotATar
from workers.demo.layerfetch import BogusManifest, RequestedManifest, is_digest, parse_manifest
from workers.demo.loopback import StandIn
from workers.demo.scannerfaults import Call, Delayed, Faults, replaced, spoiled
from workers.demo.scannerhttp import Reply, Request, Server, error_reply, json_reply
from workers.demo.scannerrecords import IndexRequests
from workers.demo.scannerreports import KnownVulnerability, LayersNotFetched, Report, Reports
from workers.demo.serving import wait_to_be_stopped, write_port

INDEX_STATE = "/indexer/api/v1/index_state"
INDEX_REPORT = "/indexer/api/v1/index_report"
VULNERABILITY_REPORT = "/matcher/api/v1/vulnerability_report"
RECORDS = "/stand-in/requests"

LEEWAY = 15
"""Seconds that Clair allows a token's times to be off."""


class FetchFailure(Enum):
    """How an index call ends when a layer can't be fetched. Either way the report is kept."""

    REPORT = "report"
    """201 with the report, its state IndexError: claircore while errors went into the report."""
    STATUS = "status"
    """500 with the error: claircore since its controller returns the error."""


class ScannerStandIn(StandIn):
    """The stand-in as a server in threads of this process; a context manager.

    `psk` is base64, as SECURITY_SCANNER_V4_PSK; None takes every request. `concurrency` is the
    number of index requests at once, above which it answers 429. `state` may be set while it runs,
    as when Clair is upgraded.
    """

    def __init__(
        self,
        *,
        psk: str | None = None,
        state: str = "stand-in-1",
        concurrency: int = 8,
        fetch_failure: FetchFailure = FetchFailure.REPORT,
        vulnerabilities: Sequence[KnownVulnerability] = (),
        port: int = 0,
    ) -> None:
        self.state = state
        self.fetch_failure = fetch_failure
        self.faults = Faults()
        self.requests = IndexRequests()
        self._reports = Reports(vulnerabilities)
        self._psk = base64.b64decode(psk, validate=True) if psk else None
        self._slots = threading.BoundedSemaphore(concurrency)
        super().__init__(port)

    @property
    def endpoint(self) -> str:
        """What SECURITY_SCANNER_V4_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self.port}"

    def new_server(self, address: tuple[str, int]) -> Server:
        return Server(address, self.answer)

    def answer(self, request: Request) -> Reply:
        """The reply to a request; does the work."""
        path = request.path.partition("?")[0]
        if path == RECORDS:
            return json_reply(200, self.requests.as_json())
        if not self._signed(request):
            return Reply(status=401)
        if path == INDEX_REPORT:
            return self._on(request, "POST", lambda: self._index(request))
        if path == INDEX_STATE:
            return self._on(request, "GET", self._index_state)
        place, _, digest = path.rpartition("/")
        if place == INDEX_REPORT:
            return self._on(request, "GET", lambda: self._get_index_report(digest))
        if place == VULNERABILITY_REPORT:
            return self._on(request, "GET", lambda: self._vulnerability_report(digest))
        return error_reply(404, "not found")

    def _signed(self, request: Request) -> bool:
        if self._psk is None:
            return True
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            jwt.decode(token, self._psk, algorithms=["HS256"], issuer="quay", leeway=LEEWAY)
        except jwt.InvalidTokenError:
            return False
        return True

    def _on(self, request: Request, method: str, work: Callable[[], Reply]) -> Reply:
        if request.method != method:
            return error_reply(405, f"method disallowed: {request.method}")
        return work()

    def _index_state(self) -> Reply:
        state = self.state
        return self._faulted(
            Call.INDEX_STATE, None, lambda: json_reply(200, {"state": state}, _etag(state))
        )

    def _index(self, request: Request) -> Reply:
        number = self.requests.arrive()
        reply = error_reply(500, "the stand-in broke")
        try:
            reply = self._index_in_slot(number, request)
        finally:
            self.requests.end(number, reply.status)
        return reply

    def _index_in_slot(self, number: int, request: Request) -> Reply:
        try:
            manifest = parse_manifest(request.body)
        except BogusManifest as error:
            return error_reply(400, str(error))
        layers = tuple(layer.hash for layer in manifest.layers)
        self.requests.update(number, digest=manifest.hash, layers=layers)
        if not self._slots.acquire(blocking=False):
            return error_reply(429, "server handling too many requests")
        try:
            return self._faulted(
                Call.INDEX, manifest.hash, lambda: self._read_layers(number, manifest)
            )
        finally:
            self._slots.release()

    def _read_layers(self, number: int, manifest: RequestedManifest) -> Reply:
        state = self.state
        try:
            report = self._reports.index(manifest, state)
        except NotATar as error:
            return error_reply(400, f"failed to start scan: {error}")
        except LayersNotFetched as error:
            report = error.report
            if self.fetch_failure is FetchFailure.STATUS:
                return error_reply(500, f"failed to start scan: {error}")
        self.requests.update(number, state=report["state"], packages=len(report["packages"]))
        return json_reply(201, report, _etag(state))

    def _get_index_report(self, digest: str) -> Reply:
        def work() -> Reply:
            return _found(digest, self._reports.get(digest), self.state)

        return self._faulted(Call.GET_INDEX_REPORT, digest, work)

    def _vulnerability_report(self, digest: str) -> Reply:
        def work() -> Reply:
            return _found(digest, self._reports.vulnerability_report(digest))

        return self._faulted(Call.VULNERABILITY_REPORT, digest, work)

    def _faulted(self, call: Call, digest: str | None, work: Callable[[], Reply]) -> Reply:
        fault = self.faults.take(call, digest)
        instead = replaced(fault)
        return instead if instead is not None else spoiled(work(), fault)


def _etag(state: str) -> dict[str, str]:
    return {"Etag": f'"{state}"'}


def _found(digest: str, report: Report | None, state: str | None = None) -> Reply:
    if not is_digest(digest):
        return error_reply(400, "malformed path: invalid digest format")
    if report is None:
        return error_reply(404, f"index report for manifest {digest} not found")
    return json_reply(200, report, _etag(state) if state else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a process until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m workers.demo.scannerstandin",
        description="A stand-in for Clair on loopback, for demo and tests. It is not Clair.",
    )
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the port")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    parser.add_argument("--psk-file", type=Path, help="file that holds the base64 key")
    parser.add_argument("--state", default="stand-in-1", help="the state of its indexer")
    parser.add_argument("--concurrency", type=int, default=8, help="index requests at once")
    parser.add_argument("--latency", type=float, default=0, help="seconds added to an index")
    options = parser.parse_args(arguments)
    stand_in = ScannerStandIn(
        psk=options.psk_file.read_text(encoding="ascii").strip() if options.psk_file else None,
        state=options.state,
        concurrency=options.concurrency,
        port=options.port,
    )
    if options.latency:
        stand_in.faults.add(Delayed(options.latency))
    with stand_in:
        write_port(options.port_file, stand_in.port)
        wait_to_be_stopped()
    return 0


if __name__ == "__main__":
    sys.exit(main())
