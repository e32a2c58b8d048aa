"""How the workers log: one line an event, to standard error.

    timestamp=... level=info event="index finished" manifest=12 digest=sha256:.. repository=org/app
    job=rescan-12 logger=data.secscan.indexer

Plain text (logfmt), in colour on a terminal, or JSON: `JSONLOG=true` and `DEBUGLOG=true` in the
environment mean what they mean to Quay. Events of the standard library's loggers (rq, peewee,
urllib3) come out in the same form. What belongs to the work in hand is bound once, with
`structlog.contextvars.bound_contextvars(manifest=.., digest=.., repository=.., job=..)`, and is
then on every line.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

from workers.redaction import redact_event

FIRST_FIELDS = ("timestamp", "level", "event", "manifest", "digest", "repository", "job")
# They tell at INFO what our own events tell better; DEBUGLOG lets them speak.
QUIET_LOGGERS = ("rq.", "peewee", "urllib3", "obstore", "redis_lock", "uvicorn.access")
TRACEBACKS = frozenset({"exception", "stack"})
TRUE = frozenset({"1", "true", "yes", "on"})


def set_up_logs(
    environ: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
    *,
    worker: str | None = None,
) -> None:
    """Sets up structlog and the root logger; to be called once, first of all, by every process.

    `worker` is put on every line as the name of the worker type. Calling it again replaces the
    former set-up.
    """
    environ = os.environ if environ is None else environ
    stream = sys.stderr if stream is None else stream
    debug = is_true(environ, "DEBUGLOG")
    level = logging.DEBUG if debug else logging.INFO
    shared = shared_processors(worker)
    structlog.configure(
        processors=[*shared, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact_event,
                in_order,
                *renderers(stream, as_json=is_true(environ, "JSONLOG")),
            ],
        )
    )
    if not debug:
        handler.addFilter(is_worth_a_line)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Judged at the handler, since RQ sets the levels of its loggers itself."""
    quiet = record.name.startswith(QUIET_LOGGERS)
    return not quiet or record.levelno >= logging.WARNING


def is_true(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").strip().lower() in TRUE


def shared_processors(worker: str | None) -> list[Processor]:
    def name_worker(_logger: Any, _method: str, event: Any) -> Any:
        if worker is not None:
            event.setdefault("worker", worker)
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        name_worker,
    ]


def in_order(_logger: Any, _method: str, event: Any) -> dict[str, Any]:
    """The fields that one looks for first, then the others by name."""
    first = {name: event[name] for name in FIRST_FIELDS if name in event}
    return first | {name: event[name] for name in sorted(event) if name not in first}


def on_one_line(_logger: Any, _method: str, event: Any) -> dict[str, Any]:
    """For a terminal: a newline in a value can't pass for another event; tracebacks stay."""
    return {
        name: value.replace("\n", "\\n")
        if isinstance(value, str) and name not in TRACEBACKS
        else value
        for name, value in event.items()
    }


def renderers(stream: TextIO, *, as_json: bool) -> list[Processor]:
    if as_json:
        return [structlog.processors.JSONRenderer()]
    if stream.isatty():
        return [
            on_one_line,
            structlog.dev.ConsoleRenderer(
                colors=True,
                sort_keys=False,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    return [structlog.processors.LogfmtRenderer(bool_as_flag=False)]
