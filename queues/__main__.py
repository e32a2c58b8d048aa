"""`python -m queues`: the command line. Exit status 0 done, 1 not done, 2 wrong use."""

from __future__ import annotations

import typer

from queues.commands.backfill import backfill
from queues.commands.control import drain, pause, resume
from queues.commands.doctor import doctor
from queues.commands.enqueue import cancel, enqueue, retry
from queues.commands.look import list_jobs, show, status, why

app = typer.Typer(
    name="queues",
    help="Rescans of Quay's proxied images: ask for them, look at them, steer them.",
    no_args_is_help=True,
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


def main() -> None:
    app(prog_name="python -m queues")


if __name__ == "__main__":
    main()
