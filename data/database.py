"""The connection to Quay's database, and what differs between PostgreSQL, MySQL/MariaDB and SQLite.

A thread takes a pooled connection with its first statement and gives it back with `connection()`.
Driver errors are translated here, once: whatever says that the database is gone or gave up for now
becomes `DatabaseUnavailable`; a deadlock or serialization failure is tried again by `transaction`
before anybody hears of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from peewee import (
    Database,
    InterfaceError,
    Model,
    ModelSelect,
    MySQLDatabase,
    OperationalError,
    PostgresqlDatabase,
    ProgrammingError,
    SqliteDatabase,
)
from playhouse.pool import PooledMySQLDatabase, PooledPostgresqlDatabase

from data.connection_args import driver_arguments
from data.errors import DatabaseUnavailable, SettingsError
from data.models import ALL_MODELS, database_proxy

T = TypeVar("T")
M = TypeVar("M", bound=Model)

CONNECTIONS_PER_PROCESS = 12
IDLE_CONNECTION_SECONDS = 300
RECENT_SECONDS = 1.0
# A statement that runs longer is stuck: the largest one, a sweep batch, takes well under 1 s.
STATEMENT_TIMEOUT_SECONDS = 60
TRANSACTION_TRIES = 6
# How long between two tries at a database that is away.
AWAY_SECONDS = 0.2
# MySQL: 1205 lock wait time-out, 1213 deadlock. PostgreSQL: 40001 serialization, 40P01 deadlock,
# 55P03 lock not available.
CONFLICT_CODES = frozenset({1205, 1213, "40001", "40P01", "55P03"})
# A table or a column that isn't there, on MySQL and PostgreSQL: Quay hasn't migrated it yet.
MISSING_CODES = frozenset({1146, 1054, "42P01", "42703"})


class DatabaseConflict(DatabaseUnavailable):
    """The engine gave up on a transaction (deadlock, serialization, lock wait): run it again."""


class TranslatedErrors:
    """Mixed into a peewee database: connects again after a loss, and translates driver errors."""

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        database: Any = self
        try:
            return super().execute_sql(sql, params)  # type: ignore[misc]
        except ProgrammingError as error:
            if codes_of(error) & MISSING_CODES:
                raise translate(error) from error
            raise
        except (OperationalError, InterfaceError) as error:
            translated = translate(error)
            if isinstance(translated, DatabaseConflict) or database.in_transaction():
                raise translated from error
            discard_connection(database)
            if not sql.lstrip().upper().startswith("SELECT"):
                raise translated from error
        try:
            return super().execute_sql(sql, params)  # type: ignore[misc]
        except (OperationalError, InterfaceError) as error:
            raise translate(error) from error


class TakenAtItsWord:
    """Mixed into a pool: asks whether a connection still lives only after RECENT_SECONDS in it.

    The pool asks the server each time that it hands one out, which costs every piece of work a
    round trip. One that is lost all the same is replaced as one that is lost in use.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.given_back: dict[int, float] = {}

    def _can_reuse(self, conn: Any) -> bool:
        self.given_back[id(conn)] = time.monotonic()
        return bool(super()._can_reuse(conn))  # type: ignore[misc]

    def _is_closed(self, conn: Any) -> bool:
        since = time.monotonic() - self.given_back.pop(id(conn), 0.0)
        return since >= RECENT_SECONDS and bool(super()._is_closed(conn))  # type: ignore[misc]


class PostgreSQL(TranslatedErrors, TakenAtItsWord, PooledPostgresqlDatabase):  # type: ignore[misc]
    pass


class ReadCommitted(MySQLDatabase):
    """Sets the isolation level after the site's own `init_command`, which may set another.

    A transaction must see what others committed meanwhile, and InnoDB's gap locks would make two
    claims of neighbouring manifests wait for each other.
    """

    def _connect(self) -> Any:
        connection = super()._connect()  # type: ignore[misc]
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        return connection


class MySQL(TranslatedErrors, TakenAtItsWord, PooledMySQLDatabase, ReadCommitted):  # type: ignore[misc]
    pass


class SQLite(TranslatedErrors, SqliteDatabase):
    pass


def translate(error: Exception) -> DatabaseUnavailable:
    """`DatabaseConflict` for a lost race between transactions, else `DatabaseUnavailable`."""
    text = str(error).strip()
    if codes_of(error) & CONFLICT_CODES or "database is locked" in text:
        return DatabaseConflict(f"the database gave up on a transaction: {text}")
    return DatabaseUnavailable(
        f"the database can't be used: {text}. Check that it runs and that DB_URI is right"
    )


def codes_of(error: Exception) -> set[Any]:
    """The driver's own: PostgreSQL's sqlstate, MySQL's number and sqlstate; SQLite has neither."""
    original = getattr(error, "orig", None) or error  # peewee keeps the driver's error there
    return {getattr(original, "sqlstate", None), next(iter(original.args), None)}


def discard_connection(database: Any) -> None:
    """Closes this thread's connection for good, so that the next statement opens a new one."""
    if hasattr(database, "manual_close"):
        database.manual_close()
    else:
        database.close()


def open_database(uri: str, connection_args: Mapping[str, Any] | None = None) -> Database:
    """Binds the tables to the database at `uri` (Quay's DB_URI) and returns it, not yet connected.

    Raises `SettingsError` for a scheme that Quay doesn't know, and for an option that the driver
    doesn't.
    """
    database = build_database(uri, connection_args or {})
    database_proxy.initialize(database)
    return database


def build_database(uri: str, connection_args: Mapping[str, Any]) -> Database:
    parts = urlsplit(uri)
    engine = parts.scheme.partition("+")[0]
    arguments = driver_arguments(engine, connection_args)
    pool: dict[str, Any] = {
        "max_connections": CONNECTIONS_PER_PROCESS,
        "stale_timeout": IDLE_CONNECTION_SECONDS,
        "timeout": 30,
    }
    if engine == "sqlite":
        path = uri.partition(":///")[2] or ":memory:"
        pragmas = {"journal_mode": "wal", "synchronous": "normal", "foreign_keys": 1}
        return SQLite(path, pragmas=pragmas, timeout=30, **arguments)
    arguments = server_arguments(uri) | arguments
    if engine in {"postgresql", "postgres"}:
        timeout = f"-c statement_timeout={STATEMENT_TIMEOUT_SECONDS * 1000}"
        isolation = r"-c default_transaction_isolation=read\ committed"
        arguments["options"] = f"{timeout} {arguments.get('options', '')} {isolation}"
        return PostgreSQL(prefer_psycopg3=True, **pool, **arguments)
    if engine == "mysql":
        arguments.setdefault("charset", "utf8mb4")
        return MySQL(**pool, **arguments)
    raise SettingsError(
        "DB_URI",
        f"{parts.scheme or 'an empty scheme'} is no database of Quay's; "
        "use postgresql://, mysql+pymysql:// or sqlite:///",
    )


def server_arguments(uri: str) -> dict[str, Any]:
    parts = urlsplit(uri)
    named = {
        "host": parts.hostname,
        "port": parts.port,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
    }
    known = {name: value for name, value in named.items() if value is not None}
    options = dict(parse_qsl(parts.query))
    return {"database": unquote(parts.path.lstrip("/")), **known, **options}


def create_tables() -> None:
    """Creates Quay's tables in an embedded database of our own; never called on a Quay's."""
    for model in ALL_MODELS:  # in the order of their foreign keys
        model.create_table()


@contextmanager
def connection() -> Iterator[None]:
    """Gives this thread's connection back to the pool at the end, whatever happens inside."""
    try:
        yield
    finally:
        if not database_proxy.is_closed():
            database_proxy.close()


def transaction(work: Callable[[], T], *, patience: float = 0.0) -> T:
    """Runs `work` in one transaction and returns its value.

    A deadlock, a serialization failure or a lock wait that timed out is tried again with a growing
    random wait, `TRANSACTION_TRIES` times in all, then raised as `DatabaseUnavailable`; so is a
    database that is away, for `patience` seconds. `work` must therefore do nothing but SQL, and
    decide anew what it does: a commit may have come through though its answer didn't.
    """
    return insist(lambda: run_once(work), patience)


def statement(work: Callable[[], T], *, patience: float = 0.0) -> T:
    """As `transaction`, for `work` that is a single statement: it is a transaction by itself.

    Two round trips less. All that `transaction` says holds.
    """
    return insist(work, patience)


def insist(work: Callable[[], T], patience: float) -> T:
    deadline, conflicts = time.monotonic() + patience, 0
    while True:
        try:
            return work()
        except DatabaseConflict:
            conflicts += 1
            if conflicts >= TRANSACTION_TRIES:
                raise
            time.sleep(random.uniform(0.005, 0.02) * 2**conflicts)
        except DatabaseUnavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(AWAY_SECONDS)


def run_once(work: Callable[[], T], *, may_repeat: bool = True) -> T:
    """A transaction that can't even begin is begun once more, on another connection."""
    database: Any = database_proxy.obj
    begun = False
    # A deferred transaction of SQLite that reads, then writes, fails when another wrote between.
    begin = ("IMMEDIATE",) if isinstance(database, SqliteDatabase) else ()
    try:
        with database.atomic(*begin):
            begun = True
            return work()
    except (OperationalError, InterfaceError) as error:  # of BEGIN, COMMIT or the connection
        if not database.in_transaction():
            discard_connection(database)
        if begun or not may_repeat:
            raise translate(error) from error
    return run_once(work, may_repeat=False)


def lock_rows(query: ModelSelect[M]) -> ModelSelect[M]:
    """`query` with its rows locked until the transaction ends (SQLite locks the whole file)."""
    return query if is_sqlite() else query.for_update()


def fetch_rows(query: Any) -> list[tuple[Any, ...]]:
    """The rows of a peewee query as plain tuples, all read."""
    return list(query.tuples())


def is_sqlite() -> bool:
    return isinstance(database_proxy.obj, SqliteDatabase)


def is_mysql() -> bool:
    return isinstance(database_proxy.obj, MySQLDatabase)


def is_postgresql() -> bool:
    return isinstance(database_proxy.obj, PostgresqlDatabase)
