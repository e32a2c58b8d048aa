"""The rescan API over HTTP: what it does, what it refuses, and that it is as its document says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from openapi_spec_validator import validate
from redis import Redis
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from data.models import Manifest
from data.secscan.story import Standing
from data.settings import build_settings
from queues.rescanjob import RescanJob
from queues.rescanqueue import RescanQueue, job_id_of
from tests.workers.ops.conftest import Running, serving
from workers.ops import rescans

DOCUMENT: dict[str, Any] = json.loads((Path(rescans.__file__).parent / "openapi.json").read_text())


def fits(answer: requests.Response, method: str, path: str) -> None:
    """Fails unless the answer is one that the document has for this call."""
    described = DOCUMENT["paths"][path][method]["responses"][str(answer.status_code)]
    if "$ref" in described:
        described = DOCUMENT["components"]["responses"][described["$ref"].rpartition("/")[2]]
    kind = answer.headers["content-type"].partition(";")[0]
    registry: Any = Registry().with_resource("urn:document", DRAFT202012.create_resource(DOCUMENT))
    reference = described["content"][kind]["schema"]["$ref"]
    schema = {"$ref": f"urn:document{reference}"}
    jsonschema.Draft202012Validator(schema, registry=registry).validate(answer.json())


def problem(answer: requests.Response, status: int) -> str:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    return str(body["detail"])


def test_document_is_openapi(ops: Running) -> None:
    served = ops.get("/openapi.json").json()
    validate(served)
    assert served == DOCUMENT


def test_document_tells_every_standing() -> None:
    schema = DOCUMENT["components"]["schemas"]["Story"]["properties"]["standing"]
    assert schema["enum"] == [each.value for each in Standing]


def test_rescan_by_id_is_queued_at_the_front(busy: Running, redis: Redis) -> None:
    assert busy.filled is not None
    manifest_id = busy.filled.failed[0]
    answer = busy.ask({"manifest_id": manifest_id})
    assert answer.status_code == 202
    fits(answer, "post", "/rescans")
    assert answer.json()["enqueued"] == "queued"
    assert answer.headers["location"] == f"/rescans/{manifest_id}"
    first = redis.lindex("rq:queue:rescan", 0)
    assert first == job_id_of(manifest_id).encode()
    job = RescanJob.fetch(job_id_of(manifest_id), connection=redis)
    assert list(job.args) in ([manifest_id, "manual"], [manifest_id, "manual", False])
    again = busy.ask({"manifest_id": manifest_id})
    assert again.json()["enqueued"] == "waiting"


def test_force_is_handed_on(busy: Running, redis: Redis) -> None:
    assert busy.filled is not None
    manifest_id = busy.filled.done[0]
    assert busy.ask({"manifest_id": manifest_id, "force": True}).status_code == 202
    job = RescanJob.fetch(job_id_of(manifest_id), connection=redis)
    assert list(job.args) == [manifest_id, "manual", True]


def test_rescan_by_reference(busy: Running) -> None:
    assert busy.filled is not None
    record = Manifest.get_by_id(busy.filled.done[0])
    reference = f"docker-hub/library/nginx@{record.digest}"
    answer = busy.ask({"reference": reference})
    assert answer.status_code == 202
    assert answer.json()["manifest_id"] == record.id


WRONG_REQUESTS: list[tuple[Any, int, str]] = [
    ({}, 422, "manifest_id or reference"),
    ({"manifest_id": 1, "reference": "a/b:c"}, 422, "manifest_id or reference"),
    ({"manifest_id": "1"}, 422, "manifest_id"),
    ({"manifest_id": True}, 422, "manifest_id"),
    ({"manifest_id": 0}, 422, "manifest_id"),
    ({"manifest_id": 2**40}, 422, "manifest_id"),
    ({"manifest_id": 1, "forse": True}, 422, "forse"),
    ({"manifest_id": 1, "force": "yes"}, 422, "force"),
    ([1], 422, ""),
    ({"manifest_id": 4711}, 404, "4711"),
    ({"reference": "nonsense"}, 404, "org/repo:tag"),
    ({"reference": "no/such:tag"}, 404, "no/such"),
]


def test_wrong_request_says_what_is_wrong_and_enqueues_nothing(ops: Running, redis: Redis) -> None:
    for body, status, words in WRONG_REQUESTS:
        answer = ops.ask(body)
        assert words in problem(answer, status), body
        fits(answer, "post", "/rescans")
    assert redis.llen("rq:queue:rescan") == 0


def test_body_that_is_no_json(ops: Running) -> None:
    headers = {"Authorization": "Bearer a token of the tests", "Content-Type": "application/json"}
    problem(ops.post("/rescans", data=b"{", headers=headers), 400)
    problem(ops.post("/rescans", data=b"[" * 10_000, headers=headers), 400)
    problem(ops.post("/rescans", data=b" " * 100_000, headers=headers), 413)
    headers["Content-Type"] = "text/plain"
    problem(ops.post("/rescans", data=b"{}", headers=headers), 415)


def test_wrong_token_is_refused(ops: Running) -> None:
    for token in ("", "wrong", "a token of the test", "a token of the tests2", "é"):
        answer = ops.ask({"manifest_id": 1}, token)
        problem(answer, 401)
        fits(answer, "post", "/rescans")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        answer = ops.story(1, token)
        problem(answer, 401)
        fits(answer, "get", "/rescans/{manifest_id}")


def test_guessing_is_slowed_down(ops: Running) -> None:
    statuses = [ops.ask({}, f"guess {n}").status_code for n in range(25)]
    assert statuses.count(429) == 5
    assert ops.ask({"manifest_id": 1}).status_code == 429, "no token is looked at meanwhile"


def test_without_a_token_the_api_is_off(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = build_settings(config | {"RESCAN_OPS_TOKEN": None}, tmp_path)
    with serving(settings, monkeypatch) as ops:
        assert "RESCAN_OPS_TOKEN" in problem(ops.ask({"manifest_id": 1}, ""), 503)
        assert "RESCAN_OPS_TOKEN" in problem(ops.story(1, "None"), 503)
        assert ops.get("/").status_code == 200


def test_story_of_a_manifest_that_waits_for_blobs(busy: Running) -> None:
    assert busy.filled is not None
    answer = busy.story(busy.filled.waiting[1])
    assert answer.status_code == 200
    fits(answer, "get", "/rescans/{manifest_id}")
    body = answer.json()
    assert body["standing"] == "waiting for blobs"
    assert (body["placed"], body["total"]) == (3, 7)
    assert "3/7" in body["sentence"]


def test_story_of_what_is_done_and_of_nothing(busy: Running) -> None:
    assert busy.filled is not None
    body = busy.story(busy.filled.done[0]).json()
    assert (body["standing"], body["status"], body["job"]) == ("done", "completed", None)
    for manifest_id in (4711, 0, "one", "-1", "9" * 30):
        problem(busy.story(manifest_id), 404)


def test_nothing_is_enqueued_while_the_workers_idle(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    """A read-only Quay: the server serves on and says why, and changes nothing."""
    from tests.workers.ops.opsdata import fill

    settings = build_settings(config, tmp_path)
    filled = fill(settings)
    before = redis.llen("rq:queue:rescan")
    readonly = build_settings(config | {"REGISTRY_STATE": "readonly"}, tmp_path)
    with serving(readonly, monkeypatch) as ops:
        assert "REGISTRY_STATE" in problem(ops.ask({"manifest_id": filled.failed[0]}), 503)
        assert "REGISTRY_STATE is readonly" in ops.get("/").text
        assert ops.get("/healthz").status_code == 200
    assert redis.llen("rq:queue:rescan") == before


def test_other_paths_and_methods_are_problems(ops: Running) -> None:
    for method, path, status in [
        ("GET", "/nothing", 404),
        ("GET", "/rescans", 405),
        ("DELETE", "/rescans/1", 405),
    ]:
        problem(requests.request(method, ops.url + path, timeout=10), status)


def test_pause_is_that_of_the_queue(busy: Running, redis: Redis) -> None:
    RescanQueue("rescan", connection=redis).pause()
    assert "Paused" in busy.get("/").text
