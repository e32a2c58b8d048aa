"""One line an event, in one form, whoever logs; and nothing secret in it."""

from __future__ import annotations

import io
import json
import logging
import time
import warnings
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from rq.logutils import setup_loghandlers

from workers.logs import set_up_logs
from workers.redaction import LONGEST_TEXT, REDACTED, redact_event, redact_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, structlog.get_config())
    yield
    logging.captureWarnings(False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    structlog.configure(**before[2])


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_plain_line_has_the_fields_of_the_work_first(stream: io.StringIO) -> None:
    set_up_logs({}, stream, worker="rescanworker")
    with structlog.contextvars.bound_contextvars(manifest=12, job="rescan-12"):
        structlog.get_logger().info(
            "index finished", milliseconds=7, repository="org/app", digest="sha256:aa"
        )
    (line,) = lines(stream)
    timestamp, rest = line.split(" ", 1)
    assert timestamp.startswith("timestamp=20")
    assert timestamp.endswith("Z")
    assert rest == (
        'level=info event="index finished" manifest=12 digest=sha256:aa repository=org/app '
        "job=rescan-12 logger=tests.workers.test_logs milliseconds=7 worker=rescanworker"
    )


@pytest.mark.parametrize("value", ["true", "TRUE", "1", "yes"])
def test_jsonlog_makes_every_line_json(stream: io.StringIO, value: str) -> None:
    set_up_logs({"JSONLOG": value}, stream)
    structlog.get_logger().warning("blob not placed", digest="sha256:aa", sizes=(1, 2))
    logging.getLogger("rq.worker").error("job %s\nfailed", "rescan-12")
    first, second = (json.loads(line) for line in lines(stream))
    assert (first["level"], first["event"]) == ("warning", "blob not placed")
    assert (first["digest"], first["sizes"]) == ("sha256:aa", [1, 2])
    assert (second["event"], second["logger"]) == ("job rescan-12\nfailed", "rq.worker")


@pytest.mark.parametrize("value", ["false", "", "0"])
def test_jsonlog_false_stays_plain(stream: io.StringIO, value: str) -> None:
    set_up_logs({"JSONLOG": value}, stream)
    structlog.get_logger().info("ready")
    assert lines(stream)[0].startswith("timestamp=")


def test_debug_lines_only_with_debuglog(stream: io.StringIO) -> None:
    for environ in ({}, {"DEBUGLOG": "true"}):
        set_up_logs(environ, stream)
        structlog.get_logger().debug("row read")
        logging.getLogger("peewee").debug(("SELECT 1", []))
        logging.getLogger("rq.worker").info("*** Listening")
    assert [line.split("event=")[1].split(" logger")[0] for line in lines(stream)] == [
        '"row read"',
        "\"('SELECT 1', [])\"",
        '"*** Listening"',
    ]


@pytest.mark.parametrize("environ", [{}, {"JSONLOG": "true"}])
def test_an_exception_is_one_line_with_its_traceback(
    stream: io.StringIO, environ: dict[str, str]
) -> None:
    set_up_logs(environ, stream)
    try:
        raise ConnectionError("redis://:hunter2@redis.example:6379 is gone\nfor now")
    except ConnectionError:
        structlog.get_logger().exception("job failed")
        logging.getLogger("rq.worker").exception("job failed")
    assert len(lines(stream)) == 2
    for line in lines(stream):
        assert "Traceback" in line
        assert "redis.example:6379 is gone" in line
        assert "hunter2" not in line


def test_rq_adds_no_handler_of_its_own(stream: io.StringIO) -> None:
    set_up_logs({}, stream)
    setup_loghandlers("INFO", name="rq.worker")
    logging.getLogger("rq.worker").error("once")
    assert len(lines(stream)) == 1


def test_setting_up_twice_writes_each_line_once(stream: io.StringIO) -> None:
    set_up_logs({}, stream)
    set_up_logs({}, stream)
    structlog.get_logger().info("once")
    logging.getLogger("urllib3").warning("once")
    assert len(lines(stream)) == 2


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs({})
    structlog.get_logger().info("ready")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("timestamp=") == 2


def test_colour_on_a_terminal_only() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        set_up_logs({}, stream)
        structlog.get_logger().info("ready\nor not", error="first\nsecond")
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b[" not in pipe.getvalue()
    assert len(lines(terminal)) == 1


@pytest.mark.parametrize("environ", [{}, {"JSONLOG": "true"}])
def test_text_from_outside_cannot_forge_a_line(
    stream: io.StringIO, environ: dict[str, str]
) -> None:
    set_up_logs(environ, stream)
    forged = "x\r\ntimestamp=2026 level=info event=forged\x1b[2J\u2028\x85y"
    structlog.get_logger().info(forged, **{"a key\n": forged})
    logging.getLogger("urllib3").warning("%s", forged)
    assert len(lines(stream)) == 2
    assert "\x1b" not in stream.getvalue()


KEYS = (
    "password",
    "RESCAN_OPS_TOKEN",
    "Authorization",
    "psk",
    "s3_secret_key",
    "azure_account_key",
)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["hunter2", b"hunter2", SecretStr("hunter2"), ["hunter2"]])
def test_values_of_secret_keys_never_show(key: str, value: object) -> None:
    event = {key: value, "settings": {"redis": {key: value}}, "list": [{key: value}]}
    assert "hunter2" not in str(redact_event(None, "info", event))
    assert redact_event(None, "info", event)[key] == REDACTED


SECRET_TEXTS = (
    "postgresql://quay:hunter2@db.example/quay",
    "rediss://:hunter2@redis.example:6379/0",
    "https://s3.example/b/sha256/aa?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2&x=1",
    "https://blob.example/c/x?sv=2024&sig=hunter2&se=2026",
    "https://storage.example/b?GoogleAccessId=a&Signature=hunter2",
    "https://swift.example/b?temp_url_sig=hunter2&temp_url_expires=1",
    "http://127.0.0.1:8080/layers/sha256:aa?expires=1&signature=hunter2",
    "GET /token?service=x&access_token=hunter2 HTTP/1.1",
    "Authorization: Bearer hunter2",
    "sent Bearer hunter2hunter2==",
    "token eyJhbGciOi.eyJodW50ZXIyaunter2.c2lnaunter2",
    "connection to host=db password=hunter2 user=quay failed",
    "{'host': 'db', 'password': 'hunter2 with spaces'}",
    '{"psk": "hunter2"}',
    "DATABASE_SECRET_KEY=hunter2",
    "line 3: password: hunter2",
)


@pytest.mark.parametrize("text", SECRET_TEXTS)
def test_secrets_in_text_never_show(stream: io.StringIO, text: str) -> None:
    set_up_logs({}, stream)
    structlog.get_logger().error(text, error=ValueError(text))
    logging.getLogger("urllib3").error("%s", text)
    assert REDACTED in stream.getvalue()
    assert "unter2" not in stream.getvalue()


INNOCENT_TEXTS = (
    "quay.example/library/nginx@sha256:aa",
    "http://clair.example:6060/indexer/api/v1/index_report/sha256:aa",
    "RESCAN_OPS_TOKEN: should be text; put it in quotes",
    "SECURITY_SCANNER_V4_PSK: is not base64",
    "https://registry.example/v2/a/b/manifests/latest?n=10&last=x",
    "the upstream wants basic authentication",
)


@pytest.mark.parametrize("text", INNOCENT_TEXTS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "piece", ["token-", "eyJ-", "a-", "password", "://", "?signature", "Bearer ", "psk:", "'token'"]
)
def test_hostile_text_is_cut_and_costs_little(piece: str) -> None:
    text = piece * (1_000_000 // len(piece)) + " the end"
    started = time.process_time()
    redacted = redact_text(text)
    assert time.process_time() - started < 1
    assert redacted.endswith("the end")
    assert len(redacted) < LONGEST_TEXT * 2


def test_values_that_python_can_t_print_are_logged(stream: io.StringIO) -> None:
    endless: list[object] = []
    endless.append(endless)
    for environ in ({}, {"JSONLOG": "1"}):
        set_up_logs(environ, stream)
        structlog.get_logger().info("x", endless=endless, digits=10**5000)
    assert [line.count("[large number]") for line in lines(stream)] == [1, 1]


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.sampled_from([None, True, 7, 10**4000]) | st.floats() | st.text() | st.binary(),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
            ),
            max_leaves=8,
        ),
    )
)
def test_any_event_is_logged_on_one_line(fields: dict[str, object]) -> None:
    for environ in ({}, {"JSONLOG": "1"}):
        stream = io.StringIO()
        set_up_logs(environ, stream)
        reserved = {"event", "exc_info", "stack_info", "_record", "_from_structlog", "self"}
        structlog.get_logger().info("x", **{k: v for k, v in fields.items() if k not in reserved})
        assert len(lines(stream)) == 1
        if environ:
            json.loads(stream.getvalue(), parse_constant=refuse_constant)
