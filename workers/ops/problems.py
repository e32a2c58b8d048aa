"""Errors as `application/problem+json` (RFC 9457): what is wrong, and the mend."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import JSONResponse


class Problem(Exception):
    """Ends a request with this status. `detail` is for the person who asked; no secrets in it."""

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None):
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def problem_response(problem: Problem) -> JSONResponse:
    return JSONResponse(
        {
            "type": "about:blank",
            "title": problem.status.phrase,
            "status": problem.status.value,
            "detail": problem.detail,
        },
        status_code=problem.status.value,
        headers=problem.headers,
        media_type="application/problem+json",
    )


def not_found(detail: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, detail)


def bad_request(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, detail)


def unavailable(detail: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "5"})
