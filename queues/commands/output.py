"""What every command prints with: words for a person, or JSON; exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data.errors import DatabaseUnavailable, DataError, ScannerError, StorageUnavailable
from queues.errors import QueueError

EXIT_NOT_DONE = 1
EXIT_WRONG_USE = 2

# What a terminal would obey: errors quote what Clair, an upstream or Redis said.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# Not the caller's mistake: the same command may work in a minute.
AWAY = (DatabaseUnavailable, StorageUnavailable, ScannerError)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

P = ParamSpec("P")
T = TypeVar("T")


def console() -> Console:
    """Standard output; no colour when it isn't a terminal."""
    return Console(highlight=False, soft_wrap=False, emoji=False)


def print_json(value: Any, *, in_a_line: bool = False) -> None:
    write(json.dumps(value, indent=None if in_a_line else 2) + "\n")


def write(text: str) -> None:
    """To standard output as it is, at once: a program reads it."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table that fits the terminal; long texts are folded, never cut off."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.show_header = any(columns)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    console().print(table)


def say(text: str) -> None:
    console().print(printable(text), soft_wrap=True, markup=False)


def printable(text: str) -> str:
    """The text without what moves the cursor or turns the direction of writing."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """A driver's error may have several lines."""
    return " ".join(printable(text).split())


def fail(message: str, code: int = EXIT_WRONG_USE) -> NoReturn:
    """One sentence on standard error, then the end."""
    sys.stderr.write(f"queues: {one_line(message)}\n")
    raise typer.Exit(code)


def reported(command: Callable[P, T]) -> Callable[P, T]:
    """Turns what a command can't do into one sentence: exit 2, or 1 when a server is away."""

    @wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return command(*arguments, **options)
        except (DataError, QueueError) as error:
            fail(str(error), EXIT_NOT_DONE if isinstance(error, AWAY) else EXIT_WRONG_USE)
        except RedisError as error:
            fail(
                f"Redis can't be reached: {error}. Check RESCAN_REDIS and that it runs",
                EXIT_NOT_DONE,
            )

    return run
