"""Queries whose SQL is written once."""

from __future__ import annotations

import pytest

from data.database import KeyedQuery
from data.models import MediaType


@pytest.mark.usefixtures("database")
def test_each_key_finds_its_own_rows() -> None:
    for name in ("first", "second", "100%"):
        MediaType.create(name=name)
    query = KeyedQuery(lambda name: MediaType.select(MediaType.name).where(MediaType.name == name))
    for name in ("second", "first", "100%"):
        assert [tuple(row) for row in query.rows(name)] == [(name,)]
    assert query.rows("third") == []


@pytest.mark.usefixtures("sqlite_database")
def test_sql_is_written_once_for_many_keys() -> None:
    written = []

    def build(name: object) -> object:
        written.append(name)
        return MediaType.select(MediaType.name).where(MediaType.name == name)

    query = KeyedQuery(build)
    for number in range(3):
        assert query.rows(f"name {number}") == []
    assert len(written) == 1
