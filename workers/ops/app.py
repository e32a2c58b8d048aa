"""The routes of the ops server, and what holds for every answer: its headers and its errors."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workers.ops import actions, health, page, rescans
from workers.ops.context import Ops
from workers.ops.problems import Problem, problem_response

log = structlog.get_logger()

# Nothing but our own files, and forms to ourselves alone.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

ROUTES = [
    Route("/", page.get_page),
    Route("/page.css", page.get_style),
    Route("/page.js", page.get_script),
    Route("/icon.svg", page.get_icon),
    Route("/favicon.ico", page.get_icon),
    Route("/sign-in", actions.get_sign_in, methods=["GET"]),
    Route("/sign-in", actions.post_sign_in, methods=["POST"]),
    Route("/sign-out", actions.post_sign_out, methods=["POST"]),
    Route("/pause", actions.post_pause, methods=["POST"]),
    Route("/resume", actions.post_resume, methods=["POST"]),
    Route("/retry", actions.post_retry, methods=["POST"]),
    Route("/healthz", health.healthz),
    Route("/readyz", health.readyz),
    Route("/metrics", health.metrics),
    Route("/openapi.json", rescans.get_openapi),
    Route("/rescans", rescans.post_rescan, methods=["POST"]),
    Route("/rescans/{manifest_id}", rescans.get_rescan),
]


class SecurityHeaders:
    """Puts HEADERS on every answer that doesn't have them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def on_problem(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, Problem)
    return problem_response(error)


def on_http_error(request: Request, error: Exception) -> Response:
    """404 for a path that isn't there, 405 for a method that isn't."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = f"{request.method} {request.url.path}: {status.phrase.lower()}"
    return problem_response(Problem(status, detail, dict(error.headers or {})))


def on_error(request: Request, error: Exception) -> Response:
    """A fault of ours: the log has it, the answer says nothing of it."""
    log.error("request failed", path=request.url.path, exc_info=error)
    detail = "an error in the ops server; its log says more"
    return problem_response(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail))


def build_app(ops: Ops) -> Starlette:
    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers={
            Problem: on_problem,
            HTTPException: on_http_error,
            Exception: on_error,
        },
    )
    app.state.ops = ops
    return app
