from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests

from tests.answering import AnsweringServer, Canned
from tests.layerfiles import APK, DPKG, gzipped, sha256, tar, zstandard_packed
from tests.waiting import wait_for
from workers.demo.scannerfaults import Busy, Call, Delayed, Failing, Held
from workers.demo.scannerreports import KnownVulnerability
from workers.demo.scannerstandin import FetchFailure, ScannerStandIn

KEY = bytes(range(32))
PSK = base64.b64encode(KEY).decode()
BASE = gzipped(tar({"var/lib/dpkg/status": DPKG}))
TOP = zstandard_packed(tar({"lib/apk/db/installed": APK}))
MANIFEST = f"sha256:{'1' * 64}"
OTHER = f"sha256:{'2' * 64}"
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def stand_in() -> Iterator[ScannerStandIn]:
    with ScannerStandIn(concurrency=2) as running:
        yield running


@pytest.fixture
def layers() -> Iterator[AnsweringServer]:
    with AnsweringServer(
        {"/base": Canned(body=BASE, headers=OCTETS), "/top": Canned(body=TOP, headers=OCTETS)}
    ) as server:
        yield server


def manifest(layers: AnsweringServer, digest: str = MANIFEST, **headers: list[str]) -> Any:
    described = [
        {"hash": sha256(content), "uri": f"{layers.url}/{name}", "headers": headers}
        for name, content in (("base", BASE), ("top", TOP))
    ]
    return {"hash": digest, "layers": described}


def index(stand_in: ScannerStandIn, body: Any, **headers: str) -> requests.Response:
    return requests.post(
        f"{stand_in.endpoint}/indexer/api/v1/index_report", json=body, headers=headers, timeout=10
    )


def get(stand_in: ScannerStandIn, path: str, **headers: str) -> requests.Response:
    return requests.get(f"{stand_in.endpoint}{path}", headers=headers, timeout=10)


def test_it_says_that_it_is_a_stand_in(stand_in: ScannerStandIn) -> None:
    response = get(stand_in, "/indexer/api/v1/index_state")
    assert "stand-in" in response.headers["Server"]
    assert response.json() == {"state": "stand-in-1"}
    assert response.headers["ETag"] == '"stand-in-1"'


def test_every_layer_is_fetched_with_its_headers_and_read(
    stand_in: ScannerStandIn, layers: AnsweringServer
) -> None:
    response = index(stand_in, manifest(layers, Authorization=["Bearer t"]))
    assert response.status_code == 201
    assert response.headers["ETag"] == '"stand-in-1"'
    report = response.json()
    assert (report["state"], report["success"], report["err"]) == ("IndexFinished", True, "")
    found = {package["name"] for package in report["packages"].values()}
    assert found == {"libc6", "bash", "musl", "busybox"}
    brought = {
        report["packages"][number]["name"]: environments[0]["introduced_in"]
        for number, environments in report["environments"].items()
    }
    assert brought["bash"] == sha256(BASE)
    assert brought["musl"] == sha256(TOP)
    assert [request.path for request in layers.seen] == ["/base", "/top"]
    assert {request.headers["Authorization"] for request in layers.seen} == {"Bearer t"}


def test_report_is_kept_and_found_under_its_digest_only(
    stand_in: ScannerStandIn, layers: AnsweringServer
) -> None:
    for place in ("indexer/api/v1/index_report", "matcher/api/v1/vulnerability_report"):
        assert get(stand_in, f"/{place}/{MANIFEST}").status_code == 404
    report = index(stand_in, manifest(layers)).json()
    assert get(stand_in, f"/indexer/api/v1/index_report/{MANIFEST}").json() == report
    assert get(stand_in, f"/matcher/api/v1/vulnerability_report/{MANIFEST}").status_code == 200
    assert get(stand_in, f"/indexer/api/v1/index_report/{OTHER}").status_code == 404
    assert get(stand_in, "/indexer/api/v1/index_report/latest").status_code == 400


def test_manifest_that_is_finished_is_not_read_again_until_the_state_changes(
    stand_in: ScannerStandIn, layers: AnsweringServer
) -> None:
    index(stand_in, manifest(layers))
    assert index(stand_in, manifest(layers)).status_code == 201
    assert len(layers.seen) == 2
    stand_in.state = "stand-in-2"
    assert index(stand_in, manifest(layers)).headers["ETag"] == '"stand-in-2"'
    assert len(layers.seen) == 4


@pytest.mark.parametrize(
    "body", [{}, {"hash": MANIFEST, "layers": []}, {"hash": "x", "layers": []}, []]
)
def test_bogus_manifest_is_refused(stand_in: ScannerStandIn, body: Any) -> None:
    response = index(stand_in, body)
    assert response.status_code == 400
    assert response.json()["code"] == "bad-request"


def test_layer_that_is_no_tar_is_refused(stand_in: ScannerStandIn, layers: AnsweringServer) -> None:
    layers.answers["/base"] = Canned(body=b'{"a": "chart"}', headers=OCTETS)
    body = manifest(layers)
    body["layers"][0]["hash"] = sha256(b'{"a": "chart"}')
    response = index(stand_in, body)
    assert response.status_code == 400
    assert "no tar archive" in response.json()["message"]
    assert get(stand_in, f"/indexer/api/v1/index_report/{MANIFEST}").status_code == 404


@pytest.mark.parametrize("told", FetchFailure)
def test_layer_that_cannot_be_fetched_fails_the_index_until_it_can(
    stand_in: ScannerStandIn, layers: AnsweringServer, told: FetchFailure
) -> None:
    stand_in.fetch_failure = told
    top = layers.answers.pop("/top")
    response = index(stand_in, manifest(layers))
    assert response.status_code == (201 if told is FetchFailure.REPORT else 500)
    assert "failed to fetch layers" in response.text
    kept = get(stand_in, f"/indexer/api/v1/index_report/{MANIFEST}").json()
    assert (kept["state"], kept["success"]) == ("IndexError", False)
    assert "404" in kept["err"]
    vulnerabilities = f"/matcher/api/v1/vulnerability_report/{MANIFEST}"
    assert get(stand_in, vulnerabilities).status_code == 404
    layers.answers["/top"] = top
    assert index(stand_in, manifest(layers)).json()["state"] == "IndexFinished"


def test_other_bytes_than_the_digest_names_fail_the_index(
    stand_in: ScannerStandIn, layers: AnsweringServer
) -> None:
    layers.answers["/base"] = Canned(body=gzipped(tar({})), headers=OCTETS)
    report = index(stand_in, manifest(layers)).json()
    assert report["state"] == "IndexError"
    assert "validation failed" in report["err"]


def test_requests_above_its_concurrency_are_refused(
    stand_in: ScannerStandIn, layers: AnsweringServer
) -> None:
    held = Held()
    stand_in.faults.add(held)
    with ThreadPoolExecutor(2) as pool:
        answers = [
            pool.submit(index, stand_in, manifest(layers, digest)) for digest in (MANIFEST, OTHER)
        ]
        assert stand_in.requests.wait_for(lambda seen: len(seen) == 2)
        assert held.wait_for_call()
        assert wait_for(lambda: all(request.digest for request in stand_in.requests.all()))
        refused = index(stand_in, manifest(layers, f"sha256:{'3' * 64}"))
        held.release()
        assert [answer.result().status_code for answer in answers] == [201, 201]
    assert refused.status_code == 429
    assert "Retry-After" not in refused.headers
    assert stand_in.requests.most_open == 3
    stand_in.faults.clear()
    assert index(stand_in, manifest(layers, f"sha256:{'3' * 64}")).status_code == 201


def test_two_requests_for_one_manifest_wait_for_each_other(
    stand_in: ScannerStandIn, layers: AnsweringServer
) -> None:
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(index, stand_in, manifest(layers)) for _ in range(2)]
        assert [answer.result().status_code for answer in answers] == [201, 201]
    assert len(layers.seen) == 2


def signed(issuer: str = "quay", lifetime: float = 300, key: bytes = KEY) -> str:
    return jwt.encode({"iss": issuer, "exp": int(time.time() + lifetime)}, key, algorithm="HS256")


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (lambda: f"Bearer {signed()}", 200),
        (lambda: f"Bearer {signed(lifetime=-8)}", 200),
        (lambda: f"Bearer {signed(lifetime=-20)}", 401),
        (lambda: f"Bearer {signed(issuer='someone')}", 401),
        (lambda: f"Bearer {signed(key=bytes(32))}", 401),
        (lambda: f"Basic {PSK}", 401),
        (lambda: "Bearer ", 401),
    ],
    ids=["good", "just expired", "expired", "other issuer", "other key", "basic", "none"],
)
def test_signature_is_checked_as_clair_does(authorization: Callable[[], str], status: int) -> None:
    with ScannerStandIn(psk=PSK) as stand_in:
        response = get(stand_in, "/indexer/api/v1/index_state", Authorization=authorization())
        assert response.status_code == status
        assert get(stand_in, "/indexer/api/v1/index_state").status_code == 401
        assert index(stand_in, {}).status_code == 401
        assert len(stand_in.requests) == 0


def test_wrong_method_and_unknown_path(stand_in: ScannerStandIn) -> None:
    assert get(stand_in, "/indexer/api/v1/index_report").status_code == 405
    assert get(stand_in, "/indexer/api/v2/index_report").status_code == 404
    assert get(stand_in, f"/elsewhere/{MANIFEST}").status_code == 404


def test_index_requests_are_recorded(stand_in: ScannerStandIn, layers: AnsweringServer) -> None:
    before = time.time_ns(), time.monotonic_ns()
    index(stand_in, manifest(layers))
    index(stand_in, {})
    after = time.time_ns(), time.monotonic_ns()
    first, second = stand_in.requests.all()
    assert (first.digest, first.status, first.packages) == (MANIFEST, 201, 4)
    assert first.layers == (sha256(BASE), sha256(TOP))
    assert first.ended_ns is not None
    assert before[0] <= first.arrived_ns <= first.ended_ns <= after[0]
    assert before[1] <= first.arrived_monotonic_ns <= after[1]
    assert (second.digest, second.status) == (None, 400)
    assert stand_in.requests.of(MANIFEST) == (first,)


def test_records_can_be_read_by_other_processes(
    stand_in: ScannerStandIn, layers: AnsweringServer
) -> None:
    index(stand_in, manifest(layers))
    records = get(stand_in, "/stand-in/requests").json()
    (request,) = records["requests"]
    assert request["digest"] == MANIFEST
    assert request["arrived_ns"] == stand_in.requests.all()[0].arrived_ns
    assert records["most_open"] == 1


def test_arrival_can_be_waited_for(stand_in: ScannerStandIn, layers: AnsweringServer) -> None:
    assert not stand_in.requests.wait_for(lambda seen: len(seen) == 1, timeout=0.01)
    caller = threading.Thread(target=index, args=(stand_in, manifest(layers)))
    caller.start()
    assert stand_in.requests.wait_for(lambda seen: len(seen) == 1)
    caller.join()


def test_vulnerabilities_that_it_was_given_are_reported(layers: AnsweringServer) -> None:
    known = [
        KnownVulnerability(id="1", package="bash"),
        KnownVulnerability(id="2", package="not-there"),
    ]
    with ScannerStandIn(vulnerabilities=known) as stand_in:
        index(stand_in, manifest(layers))
        report = get(stand_in, f"/matcher/api/v1/vulnerability_report/{MANIFEST}").json()
    assert set(report["vulnerabilities"]) == {"1"}
    ((number, identifiers),) = report["package_vulnerabilities"].items()
    assert report["packages"][number]["name"] == "bash"
    assert identifiers == ["1"]


def test_fault_applies_to_its_call_its_manifest_and_its_number_of_times(
    stand_in: ScannerStandIn, layers: AnsweringServer
) -> None:
    stand_in.faults.add(Failing(503), digest=OTHER, times=1)
    stand_in.faults.add(Busy("3"), call=Call.INDEX_STATE)
    assert index(stand_in, manifest(layers)).status_code == 201
    assert index(stand_in, manifest(layers, OTHER)).status_code == 503
    assert index(stand_in, manifest(layers, OTHER)).status_code == 201
    busy = get(stand_in, "/indexer/api/v1/index_state")
    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "3")


def test_delay_is_added(stand_in: ScannerStandIn, layers: AnsweringServer) -> None:
    stand_in.faults.add(Delayed(0.2))
    began = time.monotonic()
    assert index(stand_in, manifest(layers)).status_code == 201
    assert time.monotonic() - began >= 0.2


def test_going_down_cuts_callers_off_and_keeps_the_port_and_the_reports(
    stand_in: ScannerStandIn, layers: AnsweringServer
) -> None:
    index(stand_in, manifest(layers))
    held = Held()
    stand_in.faults.add(held, digest=OTHER)
    with ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(index, stand_in, manifest(layers, OTHER))
        assert held.wait_for_call()
        stand_in.go_down()
        with pytest.raises(requests.ConnectionError):
            cut_off.result()
    with pytest.raises(requests.ConnectionError):
        get(stand_in, "/indexer/api/v1/index_state")
    held.release()
    stand_in.come_up()
    assert get(stand_in, f"/indexer/api/v1/index_report/{MANIFEST}").status_code == 200


def test_runs_as_a_process_until_it_is_told_to_stop(
    layers: AnsweringServer, tmp_path: Path
) -> None:
    port_file, psk_file = tmp_path / "port", tmp_path / "psk"
    psk_file.write_text(f"{PSK}\n")
    command = [sys.executable, "-m", "workers.demo.scannerstandin", "--port-file", str(port_file)]
    command += ["--psk-file", str(psk_file), "--state", "s-1", "--latency", "0.01"]
    process = subprocess.Popen(command)
    try:
        assert wait_for(port_file.exists)
        endpoint = f"http://127.0.0.1:{int(port_file.read_text())}"
        response = requests.post(
            f"{endpoint}/indexer/api/v1/index_report",
            json=manifest(layers),
            headers={"Authorization": f"Bearer {signed()}"},
            timeout=10,
        )
        assert response.headers["ETag"] == '"s-1"'
        records = requests.get(f"{endpoint}/stand-in/requests", timeout=10).json()
        assert [request["status"] for request in records["requests"]] == [201]
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
