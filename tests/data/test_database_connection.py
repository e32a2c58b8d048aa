"""The connection to Quay's database: TLS, a server that went away, and what others committed."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playhouse.pool import _PooledMySQLDatabase, _PooledPostgresqlDatabase

from data.database import (
    connection,
    fetch_rows,
    is_mysql,
    is_postgresql,
    is_sqlite,
    open_database,
    transaction,
)
from data.errors import DatabaseUnavailable, SettingsError
from data.models import Visibility, database_proxy
from tests.certificates import Certificate, make_certificate
from tests.conftest import ENGINES, MARIADB_MISSING
from tests.servers import Engine, wait_until


def names() -> list[str]:
    return [row[0] for row in fetch_rows(Visibility.select(Visibility.name))]


def elsewhere(work: Callable[[], object]) -> None:
    """Does it on a connection of another thread."""

    def run() -> None:
        with connection():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def scalar(sql: str) -> Any:
    return database_proxy.execute_sql(sql).fetchone()[0]


def cut_connection() -> None:
    """The server ends this thread's connection, as it does when it restarts."""
    if is_postgresql():
        pid = scalar("SELECT pg_backend_pid()")
        elsewhere(lambda: terminate_backend(pid))
    elif is_mysql():
        pid = scalar("SELECT CONNECTION_ID()")
        elsewhere(lambda: database_proxy.execute_sql(f"KILL {pid}"))


def terminate_backend(pid: int) -> None:
    """PostgreSQL waits for its end by itself from version 14 on."""
    scalar(f"SELECT pg_terminate_backend({pid})")
    left = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
    wait_until(lambda: scalar(left) == 0, 20, "the connection is gone")


def test_next_statement_sees_what_another_connection_committed(database: str) -> None:
    """Rule 2 of the design: the completion check looks after the placement was committed."""
    with connection():
        assert names() == []
        elsewhere(lambda: Visibility.create(name="public"))
        assert names() == ["public"]


REPEATABLE_READ = {
    "postgresql": {"options": r"-c default_transaction_isolation=repeatable\ read"},
    "mysql": {"init_command": "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"},
}


@pytest.mark.parametrize("sites_own", [False, True], ids=["default", "repeatable-read"])
def test_statement_of_a_transaction_sees_what_was_committed_meanwhile(
    database: str, sites_own: bool
) -> None:
    """READ COMMITTED, where MySQL's default is a snapshot and where DB_CONNECTION_ARGS want one."""
    if sites_own:
        database_proxy.close()
        open_database(database, REPEATABLE_READ.get(urlsplit(database).scheme.partition("+")[0]))

    def look_twice() -> list[str]:
        names()
        elsewhere(lambda: Visibility.create(name="public"))
        return names()

    if not is_sqlite():  # which lets nobody else write meanwhile
        assert transaction(look_twice) == ["public"]


def test_options_of_the_uri_are_kept_beside_ours(database: str) -> None:
    if is_postgresql():
        database_proxy.close()
        open_database(f"{database}{'&' if '?' in database else '?'}options=-c%20geqo%3Doff")
        assert scalar("SHOW geqo") == "off"
        assert scalar("SHOW statement_timeout") == "1min"


def test_look_goes_on_after_the_connection_was_lost(database: str) -> None:
    Visibility.create(name="public")
    cut_connection()
    assert names() == ["public"]


def test_transaction_goes_on_after_the_connection_was_lost(database: str) -> None:
    names()
    cut_connection()
    transaction(lambda: Visibility.create(name="public"), patience=20)
    assert names() == ["public"]


def test_transaction_on_a_connection_that_the_pool_has_lost_begins_on_another(
    database: str,
) -> None:
    """The pool takes a connection that was in use a moment ago at its word."""
    with connection():
        names()
        cut_connection()
    with connection():
        transaction(lambda: Visibility.create(name="public"))
        assert names() == ["public"]


def test_pool_asks_for_a_sign_of_life_after_a_pause_only(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    for pool in (_PooledPostgresqlDatabase, _PooledMySQLDatabase):
        monkeypatch.setattr(pool, "_is_closed", lambda _, conn: asked.append(conn))
    for pause, expected in ((60.0, 0), (0.0, 2)):
        monkeypatch.setattr("data.database.RECENT_SECONDS", pause)
        with connection():
            names()
        with connection():
            names()
        assert len(asked) == (0 if is_sqlite() else expected)  # SQLite has no pool


def test_lone_write_on_a_lost_connection_is_told_and_the_next_one_works(database: str) -> None:
    """It may have come through, so nobody repeats it unasked."""
    names()
    cut_connection()
    if not is_sqlite():
        with pytest.raises(DatabaseUnavailable, match="can't be used"):
            Visibility.create(name="private")
    Visibility.create(name="public")
    assert "public" in names()


def test_transaction_that_lost_a_deadlock_is_run_again(database: str) -> None:
    """Two lock the same two rows in opposite orders: the engine ends one, and both get done."""
    if is_sqlite():  # one writer at a time
        return
    rows = [Visibility.create(name=name).id for name in ("public", "private")]
    both_hold_one = threading.Barrier(2)
    tries: list[int] = []

    def touch(first: int, second: int) -> None:
        tries.append(first)
        Visibility.update(name=Visibility.name.concat("+")).where(Visibility.id == first).execute()
        with suppress(threading.BrokenBarrierError):  # the second time nobody waits for it
            both_hold_one.wait(30)
        Visibility.update(name=Visibility.name.concat("+")).where(Visibility.id == second).execute()

    def run(first: int, second: int) -> None:
        with connection():
            transaction(lambda: touch(first, second))
            both_hold_one.abort()

    threads = [threading.Thread(target=run, args=pair) for pair in (rows, rows[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(names()) == ["private++", "public++"]
    assert len(tries) == 3, "one of them was run again"


def test_table_that_quay_has_not_made_yet_is_a_database_to_wait_for(database: str) -> None:
    """On the first start of both; a worker looks again, and says what is missing."""
    for statement in ("SELECT id FROM notyet", "SELECT notyet FROM visibility"):
        with pytest.raises(DatabaseUnavailable, match="notyet"):
            database_proxy.execute_sql(statement)


def test_options_of_peewee_and_its_pool_never_reach_the_driver(database_uri: str) -> None:
    """Quay takes them out as well; ours has a pool of its own size."""
    options = {"threadlocals": True, "autorollback": True}
    pool = {"max_connections": 5, "stale_timeout": 10, "timeout": 1}
    bound = open_database(database_uri, options | pool)
    assert bound.connect()
    bound.close()


def test_option_that_the_driver_does_not_know_is_named_at_start(database_uri: str) -> None:
    with pytest.raises(SettingsError, match=r"DB_CONNECTION_ARGS: sslmod is no option of \w+; "):
        open_database(database_uri, {"sslmod": "verify-full"})


@pytest.fixture
def stranger(tmp_path: Path) -> Certificate:
    """One that signed no server's certificate."""
    (tmp_path / "stranger").mkdir()
    return make_certificate(tmp_path / "stranger")


@pytest.mark.skipif("mariadb" not in ENGINES, reason=MARIADB_MISSING)
def test_mariadb_over_tls(mariadb: Engine, stranger: Certificate) -> None:
    uri = mariadb.create()
    bound: Any = open_database(uri, {"ssl": {"ca": str(mariadb.authority)}})
    assert bound.execute_sql("SHOW STATUS LIKE 'Ssl_cipher'").fetchone()[1]
    bound.close()
    refused: Any = open_database(uri, {"ssl": {"ca": str(stranger.path)}})
    with pytest.raises(DatabaseUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        refused.execute_sql("SELECT 1")


def test_postgresql_over_tls(postgresql: Engine, tmp_path: Path, stranger: Certificate) -> None:
    uri = postgresql.create()
    certificate = make_certificate(tmp_path)
    with tls_before(uri, certificate) as address:
        verified = {"sslmode": "verify-full", "sslrootcert": str(certificate.path)}
        bound: Any = open_database(address, verified)
        assert bound.execute_sql("SELECT 1").fetchone() == (1,)
        bound.close()
        refused: Any = open_database(address, verified | {"sslrootcert": str(stranger.path)})
        with pytest.raises(DatabaseUnavailable, match="certificate verify failed"):
            refused.execute_sql("SELECT 1")


@contextmanager
def tls_before(uri: str, certificate: Certificate) -> Iterator[str]:
    """Speaks PostgreSQL's TLS for a server that can't (the wheel's); yields its DB_URI."""
    parts = urlsplit(uri)
    directory = parse_qs(parts.query)["host"][0]
    context = certificate.server_context()

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client:
            client.recv(8, socket.MSG_WAITALL)  # the client's SSLRequest
            client.sendall(b"S")
            with (
                context.wrap_socket(client, server_side=True) as secure,
                socket.socket(socket.AF_UNIX) as server,
            ):
                server.connect(f"{directory}/.s.PGSQL.5432")
                back = threading.Thread(target=copy, args=(server, secure))
                back.start()
                copy(secure, server)
                back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept).start()
        yield f"postgresql://postgres@127.0.0.1:{listener.getsockname()[1]}{parts.path}"
        listener.shutdown(socket.SHUT_RDWR)


def copy(source: socket.socket, target: socket.socket) -> None:
    """Until the source ends; then the target is told so."""
    with suppress(OSError, ssl.SSLError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
