"""What every command prints with: words for a person, or JSON; exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from data.errors import DataError
from queues.errors import QueueError

EXIT_NOT_DONE = 1
EXIT_WRONG_USE = 2

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

P = ParamSpec("P")
T = TypeVar("T")


def console() -> Console:
    """Standard output; no colour when it isn't a terminal."""
    return Console(highlight=False, soft_wrap=False)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table that fits the terminal; long texts are folded, never cut off."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console().print(table)


def say(text: str) -> None:
    console().print(text, soft_wrap=True, markup=False)


def fail(message: str, code: int = EXIT_WRONG_USE) -> NoReturn:
    """One sentence on standard error, then the end."""
    sys.stderr.write(f"queues: {message}\n")
    raise typer.Exit(code)


def reported(command: Callable[P, T]) -> Callable[P, T]:
    """Turns what a command can't do into one sentence: exit 2, or 1 when Redis is away."""

    @wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return command(*arguments, **options)
        except (DataError, QueueError) as error:
            fail(str(error))
        except RedisError as error:
            fail(
                f"Redis can't be reached: {error}. Check RESCAN_REDIS and that it runs",
                EXIT_NOT_DONE,
            )

    return run
