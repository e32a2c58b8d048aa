"""Queries whose SQL is built once."""

from __future__ import annotations

import pytest

from data.models import MediaType
from data.statements import Statement


@pytest.mark.usefixtures("database")
def test_each_key_finds_its_own_rows() -> None:
    for name in ("first", "second", "100%"):
        MediaType.create(name=name)
    query = Statement(lambda name: MediaType.select(MediaType.name).where(MediaType.name == name))
    for name in ("second", "first", "100%"):
        assert [tuple(row) for row in query.rows(name)] == [(name,)]
    assert query.rows("third") == []


@pytest.mark.usefixtures("sqlite_database")
def test_sql_is_written_once_for_many_keys() -> None:
    written = []

    def build(name: object) -> object:
        written.append(name)
        return MediaType.select(MediaType.name).where(MediaType.name == name)

    query = Statement(build)
    for number in range(3):
        assert query.rows(f"name {number}") == []
    assert len(written) == 1


@pytest.mark.usefixtures("database")
def test_values_are_given_in_the_order_of_the_parameters_wherever_they_stand() -> None:
    """In a statement that writes, and one of which a value stands twice."""
    insert = Statement(lambda number, name: MediaType.insert(name=name, id=number))
    insert.run(7, "written")
    assert [(row.id, row.name) for row in MediaType.select()] == [(7, "written")]
    twice = Statement(
        lambda name, other: MediaType.select(MediaType.name).where(
            (MediaType.name == other) | (MediaType.name == name) | (MediaType.name == other)
        )
    )
    assert twice.rows("nothing", "written") == [("written",)]
    assert twice.rows("written", "nothing") == [("written",)]
    assert twice.rows("nothing", "nothing") == []
