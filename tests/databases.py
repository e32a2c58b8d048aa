"""Databases that tests use one after the other: to empty one costs far less than to make one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql

# Who holds a lock for longer is a thread that a failed test left behind: it may keep the database.
PATIENCE_SECONDS = 2

EMPTY_POSTGRESQL = """
DO $$
DECLARE
  name text;
  used boolean;
BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM %I)', name) INTO used;
    IF used THEN
      EXECUTE format('TRUNCATE %I CASCADE', name);
    END IF;
  END LOOP;
  FOR name IN
    SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL
  LOOP
    EXECUTE format('ALTER SEQUENCE %I RESTART', name);
  END LOOP;
END $$
"""
USED_IN_MARIADB = """
SELECT table_name FROM information_schema.tables
WHERE table_schema = database() AND auto_increment > 1
"""
COLUMNS_OF_POSTGRESQL = """
SELECT attrelid::regclass::text, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
ORDER BY attrelid, attnum
"""
COLUMNS_OF_MARIADB = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = database() ORDER BY table_name, column_name
"""


@dataclass(slots=True)
class Spares:
    """Empty databases of one kind, made by `make` when there is none to use again."""

    make: Callable[[], str]
    spare: list[str] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)

    def take(self) -> str:
        """The DB_URI of a database with all its tables, and nothing in them."""
        if self.spare:
            return self.spare.pop()
        uri = self.make()
        with connect(uri) as connection:
            self.columns[uri] = columns_of(connection)
        return uri

    def give_back(self, uri: str) -> None:
        """Empties it; one that is still in use, or whose tables a test changed, is left alone."""
        try:
            with connect(uri) as connection:
                if columns_of(connection) == self.columns[uri]:
                    empty(connection)
                    self.spare.append(uri)
        except (psycopg.errors.LockNotAvailable, pymysql.err.OperationalError):
            return


def columns_of(connection: Any) -> Any:
    cursor = connection.cursor()
    in_postgresql = isinstance(connection, psycopg.Connection)
    cursor.execute(COLUMNS_OF_POSTGRESQL if in_postgresql else COLUMNS_OF_MARIADB)
    return cursor.fetchall()


def empty(connection: Any) -> None:
    cursor = connection.cursor()
    if isinstance(connection, psycopg.Connection):
        cursor.execute(EMPTY_POSTGRESQL)
        connection.commit()
        return
    cursor.execute(f"SET foreign_key_checks = 0, lock_wait_timeout = {PATIENCE_SECONDS}")
    cursor.execute(f"SET innodb_lock_wait_timeout = {PATIENCE_SECONDS}")
    # MySQL remembers for a day what it found; this comment is a statement to it alone.
    cursor.execute("SET @fresh = 1 /*!80000 , information_schema_stats_expiry = 0 */")
    cursor.execute(USED_IN_MARIADB)
    for (table,) in cursor.fetchall():
        cursor.execute(f"DELETE FROM `{table}`")
        cursor.execute(f"ALTER TABLE `{table}` AUTO_INCREMENT = 1")
    connection.commit()


def connect(uri: str) -> Any:
    if uri.startswith("postgres"):
        return psycopg.connect(uri, options=f"-c lock_timeout={PATIENCE_SECONDS}s")
    parts = urlsplit(uri)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=parts.username,
        password=parts.password or "",
        database=parts.path.lstrip("/"),
        ssl_disabled=True,  # what else would read every authority of the system
    )
