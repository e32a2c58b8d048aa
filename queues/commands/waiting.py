"""`enqueue --wait`: a live view of what becomes of each rescan, until all have ended."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from data.secscan.rescan import Outcome
from queues.commands.context import Context
from queues.commands.output import console, printable, say
from queues.commands.standstill import standstill
from queues.rescanjob import RescanJob

ENDED = frozenset({"finished", "failed", "canceled", "stopped"})
SCANNED = frozenset({Outcome.COMPLETED.value, Outcome.UP_TO_DATE.value})
LOOK_SECONDS = 0.1
# Rescans that the live view shows; of more it tells the number.
MOST_SHOWN = 12

Answer = dict[str, Any]
"""What `enqueue` says of one manifest; `outcome` is added when it is known."""


def wait_for_outcomes(context: Context, answers: list[Answer], *, quiet: bool) -> bool:
    """Waits until every job has ended; notes each outcome. True if all of them are scanned."""
    waiting = {answer["job_id"]: answer for answer in answers}
    live = None if quiet else Live(console=console(), transient=True)
    if not quiet:
        for line in standstill(context):
            say(line)
    with live or nullcontext():
        while waiting:
            states = look(context, waiting)
            if live is not None:
                live.update(view(context, answers, states))
            if waiting:
                time.sleep(LOOK_SECONDS)
    if not quiet:
        for answer in answers:
            say(f"{answer['job_id']}  {answer['repository']}  {answer['outcome']}")
    return all(answer["outcome"] in SCANNED for answer in answers)


def look(context: Context, waiting: dict[str, Answer]) -> dict[str, str]:
    """The state of each job in words; those that have ended are noted and taken out."""
    states = {}
    for job_id in list(waiting):
        job = RescanJob.fetch_quietly(job_id, context.redis)
        outcome = outcome_of(context, job_id, job)
        if outcome is not None:
            waiting.pop(job_id)["outcome"] = outcome
        elif job is not None:
            states[job_id] = state_of(job)
    return states


def outcome_of(context: Context, job_id: str, job: RescanJob | None) -> str | None:
    """How the job ended; None while it hasn't, or is to run once more for whoever asked last."""
    if context.redis.hexists(context.queue.again_key, job_id):
        return None
    if job is None:
        return Outcome.GONE.value
    status = job.get_status(refresh=False).value
    if status not in ENDED:
        return None
    result = job.return_value()
    return str(result["outcome"]) if isinstance(result, dict) else status


def state_of(job: RescanJob) -> str:
    status = job.get_status(refresh=False).value
    why = str(job.meta.get("waiting_for", ""))
    return f"{status}: {why}" if status == "scheduled" and why else status


def view(context: Context, answers: list[Answer], states: dict[str, str]) -> Group:
    """The rescans that haven't ended first, and what keeps all of them."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("job", "repository", "state"):
        table.add_column(column, overflow="fold")
    in_order = sorted(answers, key=lambda answer: answer["job_id"] not in states)
    for answer in in_order[:MOST_SHOWN]:
        job_id = answer["job_id"]
        state = states.get(job_id) or answer.get("outcome", "")
        cells = (job_id, answer["repository"], state)
        table.add_row(*(Text(printable(str(cell))) for cell in cells))
    left = f"{len(states):,} of {len(answers):,} to go"
    return Group(table, Text(left), *(Text(line) for line in standstill(context)))
