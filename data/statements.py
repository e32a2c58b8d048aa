"""Queries whose SQL is built once, for those that run with every blob and every rescan.

Building a query of four joins takes peewee 0.4 ms, running it takes PostgreSQL less. So a statement
is written with peewee as any other, once an engine, and run from then on with other values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peewee import Value

from data.models import database_proxy


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands among the values of a built query for one that is given when it is run."""

    position: int


class Statement:
    """A query by a function of its parameters; in it they are values and nothing else.

    Values go to the driver as they are, and rows come as the driver reads them: it is for columns
    that are numbers and texts.
    """

    def __init__(self, build: Callable[..., Any], *, count: int | None = None) -> None:
        """`count` of parameters, where the signature of `build` doesn't say it."""
        self.build = build
        if count is None:
            count = len(inspect.signature(build).parameters)
        self.parameters = [Value(Slot(n), converter=False) for n in range(count)]
        self.built: dict[type, tuple[str, list[Any]]] = {}

    def run(self, *values: Any) -> Any:
        """The driver's cursor. Raises what `data.database` translates its errors to."""
        database: Any = database_proxy.obj
        if type(database) not in self.built:
            self.built[type(database)] = self.build(*self.parameters).sql()
        sql, slots = self.built[type(database)]
        given = [values[each.position] if isinstance(each, Slot) else each for each in slots]
        return database.execute_sql(sql, given)

    def rows(self, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        return [tuple(row) for row in self.run(*values).fetchall()]


class StatementOfMany:
    """A statement about several things at once, written for 1, 2, 4, 8 .. of them.

    `build` is given a list of parameters for each of its first `columns`, one a thing, and then
    those that stand for all: `build(ids, names, now)` with two columns is run with
    `run([(1, "a"), (2, "b")], now)`. Of no things it is never run.

    Of a number between, the last thing is said again, which changes nothing in the values of an IN
    or in an INSERT that ignores what is there: PostgreSQL makes a plan for each text anew ten times
    before it keeps one, and for the completion check that takes four times as long as to run it. A
    statement that would do the last thing twice is written for `each_number` of things.
    """

    def __init__(
        self, build: Callable[..., Any], *, columns: int = 1, each_number: bool = False
    ) -> None:
        self.build = build
        self.columns = columns
        self.common = len(inspect.signature(build).parameters) - columns
        self.each_number = each_number
        self.statements: dict[int, Statement] = {}

    def run(self, things: Sequence[tuple[Any, ...]], *common: Any) -> Any:
        """The driver's cursor. Raises what `data.database` translates its errors to."""
        number = len(things) if self.each_number else next_power_of_two(len(things))
        said = [*things, *[things[-1]] * (number - len(things))]
        values = [value for column in zip(*said, strict=True) for value in column]
        return self.statement(number).run(*values, *common)

    def rows(self, things: Sequence[tuple[Any, ...]], *common: Any) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        return [tuple(row) for row in self.run(things, *common).fetchall()]

    def statement(self, things: int) -> Statement:
        if things not in self.statements:
            split = things * self.columns

            def build(*values: Any) -> Any:
                columns = [values[start : start + things] for start in range(0, split, things)]
                return self.build(*columns, *values[split:])

            self.statements[things] = Statement(build, count=split + self.common)
        return self.statements[things]


def next_power_of_two(number: int) -> int:
    """The smallest that isn't less than the number, which is at least 1."""
    return 1 << (number - 1).bit_length()
