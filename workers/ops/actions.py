"""What a person may do on the page once signed in: pause, resume, retry.

Each is a plain form that works without JavaScript, answered by a redirect back to the page. What
goes wrong is said on the page itself.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from data.errors import NotFoundError
from data.manifest_records import load_manifest
from data.secscan.status import Reason
from workers.ops.authentication import COOKIE, SESSION_SECONDS
from workers.ops.context import Ops, ops_of
from workers.ops.page import render, render_page
from workers.ops.problems import Problem, bad_request
from workers.ops.rescans import parse_id, reading_database

MOST_BYTES = 4096

Action = Callable[[Ops, dict[str, str]], str]
"""Does it, and returns the key of `page.DONE` that says so. Raises a `Problem`."""


def get_sign_in(request: Request) -> Response:
    return sign_in_page(request, "")


def sign_in_page(request: Request, problem: str, status: int = HTTPStatus.OK) -> Response:
    switched_on = ops_of(request).authentication.switched_on
    return render("sign-in.html", {"problem": problem, "switched_on": switched_on}, status)


async def post_sign_in(request: Request) -> Response:
    authentication = ops_of(request).authentication
    try:
        authentication.require_switched_on()
        authentication.require_same_origin(request)
        form = await read_form(request)
        if not authentication.is_token(form.get("token", "")):
            raise Problem(HTTPStatus.UNAUTHORIZED, "That is not the token in RESCAN_OPS_TOKEN.")
    except Problem as problem:
        return sign_in_page(request, problem.detail, problem.status)
    response = back_to_page("signed-in")
    response.set_cookie(
        COOKIE,
        authentication.new_session(),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


async def post_sign_out(request: Request) -> Response:
    response = await act(request, lambda ops, form: "signed-out")  # noqa: ARG005
    if response.status_code == HTTPStatus.SEE_OTHER:
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


async def post_pause(request: Request) -> Response:
    return await act(request, pause)


async def post_resume(request: Request) -> Response:
    return await act(request, resume)


async def post_retry(request: Request) -> Response:
    return await act(request, retry)


def pause(ops: Ops, form: dict[str, str]) -> str:
    del form
    ops.pause()
    return "paused"


def resume(ops: Ops, form: dict[str, str]) -> str:
    del form
    ops.unpause()
    return "resumed"


def retry(ops: Ops, form: dict[str, str]) -> str:
    manifest_id = parse_id(form.get("manifest_id", ""))

    def must_exist() -> None:
        if load_manifest(manifest_id) is None:
            raise NotFoundError(f"Quay has no manifest {manifest_id} any more")

    reading_database(must_exist)
    return ops.enqueue(manifest_id, Reason.MANUAL, "retry asked for on the page").name.lower()


async def act(request: Request, action: Action) -> Response:
    ops = ops_of(request)
    try:
        form = await read_form(request)
        ops.authentication.require_form(request, form)
        done = await run_in_threadpool(action, ops, form)
    except Problem as problem:
        detail, status = problem.detail, problem.status
        return await run_in_threadpool(render_page, request, problem=detail, status=status)
    return back_to_page(done)


def back_to_page(done: str) -> Response:
    return RedirectResponse(f"./?done={done}", status_code=HTTPStatus.SEE_OTHER)


async def read_form(request: Request) -> dict[str, str]:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the form is too large")
    except ClientDisconnect as error:
        raise bad_request("the form ended early") from error
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=16))
    except ValueError as error:
        raise bad_request("the form can't be read") from error
