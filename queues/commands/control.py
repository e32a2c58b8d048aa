"""`pause`, `resume` and `drain`: all workers at once, for maintenance and upgrades."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from queues.commands.context import ConfigOption, Context, open_context
from queues.commands.output import EXIT_NOT_DONE, JsonOption, console, print_json, reported, say
from queues.commands.standstill import standstill

LOOK_SECONDS = 0.2


@reported
def pause(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Have all workers of both lanes take no more jobs; it survives their restart."""
    open_context(config).queue.pause()
    answer(as_json, paused=True, words="Paused. Jobs that run are finished; none is taken.")


@reported
def resume(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Let the workers take jobs again."""
    open_context(config).queue.unpause()
    answer(as_json, paused=False, words="Resumed.")


def answer(as_json: bool, *, paused: bool, words: str) -> None:
    if as_json:
        print_json({"paused": paused})
    else:
        say(words)


@reported
def drain(
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait; exit 1 if it takes longer.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until nothing is queued and nothing runs; scheduled jobs are waited for as well."""
    context = open_context(config)
    deadline = None if timeout is None else time.monotonic() + timeout
    first = left = remaining(context)
    if left and not as_json:
        for line in standstill(context):
            say(line)
    with Progress(
        TextColumn("draining"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console(),
        disable=as_json,
    ) as progress:
        task = progress.add_task("drain", total=first)
        while left and (deadline is None or time.monotonic() < deadline):
            progress.update(task, total=max(first, left), completed=max(first, left) - left)
            time.sleep(LOOK_SECONDS)
            left = remaining(context)
        progress.update(task, completed=max(first, left) - left)
    if as_json:
        print_json({"empty": left == 0, "left": left})
    else:
        say("Empty." if left == 0 else f"{left:,} {'job is' if left == 1 else 'jobs are'} left.")
    if left:
        raise typer.Exit(EXIT_NOT_DONE)


def remaining(context: Context) -> int:
    depths = [lane.depth() for lane in (context.queue, context.backfill)]
    return sum(each.queued + each.started + each.scheduled for each in depths)
