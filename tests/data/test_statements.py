"""Queries whose SQL is built once."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce

import pytest

from data.models import MediaType
from data.statements import Statement, StatementOfMany


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


@pytest.mark.usefixtures("database")
def test_statement_of_many_finds_the_rows_of_each() -> None:
    for name in ("first", "second", "third"):
        MediaType.create(name=name)
    query = StatementOfMany(
        lambda names: MediaType.select(MediaType.name).where(MediaType.name.in_(names))
    )
    for names in (["second"], ["first", "third"], ["third", "second"], ["first", "none", "none"]):
        found = {name for (name,) in query.rows([(name,) for name in names])}
        assert found == set(names) - {"none"}


@pytest.mark.usefixtures("database")
def test_statement_of_many_keeps_what_belongs_to_one_thing_together() -> None:
    """Two columns a thing, and a value for all of them."""
    for number, name in ((1, "a"), (2, "b"), (3, "c")):
        MediaType.create(id=number, name=name)
    query = StatementOfMany(
        lambda ids, names, last: MediaType.select(MediaType.id).where(
            reduce(
                operator.or_,
                [
                    (MediaType.id == number) & (MediaType.name == name)
                    for number, name in zip(ids, names, strict=True)
                ],
            )
            & (MediaType.id <= last)
        ),
        columns=2,
    )
    assert sorted(query.rows([(3, "c"), (1, "a"), (2, "x")], 3)) == [(1,), (3,)]
    assert query.rows([(3, "c"), (1, "a"), (2, "b")], 1) == [(1,)]
    assert query.rows([(1, "b")], 3) == []


@pytest.mark.usefixtures("database")
def test_statement_that_inserts_does_nothing_twice() -> None:
    insert = StatementOfMany(
        lambda ids, names: MediaType.insert_many(
            list(zip(ids, names, strict=True)), fields=[MediaType.id, MediaType.name]
        ),
        columns=2,
        each_number=True,
    )
    insert.run([(1, "a"), (2, "b"), (3, "c")])
    assert [(row.id, row.name) for row in MediaType.select().order_by(MediaType.id)] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
    ]


@pytest.mark.usefixtures("sqlite_database")
@pytest.mark.parametrize(("each_number", "expected"), [(False, [1, 4, 8]), (True, [1, 3, 4, 5, 8])])
def test_statement_of_many_is_written_for_few_numbers_of_things(
    each_number: bool, expected: list[int]
) -> None:
    written = []

    def build(names: Sequence[object]) -> object:
        written.append(len(names))
        return MediaType.select(MediaType.name).where(MediaType.name.in_(names))

    query = StatementOfMany(build, each_number=each_number)
    for count in (1, 3, 1, 4, 3, 5, 8):
        assert query.rows([(f"name {n}",) for n in range(count)]) == []
    assert written == expected
