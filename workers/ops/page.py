"""The page at /: one read of Redis, what the watcher read last of the database, one template."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from workers.ops import view
from workers.ops.context import Ops, ops_of
from workers.ops.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from workers.ops.readings import RedisDown, read_failed_jobs, read_queue

FOLDER = Path(__file__).parent
MOST_ORGANIZATIONS = 20

# What is said after an action; the page never repeats a text out of an address.
DONE = {
    "paused": "Paused. Workers finish what they have in hand and take no more.",
    "resumed": "Resumed. Workers take jobs again.",
    "queued": "The rescan is queued.",
    "waiting": "A rescan of it was waiting already; yours takes its place at the front.",
    "running": "It is being rescanned now; it is looked at once more afterwards.",
    "signed-in": "Signed in.",
    "signed-out": "Signed out.",
}


@cache
def templates() -> Environment:
    """Escapes whatever is put into a template, and fails on a name that isn't there."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ago": view.ago,
        "from_unix": view.from_unix,
        "size": view.size,
        "style_of_event": view.style_of_event,
    }
    environment.globals |= {
        "WIDTH": WIDTH,
        "HEIGHT": HEIGHT,
        "LEFT": LEFT,
        "RIGHT": RIGHT,
        "TOP": TOP,
        "BOTTOM": BOTTOM,
    }
    return environment


def get_page(request: Request) -> Response:
    return render_page(request, said=DONE.get(request.query_params.get("done", ""), ""))


def get_style(request: Request) -> Response:
    del request
    return static_file("page.css", "text/css")


def get_script(request: Request) -> Response:
    del request
    return static_file("page.js", "text/javascript")


def get_icon(request: Request) -> Response:
    del request
    return static_file("icon.svg", "image/svg+xml")


def static_file(name: str, media_type: str) -> Response:
    content = (FOLDER / name).read_bytes()
    return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})


def render_page(
    request: Request, *, said: str = "", problem: str = "", status: int = 200
) -> Response:
    """The page, with what was done or what went wrong said on top."""
    return render("page.html", page_values(request, said, problem), status)


def render(template: str, values: dict[str, Any], status: int = 200) -> Response:
    return HTMLResponse(templates().get_template(template).render(values), status_code=status)


def page_values(request: Request, said: str, problem: str) -> dict[str, Any]:
    ops = ops_of(request)
    redis, redis_error = read_redis(ops)
    database = ops.watcher.latest
    failures = view.failures(redis, database)
    ops.watcher.want_names(each.manifest_id for each in failures if not each.repository)
    session = ops.authentication.session(request)
    return {
        "now": datetime.now(UTC),
        "said": said,
        "problem": problem,
        "state": view.state(redis, ops.watcher.problem(), ops.idle),
        "notices": view.notices(redis, redis_error, ops.watcher.problem(), ops.idle),
        "queue": redis.queue if redis else None,
        "stages": view.funnel(redis, database),
        "facts": view.facts(redis),
        "plots": view.plots(redis.samples if redis else ()),
        "waiting": database.waiting.manifests,
        "waiting_more": view.waiting_more(database.waiting),
        "failures": failures,
        "organizations": redis.organizations if redis else (),
        "events": redis.events if redis else (),
        "switched_on": ops.authentication.switched_on,
        "signed_in": session is not None,
        "form_token": ops.authentication.form_token(session) if session else "",
    }


def read_redis(ops: Ops) -> tuple[view.RedisReadings | None, str]:
    """What Redis holds, or None and why not."""

    def read() -> view.RedisReadings:
        return view.RedisReadings(
            queue=read_queue(ops.queue, ops.backfill, ops.store),
            failed=read_failed_jobs([ops.queue, ops.backfill]),
            events=ops.store.events(),
            organizations=ops.store.organizations(MOST_ORGANIZATIONS),
            samples=ops.store.samples(),
        )

    try:
        return ops.reader.ask(read), ""
    except RedisDown as error:
        return None, str(error)
