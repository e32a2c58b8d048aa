"""Our requests and the stand-in's answers, held against Clair's description of its API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from data.secscan.clair import ClairClient
from data.secscan.layers import LayerLocation
from tests.answering import AnsweringServer, Canned
from tests.contract.clair_facts import INDEX_REPORT, PATHS, SCHEMAS
from tests.layerfiles import DPKG, gzipped, sha256, tar
from workers.demo.scannerreports import KnownVulnerability
from workers.demo.scannerstandin import ScannerStandIn

OPENAPI = Path(__file__).parents[3] / "shared" / "clair-v4.openapi.json"
MANIFEST = f"sha256:{'1' * 64}"
LAYER = gzipped(tar({"var/lib/dpkg/status": DPKG}))

Check = Callable[[str, Any], None]


def by_facts(name: str, content: Any) -> None:
    Draft202012Validator(SCHEMAS[name]).validate(content)


def by_document(document: Any) -> Check:
    resource = DRAFT202012.create_resource(document)
    registry: Registry[Any] = Registry().with_resource("urn:clair", resource)

    def check(name: str, content: Any) -> None:
        schema = {"$ref": f"urn:clair#/components/schemas/{name}"}
        Draft202012Validator(schema, registry=registry).validate(content)

    return check


# Clair's own description, where it is at hand, says the same as our facts and a little more.
DOCUMENTS = [json.loads(OPENAPI.read_bytes())] if OPENAPI.exists() else []
CHECKS: list[Check] = [by_facts, *map(by_document, DOCUMENTS)]


@pytest.fixture(params=CHECKS, ids=["facts", "openapi"][: len(CHECKS)])
def check(request: pytest.FixtureRequest) -> Check:
    found: Check = request.param
    return found


@pytest.fixture
def stand_in() -> Iterator[ScannerStandIn]:
    with ScannerStandIn(vulnerabilities=[KnownVulnerability(id="1", package="bash")]) as running:
        yield running


@pytest.fixture
def layer() -> Iterator[LayerLocation]:
    octets = Canned(body=LAYER, headers={"Content-Type": "application/octet-stream"})
    with AnsweringServer({"/layer": octets}) as server:
        yield LayerLocation(digest=sha256(LAYER), uri=f"{server.url}/layer")


def get(stand_in: ScannerStandIn, path: str) -> requests.Response:
    return requests.get(f"{stand_in.endpoint}/{path}", timeout=10)


def post(stand_in: ScannerStandIn, *layers: LayerLocation) -> requests.Response:
    described = [
        {"hash": layer.digest, "uri": layer.uri, "headers": {"Accept": ["*/*"]}} for layer in layers
    ]
    return requests.post(
        f"{stand_in.endpoint}/{INDEX_REPORT}",
        json={"hash": MANIFEST, "layers": described},
        timeout=10,
    )


def test_index_request_is_a_manifest(check: Check, layer: LayerLocation) -> None:
    with AnsweringServer({}) as server:
        with pytest.raises(Exception, match="404"):
            ClairClient(server.url, psk=None).index(MANIFEST, [layer, layer])
        (request,) = server.seen
    assert request.path == f"/{INDEX_REPORT}"
    check("Manifest", json.loads(request.body))


def test_finished_index_is_an_index_report(
    check: Check, stand_in: ScannerStandIn, layer: LayerLocation
) -> None:
    answer = post(stand_in, layer)
    assert answer.status_code == 201
    assert answer.json()["packages"]
    check("IndexReport", answer.json())
    check("IndexReport", get(stand_in, f"{INDEX_REPORT}/{MANIFEST}").json())


def test_failed_index_is_an_index_report(check: Check, stand_in: ScannerStandIn) -> None:
    nowhere = LayerLocation(digest=sha256(LAYER), uri="http://127.0.0.1:1/")
    check("IndexReport", post(stand_in, nowhere).json())


def test_vulnerability_report(check: Check, stand_in: ScannerStandIn, layer: LayerLocation) -> None:
    post(stand_in, layer)
    report = get(stand_in, f"matcher/api/v1/vulnerability_report/{MANIFEST}").json()
    assert report["vulnerabilities"]
    check("VulnerabilityReport", report)


def test_index_state(check: Check, stand_in: ScannerStandIn) -> None:
    check("State", get(stand_in, "indexer/api/v1/index_state").json())


def test_errors(check: Check, stand_in: ScannerStandIn) -> None:
    refused = [
        post(stand_in),
        get(stand_in, INDEX_REPORT),
        get(stand_in, f"{INDEX_REPORT}/{MANIFEST}"),
        get(stand_in, f"{INDEX_REPORT}/latest"),
        get(stand_in, f"matcher/api/v1/vulnerability_report/{MANIFEST}"),
    ]
    assert [answer.status_code for answer in refused] == [400, 405, 404, 400, 404]
    for answer in refused:
        check("Error", answer.json())
        assert answer.json()["message"]


def test_client_asks_at_the_described_places() -> None:
    with AnsweringServer({}) as server:
        clair = ClairClient(server.url, psk=None)
        with pytest.raises(Exception, match="404"):
            clair.index(MANIFEST, [])
        with pytest.raises(Exception, match="404"):
            clair.index_state()
        assert clair.get_index_report(MANIFEST) is None
        assert clair.vulnerability_report(MANIFEST) is None
    asked = {
        (seen.method, seen.path.lstrip("/").replace(MANIFEST, "{manifest_hash}"))
        for seen in server.seen
    }
    assert asked == {(method, path) for method, paths in PATHS.items() for path in paths}
    for document in DOCUMENTS:
        for method, path in asked:
            assert method.lower() in document["paths"][path]


@pytest.mark.parametrize("name", ["Manifest", "IndexReport", "VulnerabilityReport", "State"])
def test_check_would_notice(check: Check, name: str) -> None:
    with pytest.raises(ValidationError):
        check(name, {})
    with pytest.raises(ValidationError):
        check(name, dict.fromkeys(SCHEMAS[name]["required"], 7))


def test_facts_are_those_of_the_description() -> None:
    for document in DOCUMENTS:
        for name, facts in SCHEMAS.items():
            described = document["components"]["schemas"][name]
            assert set(facts["required"]) == set(described.get("required", []))
            assert set(facts["properties"]) <= set(described["properties"])
