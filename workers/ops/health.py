"""/healthz: this process answers. /readyz: so do the database and Redis, each with its reason."""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from workers.ops.context import Ops, ops_of
from workers.ops.exposition import render
from workers.ops.readings import RedisDown


def healthz(request: Request) -> Response:
    del request
    return JSONResponse({"status": "ok"})


def readyz(request: Request) -> Response:
    """503 and the reason while one of the two can't be used; a paused queue is no trouble."""
    ops = ops_of(request)
    checks = {"database": ops.watcher.problem(), "redis": redis_problem(ops)}
    ready = not any(checks.values())
    return JSONResponse(
        {
            "status": "ok" if ready else "unavailable",
            "checks": {
                name: {"status": "unavailable", "reason": reason} if reason else {"status": "ok"}
                for name, reason in checks.items()
            },
        },
        status_code=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
    )


def redis_problem(ops: Ops) -> str:
    try:
        ops.reader.ask(ops.queue.connection.ping)
    except RedisDown as error:
        return str(error)
    return ""


def metrics(request: Request) -> Response:
    content, content_type = render(ops_of(request).registry, request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": content_type})
