"""`python -m queues`: the command line. Exit status 0 done, 1 not done, 2 wrong use."""

from __future__ import annotations

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]

from queues.commands.backfill import backfill
from queues.commands.completion import COMPLETE_VARIABLE, completion
from queues.commands.control import drain, pause, resume
from queues.commands.doctor import doctor
from queues.commands.enqueue import cancel, enqueue, retry
from queues.commands.look import list_jobs, show, status, why

app = typer.Typer(
    name="queues",
    help="Rescans of Quay's proxied images: ask for them, look at them, steer them.",
    no_args_is_help=True,
    add_completion=False,  # typer's own would complete every `python`
    pretty_exceptions_enable=False,
)

app.command()(enqueue)
app.command()(status)
app.command("list")(list_jobs)
app.command()(show)
app.command()(why)
app.command()(retry)
app.command()(cancel)
app.command()(pause)
app.command()(resume)
app.command()(drain)
app.command()(backfill)
app.command()(doctor)
app.command()(completion)


def main() -> None:
    completion_init()
    app(prog_name="python -m queues", complete_var=COMPLETE_VARIABLE)


if __name__ == "__main__":
    main()
