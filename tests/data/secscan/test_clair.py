from __future__ import annotations

import base64
import gzip
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data.errors import (
    DataError,
    ScannerBusy,
    ScannerDenied,
    ScannerFetchFailed,
    ScannerRejectedManifest,
    ScannerUnavailable,
    SettingsError,
)
from data.secscan.clair import ClairClient, ReportState
from data.secscan.layers import LayerLocation
from data.secscan.reports import Severity
from tests.answering import AnsweringServer, Canned, ScriptedServer, http_answer
from tests.layerfiles import DPKG, gzipped, sha256, tar
from workers.demo.scannerfaults import (
    Busy,
    Call,
    ClosingConnection,
    Delayed,
    Dripping,
    Failing,
    Fault,
    Garbage,
    Redirecting,
    WithoutEtag,
    WrongState,
)
from workers.demo.scannerreports import KnownVulnerability
from workers.demo.scannerstandin import FetchFailure, ScannerStandIn

PSK = base64.b64encode(bytes(range(32))).decode()
MANIFEST = f"sha256:{'1' * 64}"
STATE = "/indexer/api/v1/index_state"
LAYER = gzipped(tar({"var/lib/dpkg/status": DPKG}))
REPORT = {"manifest_hash": MANIFEST, "state": "IndexFinished", "err": "", "success": True}


@pytest.fixture
def stand_in() -> Iterator[ScannerStandIn]:
    with ScannerStandIn(psk=PSK, state="state-of-today") as running:
        yield running


@pytest.fixture
def clair(stand_in: ScannerStandIn) -> Iterator[ClairClient]:
    client = ClairClient(stand_in.endpoint, psk=PSK, index_timeout=5, timeout=5)
    yield client
    client.close()


@pytest.fixture
def layer() -> Iterator[LayerLocation]:
    with AnsweringServer({"/layer": octets(LAYER)}) as server:
        yield LayerLocation(digest=sha256(LAYER), uri=f"{server.url}/layer")


def octets(body: bytes) -> Canned:
    return Canned(body=body, headers={"Content-Type": "application/octet-stream"})


def answering(body: bytes, **headers: str) -> AnsweringServer:
    canned = Canned(body=body, headers={name.replace("_", "-"): headers[name] for name in headers})
    return AnsweringServer({"/indexer/api/v1/index_report": canned})


def test_index_returns_the_report_and_the_state_without_quotes(
    clair: ClairClient, stand_in: ScannerStandIn, layer: LayerLocation
) -> None:
    report = clair.index(MANIFEST, [layer])
    assert report.state is ReportState.FINISHED
    assert report.err == ""
    assert report.manifest_hash == MANIFEST
    assert report.indexer_state == "state-of-today"
    assert [request.packages for request in stand_in.requests.of(MANIFEST)] == [2]


def test_index_tells_layers_in_order_with_address_and_headers() -> None:
    body = json.dumps(REPORT).encode()
    layers = [
        LayerLocation(
            digest=f"sha256:{number * 64}",
            uri=f"http://store.test/{number}?signature=x",
            headers={"Accept": ("application/gzip",), "Authorization": ("Bearer token",)},
        )
        for number in "23"
    ]
    with answering(body, ETag='"s"') as server:
        ClairClient(server.url, psk=None).index(MANIFEST, layers)
    (request,) = server.seen
    assert request.method == "POST"
    assert json.loads(request.body) == {
        "hash": MANIFEST,
        "layers": [
            {
                "hash": f"sha256:{number * 64}",
                "uri": f"http://store.test/{number}?signature=x",
                "headers": {"Accept": ["application/gzip"], "Authorization": ["Bearer token"]},
            }
            for number in "23"
        ],
    }
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] is None


@pytest.mark.parametrize("status", [200, 201])
def test_both_good_statuses_are_taken(status: int) -> None:
    answer = Canned(status=status, body=json.dumps(REPORT).encode(), headers={"ETag": 'W/"s"'})
    with AnsweringServer({"/indexer/api/v1/index_report": answer}) as server:
        report = ClairClient(server.url, psk=None).index(MANIFEST, [])
    assert report.indexer_state == "s"


def test_failed_index_is_a_report_with_its_reason(clair: ClairClient, layer: LayerLocation) -> None:
    missing = LayerLocation(digest=layer.digest, uri=f"{layer.uri}-missing?signature=SECRET")
    report = clair.index(MANIFEST, [missing])
    assert report.state is ReportState.ERROR
    assert "failed to fetch layers" in report.err
    assert "404" in report.err
    assert clair.get_index_report(MANIFEST) == report


def test_failed_index_as_status_has_an_error_of_its_own(
    clair: ClairClient, stand_in: ScannerStandIn, layer: LayerLocation
) -> None:
    stand_in.fetch_failure = FetchFailure.STATUS
    missing = LayerLocation(digest=layer.digest, uri=f"{layer.uri}-missing")
    with pytest.raises(ScannerFetchFailed, match="unexpected status code: 404"):
        clair.index(MANIFEST, [missing])


def test_manifest_that_clair_rejects(clair: ClairClient) -> None:
    with pytest.raises(ScannerRejectedManifest, match="bogus manifest"):
        clair.index(MANIFEST, [])


def test_layer_that_is_no_tar_is_rejected(clair: ClairClient) -> None:
    with AnsweringServer({"/layer": octets(b"not a tar at all" * 100)}) as server:
        digest = sha256(b"not a tar at all" * 100)
        location = LayerLocation(digest=digest, uri=f"{server.url}/layer")
        with pytest.raises(ScannerRejectedManifest, match="no tar archive"):
            clair.index(MANIFEST, [location])


def test_index_state(clair: ClairClient, stand_in: ScannerStandIn) -> None:
    assert clair.index_state() == "state-of-today"
    stand_in.state = "state-of-tomorrow"
    assert clair.index_state() == "state-of-tomorrow"


def test_reports_of_an_unknown_manifest_are_none(clair: ClairClient) -> None:
    assert clair.get_index_report(MANIFEST) is None
    assert clair.vulnerability_report(MANIFEST) is None


def test_report_of_an_index_under_way_is_none(
    clair: ClairClient, stand_in: ScannerStandIn, layer: LayerLocation
) -> None:
    clair.index(MANIFEST, [layer])
    stand_in.faults.add(WrongState("ScanLayers"), call=Call.GET_INDEX_REPORT)
    assert clair.get_index_report(MANIFEST) is None


def test_vulnerability_report(layer: LayerLocation) -> None:
    known = KnownVulnerability(
        id="7", package="bash", name="CVE-1", severity="Critical", fixed_in_version="5.3"
    )
    with ScannerStandIn(vulnerabilities=[known]) as stand_in:
        clair = ClairClient(stand_in.endpoint, psk=None)
        clair.index(MANIFEST, [layer])
        report = clair.vulnerability_report(MANIFEST)
    assert report is not None
    (vulnerability,) = report.vulnerabilities.values()
    assert (vulnerability.id, vulnerability.name) == ("7", "CVE-1")
    assert vulnerability.normalized_severity is Severity.CRITICAL
    assert vulnerability.fixed_in_version == "5.3"
    assert vulnerability.package is not None
    assert vulnerability.package.name == "bash"
    assert list(report.package_vulnerabilities.values()) == [("7",)]


def test_vulnerability_report_with_nulls_and_an_unknown_severity() -> None:
    vulnerability = {"id": "1", "links": None, "normalized_severity": "Awful", "package": None}
    body = {"manifest_hash": MANIFEST, "vulnerabilities": {"1": vulnerability}}
    path = f"/matcher/api/v1/vulnerability_report/{MANIFEST}"
    with AnsweringServer(
        {path: Canned(body=json.dumps({**body, "package_vulnerabilities": None}).encode())}
    ) as server:
        report = ClairClient(server.url, psk=None).vulnerability_report(MANIFEST)
    assert report is not None
    assert report.vulnerabilities["1"].normalized_severity is Severity.UNKNOWN
    assert report.vulnerabilities["1"].links == ""
    assert report.package_vulnerabilities == {}


def test_matcher_that_is_still_loading_is_unavailable() -> None:
    path = f"/matcher/api/v1/vulnerability_report/{MANIFEST}"
    with AnsweringServer({path: Canned(status=202)}) as server:
        clair = ClairClient(server.url, psk=None)
        with pytest.raises(ScannerUnavailable, match="202"):
            clair.vulnerability_report(MANIFEST)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Busy(), ScannerBusy, "429"),
        (Failing(500, "database is away"), ScannerUnavailable, "database is away"),
        (Failing(503, ""), ScannerUnavailable, "503"),
        (Failing(400, "bad block at 0"), ScannerRejectedManifest, "bad block at 0"),
        (Failing(403, ""), ScannerDenied, "SECURITY_SCANNER_V4_PSK"),
        (Garbage(), ScannerUnavailable, "no report"),
        (Garbage(b""), ScannerUnavailable, "no report"),
        (Garbage(b'{"state": "IndexFinished"}'), ScannerUnavailable, "manifest_hash"),
        (Garbage(b"[" * 100_000), ScannerUnavailable, "no report"),
        (WrongState("Levitating"), ScannerUnavailable, "Levitating"),
        (WrongState("FetchLayers"), ScannerUnavailable, "stopped at FetchLayers"),
        (ClosingConnection(), ScannerUnavailable, "no answer"),
        (ClosingConnection(after=40), ScannerUnavailable, "no report"),
        (ClosingConnection(after=300), ScannerUnavailable, "no answer"),
    ],
    ids=str,
)
def test_faults_of_the_scanner_are_told_apart(
    clair: ClairClient,
    stand_in: ScannerStandIn,
    layer: LayerLocation,
    fault: Fault,
    kind: type[DataError],
    words: str,
) -> None:
    stand_in.faults.add(fault)
    with pytest.raises(kind, match=words) as caught:
        clair.index(MANIFEST, [layer])
    assert type(caught.value) is kind
    assert MANIFEST in str(caught.value)
    assert PSK not in str(caught.value)
    stand_in.faults.clear()
    assert clair.index(MANIFEST, [layer]).state is ReportState.FINISHED


def test_busy_tells_how_long_to_wait(
    clair: ClairClient, stand_in: ScannerStandIn, layer: LayerLocation
) -> None:
    stand_in.faults.add(Busy(retry_after="17"))
    with pytest.raises(ScannerBusy) as caught:
        clair.index(MANIFEST, [layer])
    assert caught.value.retry_after == 17


@pytest.mark.parametrize("after", [0, 300], ids=["headers", "body"])
def test_answer_that_drips_has_a_deadline(
    stand_in: ScannerStandIn, layer: LayerLocation, after: int
) -> None:
    clair = ClairClient(stand_in.endpoint, psk=PSK, index_timeout=0.5)
    stand_in.faults.add(Dripping(interval=0.05, after=after))
    began = time.monotonic()
    with pytest.raises(ScannerUnavailable, match=r"timed out|took too long"):
        clair.index(MANIFEST, [layer])
    assert time.monotonic() - began < 10


def test_scanner_that_is_down_and_comes_back(clair: ClairClient, stand_in: ScannerStandIn) -> None:
    clair.index_state()
    stand_in.go_down()
    with pytest.raises(ScannerUnavailable, match="refused"):
        clair.index_state()
    stand_in.come_up()
    assert clair.index_state() == "state-of-today"


def test_other_key_is_denied(stand_in: ScannerStandIn) -> None:
    other = base64.b64encode(bytes(32)).decode()
    for psk in (other, None):
        with pytest.raises(ScannerDenied, match="SECURITY_SCANNER_V4_PSK"):
            ClairClient(stand_in.endpoint, psk=psk).index_state()


@pytest.mark.parametrize(("psk", "scheme"), [(PSK, "Bearer"), (None, None)])
def test_netrc_plays_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, psk: str | None, scheme: str | None
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with AnsweringServer({STATE: Canned(body=b'{"state": "s"}')}) as server:
        ClairClient(server.url, psk=psk).index_state()
    (sent,) = [request.headers["Authorization"] for request in server.seen]
    assert (sent and sent.split()[0]) == scheme


@pytest.mark.parametrize("path", ["", "/", "/some/path", "/some/path/?query"])
def test_path_in_the_endpoint_plays_no_part_as_in_quay(path: str) -> None:
    with AnsweringServer({STATE: Canned(body=b'{"state": "s"}')}) as server:
        assert ClairClient(server.url + path, psk=None).index_state() == "s"


def test_index_has_a_time_out_of_its_own(stand_in: ScannerStandIn, layer: LayerLocation) -> None:
    clair = ClairClient(stand_in.endpoint, psk=PSK, index_timeout=30, timeout=0.1)
    stand_in.faults.add(Delayed(0.3), call=None)
    assert clair.index(MANIFEST, [layer]).state is ReportState.FINISHED
    with pytest.raises(ScannerUnavailable, match="timed out"):
        clair.get_index_report(MANIFEST)


def test_redirect_is_not_followed(stand_in: ScannerStandIn, clair: ClairClient) -> None:
    with AnsweringServer({"/login": Canned(body=b'{"state": "stolen"}')}) as elsewhere:
        stand_in.faults.add(Redirecting(f"{elsewhere.url}/login"), call=Call.INDEX_STATE)
        with pytest.raises(ScannerUnavailable, match="SECURITY_SCANNER_V4_ENDPOINT"):
            clair.index_state()
        assert elsewhere.seen == []


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_answer_is_read_no_further_than_the_limit(packed: bool) -> None:
    body = b" " * 300_000 + json.dumps(REPORT).encode()
    headers = {"ETag": '"s"', "Content_Encoding": "gzip"} if packed else {"ETag": '"s"'}
    with answering(gzip.compress(body) if packed else body, **headers) as server:
        small = ClairClient(server.url, psk=None, answer_limit=200_000)
        with pytest.raises(ScannerUnavailable, match="larger than 200000 bytes"):
            small.index(MANIFEST, [])
        large = ClairClient(server.url, psk=None, answer_limit=400_000)
        assert large.index(MANIFEST, []).state is ReportState.FINISHED


def test_endless_answer_is_cut_off_at_the_limit() -> None:
    def pour(server: ScriptedServer, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"2000\r\n" + b" " * 0x2000 + b"\r\n")

    with ScriptedServer(pour) as server:
        clair = ClairClient(server.url, psk=None, timeout=60, answer_limit=200_000)
        began = time.monotonic()
        with pytest.raises(ScannerUnavailable, match="larger than 200000 bytes"):
            clair.index_state()
        assert time.monotonic() - began < 40


def test_vulnerabilities_of_another_manifest_are_not_taken() -> None:
    path = f"/matcher/api/v1/vulnerability_report/{MANIFEST}"
    body = json.dumps({"manifest_hash": f"sha256:{'9' * 64}"}).encode()
    with AnsweringServer({path: Canned(body=body)}) as server:
        clair = ClairClient(server.url, psk=None)
        with pytest.raises(ScannerUnavailable, match="9999"):
            clair.vulnerability_report(MANIFEST)


def test_report_of_another_manifest_is_not_taken() -> None:
    other = {**REPORT, "manifest_hash": f"sha256:{'9' * 64}"}
    with answering(json.dumps(other).encode(), ETag='"s"') as server:
        clair = ClairClient(server.url, psk=None)
        with pytest.raises(ScannerUnavailable, match="9999"):
            clair.index(MANIFEST, [])


def test_state_is_asked_for_where_the_etag_got_lost(
    clair: ClairClient, stand_in: ScannerStandIn, layer: LayerLocation
) -> None:
    stand_in.faults.add(WithoutEtag())
    assert clair.index(MANIFEST, [layer]).indexer_state == "state-of-today"


def test_reason_of_a_failure_tells_no_secret() -> None:
    err = 'Get "https://s3.test/blob?X-Amz-Signature=SECRET": timeout'
    body = json.dumps({**REPORT, "state": "IndexError", "err": err}).encode()
    with answering(body, ETag='"s"') as server:
        report = ClairClient(server.url, psk=None).index(MANIFEST, [])
    assert report.err == 'Get "https://s3.test/blob?...": timeout'


def kept_then(
    end: Callable[[socket.socket], None],
) -> Callable[[ScriptedServer, socket.socket], None]:
    def script(server: ScriptedServer, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(http_answer(b'{"state": "kept"}'))
        server.read_request(connection)
        end(connection)

    return script


def answer_all(server: ScriptedServer, connection: socket.socket) -> None:
    while server.read_request(connection):
        connection.sendall(http_answer(b'{"state": "anew"}'))


def test_kept_connection_that_was_closed_is_replaced_once() -> None:
    stale = kept_then(lambda connection: connection.close())
    with ScriptedServer(stale, answer_all) as server:
        clair = ClairClient(server.url, psk=None, timeout=5)
        assert clair.index_state() == "kept"
        assert clair.index_state() == "anew"
        assert (server.connections, server.requests) == (2, 3)


def test_request_is_not_sent_again_after_bytes_of_an_answer() -> None:
    broken = kept_then(lambda connection: connection.sendall(b"HTTP/1.1 2"))
    with ScriptedServer(broken, answer_all) as server:
        clair = ClairClient(server.url, psk=None, timeout=5)
        clair.index_state()
        with pytest.raises(ScannerUnavailable):
            clair.index_state()
        assert server.requests == 2


def test_forked_process_opens_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    canned = Canned(body=b'{"state": "s"}')
    with AnsweringServer({STATE: canned}) as server:
        clair = ClairClient(server.url, psk=None)
        clair.index_state()
        clair.index_state()
        monkeypatch.setattr(os, "getpid", lambda: -1)
        clair.index_state()
        clair.index_state()
    before, kept, forked, kept_too = (request.port for request in server.seen)
    assert before == kept != forked == kept_too


def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    canned = Canned(body=b'{"state": "by proxy"}')
    with AnsweringServer({f"http://clair.test:6060{STATE}": canned}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        clair = ClairClient("http://someone:SECRET@clair.test:6060/path", psk=None)
        assert [clair.index_state(), clair.index_state()] == ["by proxy"] * 2
    first, second = proxy.seen
    assert first.port == second.port
    assert "Authorization" not in first.headers


def test_closed_client_opens_connections_anew() -> None:
    with AnsweringServer({STATE: Canned(body=b'{"state": "s"}')}) as server:
        clair = ClairClient(server.url, psk=None)
        clair.index_state()
        clair.close()
        clair.index_state()
    first, second = server.seen
    assert first.port != second.port


@pytest.mark.parametrize(
    "endpoint", ["", "clair:6060", "ftp://clair", "http://", "http://clair:port", "http://[::1"]
)
def test_endpoint_that_is_no_address(endpoint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ClairClient(endpoint, psk=None)
    assert caught.value.key == "SECURITY_SCANNER_V4_ENDPOINT"


def test_bad_key_is_found_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        ClairClient("http://clair:6060", psk="no base64!")
    assert caught.value.key == "SECURITY_SCANNER_V4_PSK"


@pytest.mark.parametrize("call", ["index", "get_index_report", "vulnerability_report"])
def test_digest_that_is_none_is_not_sent(call: str) -> None:
    with AnsweringServer({}) as server:
        clair: Any = ClairClient(server.url, psk=None)
        arguments = ["../index_state", []] if call == "index" else ["../index_state"]
        with pytest.raises(DataError):
            getattr(clair, call)(*arguments)
        assert server.seen == []


def test_nothing_secret_in_the_repr() -> None:
    clair = ClairClient("http://user:SECRET@clair:6060/x", psk=PSK)
    assert repr(clair) == "ClairClient('http://clair:6060')"
