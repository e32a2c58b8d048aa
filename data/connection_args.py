"""DB_CONNECTION_ARGS: which of Quay's options reach the driver, and what is none of its options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import psycopg
import pymysql

from data.errors import SettingsError

# Quay takes the first two out itself (options of peewee 2), and the others unless it pools its
# connections (options of peewee's pool); ours has a size of its own.
NOT_FOR_THE_DRIVER = frozenset(
    {"threadlocals", "autorollback", "max_connections", "stale_timeout", "timeout"}
)
SQLITE_OPTIONS = frozenset({"cached_statements", "check_same_thread", "detect_types", "uri"})
# Beside the options of libpq: psycopg's own, for who has PgBouncer in between.
PSYCOPG_OPTIONS = frozenset({"prepare_threshold"})


def driver_arguments(engine: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options for the driver of `engine` (a DB_URI's scheme without its driver).

    Raises `SettingsError` for one that the driver doesn't know: it would end each process at its
    first statement.
    """
    kept = {name: value for name, value in arguments.items() if name not in NOT_FOR_THE_DRIVER}
    driver, known = known_options(engine)
    unknown = sorted(set(kept) - known)
    if unknown:
        raise SettingsError(
            "DB_CONNECTION_ARGS",
            f"{unknown[0][:80]} is no option of {driver}; take it out, or correct its name",
        )
    return kept


def known_options(engine: str) -> tuple[str, frozenset[str]]:
    """The driver's name, and its options."""
    if engine == "sqlite":
        return "sqlite3", SQLITE_OPTIONS
    if engine == "mysql":
        parameters = inspect.signature(pymysql.connections.Connection.__init__).parameters
        return "PyMySQL", frozenset(parameters) - {"self", "autocommit"}
    libpq = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    return "psycopg", frozenset(libpq) | PSYCOPG_OPTIONS
