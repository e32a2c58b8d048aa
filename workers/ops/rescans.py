"""The rescan API: ask for one, and ask what became of it. Described by `openapi.json`."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from data.database import connection
from data.errors import DatabaseUnavailable, NotFoundError
from data.manifest_records import ManifestRecord, find_manifest, load_manifest
from data.secscan.status import Reason
from data.secscan.story import Evidence, tell_story
from queues.rescanqueue import job_id_of
from workers.ops.context import Ops, ops_of
from workers.ops.problems import Problem, bad_request, not_found, unavailable

T = TypeVar("T")

MOST_BYTES = 16 * 1024
LARGEST_ID = 2**31 - 1  # of Quay's column


class RescanRequestBody(BaseModel):
    """The body of POST /rescans: a manifest by its id or by a person's reference."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, strict=True)

    manifest_id: int | None = Field(default=None, ge=1, le=LARGEST_ID)
    reference: str | None = Field(default=None, max_length=1024)
    force: bool = False

    @model_validator(mode="after")
    def names_one_manifest(self) -> RescanRequestBody:
        if (self.manifest_id is None) == (self.reference is None):
            raise ValueError("give either manifest_id or reference")
        return self


async def post_rescan(request: Request) -> Response:
    ops = ops_of(request)
    ops.authentication.require_bearer(request)
    body = parse_body(await read_body(request))
    return await run_in_threadpool(enqueue, ops, body)


def get_rescan(request: Request) -> Response:
    ops = ops_of(request)
    ops.authentication.require_bearer(request)
    return JSONResponse(story_of(ops, parse_id(request.path_params["manifest_id"])))


def get_openapi(request: Request) -> Response:
    del request
    document = (Path(__file__).parent / "openapi.json").read_bytes()
    return Response(document, media_type="application/json")


async def read_body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send a body with Content-Type: application/json"
        )
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MOST_BYTES} bytes")
    except ClientDisconnect as error:
        raise bad_request("the body ended early") from error
    return body


def parse_body(body: bytes) -> RescanRequestBody:
    try:
        return RescanRequestBody.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        detail = f"{where}: {first['msg']}" if where else str(first["msg"])
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error
    except (ValueError, RecursionError) as error:
        raise bad_request("the body is no JSON") from error


def parse_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:12]) <= LARGEST_ID):
        raise not_found("a manifest's id is a whole number above 0")
    return int(text)


def enqueue(ops: Ops, body: RescanRequestBody) -> Response:
    record = reading_database(lambda: find_asked(body))
    reason = Reason.FORCED if body.force else Reason.MANUAL
    what = "rescan forced by the API" if body.force else "rescan asked for by the API"
    enqueued = ops.enqueue(record.manifest_id, reason, what)
    return JSONResponse(
        {
            "manifest_id": record.manifest_id,
            "digest": record.digest,
            "repository": record.full_repository,
            "job_id": job_id_of(record.manifest_id),
            "enqueued": enqueued.name.lower(),
        },
        status_code=HTTPStatus.ACCEPTED,
        headers={"Location": f"/rescans/{record.manifest_id}"},
    )


def find_asked(body: RescanRequestBody) -> ManifestRecord:
    if body.reference is not None:
        return find_manifest(body.reference)
    record = load_manifest(body.manifest_id or 0)
    if record is None:
        raise NotFoundError(f"Quay has no manifest {body.manifest_id}")
    return record


def reading_database(read: Callable[[], T]) -> T:
    """What `read` returns; its errors as problems."""
    try:
        with connection():
            return read()
    except NotFoundError as error:
        raise not_found(str(error)) from error
    except DatabaseUnavailable as error:
        raise unavailable(str(error)) from error


def story_of(ops: Ops, manifest_id: int) -> dict[str, Any]:
    """Where the manifest stands, as `data.secscan.story` tells it."""

    def gather() -> Evidence:
        record = load_manifest(manifest_id)
        if record is None:
            raise NotFoundError(f"Quay has no manifest {manifest_id}")
        return ops.context.evidence(record)

    try:
        evidence = reading_database(gather)
    except RedisError as error:
        raise unavailable(f"Redis can't be used: {error}") from error
    story, job = tell_story(evidence), evidence.job
    return {
        "manifest_id": manifest_id,
        "digest": evidence.record.digest,
        "repository": evidence.record.full_repository,
        "standing": story.standing.value,
        "placed": story.placed,
        "total": story.total,
        "sentence": story.sentence,
        "next_step": story.next_step,
        "status": evidence.row.status.name.lower() if evidence.row is not None else None,
        "job": {"id": job_id_of(manifest_id), "status": job.status} if job is not None else None,
    }
