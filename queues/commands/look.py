"""`status`, `list`, `show` and `why`: what there is to see, without changing anything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from data.secscan.story import Evidence, Story, tell_story
from queues.commands.context import ConfigOption, Context, open_context, resolve
from queues.commands.output import JsonOption, console, print_json, print_table, reported, say
from queues.commands.standstill import standstill
from queues.rescanjob import RescanJob, readable
from queues.rescanqueue import RescanQueue

WATCH_SECONDS = 1.0


class ListName(StrEnum):
    """The lists of jobs that RQ keeps."""

    QUEUED = "queued"
    STARTED = "started"
    SCHEDULED = "scheduled"
    FAILED = "failed"


@reported
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Until Ctrl-C.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is queued, started, scheduled and failed, and how many workers there are."""
    context = open_context(config)
    if watch:
        watch_status(context, as_json=as_json)
    elif as_json:
        print_json(depths(context))
    else:
        console().print(status_view(context))


def watch_status(context: Context, *, as_json: bool) -> None:
    """A live view, or a line of JSON a second, until Ctrl-C, which is its proper end."""
    with suppress(KeyboardInterrupt):
        if as_json:
            while True:
                print_json(depths(context), in_a_line=True)
                time.sleep(WATCH_SECONDS)
        with Live(status_view(context), console=console(), auto_refresh=False) as live:
            while True:
                time.sleep(WATCH_SECONDS)
                live.update(status_view(context), refresh=True)


def depths(context: Context) -> dict[str, Any]:
    """The main lane's figures, and the backfill's under `backfill`."""
    return asdict(context.queue.depth()) | {"backfill": asdict(context.backfill.depth())}


def status_view(context: Context) -> Group:
    return Group(status_table(context), *(Text(line) for line in standstill(context)))


def status_table(context: Context) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("lane", "queued", "started", "scheduled", "failed", "workers", "oldest"):
        table.add_column(column, justify="left" if column == "lane" else "right")
    for lane in (context.queue, context.backfill):
        depth = lane.depth()
        oldest = depth.oldest_queued_seconds
        table.add_row(
            lane.name,
            *(f"{n:,}" for n in (depth.queued, depth.started, depth.scheduled, depth.failed)),
            str(depth.workers),
            "-" if oldest is None else f"{oldest:.0f} s",
        )
    return table


@reported
def list_jobs(
    name: Annotated[ListName, typer.Argument(metavar="queued|started|scheduled|failed")],
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The jobs of one list, the next to run first."""
    context = open_context(config)
    rows = [
        describe_job(job)
        for lane in (context.queue, context.backfill)
        for job in jobs_of(lane, name, limit)
    ][:limit]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(
            ("job", "what", "why"),
            [(row["job_id"], row["description"], row["why"]) for row in rows],
        )
    else:
        say("No job has failed." if name is ListName.FAILED else f"No job is {name.value}.")


def jobs_of(lane: RescanQueue, name: ListName, limit: int) -> Iterator[RescanJob]:
    for job_id in job_ids_of(lane, name, limit):
        job = RescanJob.fetch_quietly(job_id, lane.connection)
        if job is not None:
            yield job


def job_ids_of(lane: RescanQueue, name: ListName, limit: int) -> list[str]:
    if name is ListName.QUEUED:
        queued = lane.connection.lrange(lane.key, 0, limit - 1)
        return [readable(each) for each in queued]
    key = f"rq:{'wip' if name is ListName.STARTED else name.value}:{lane.name}"
    entries: list[Any] = list(lane.connection.zrange(key, 0, limit - 1))
    return [readable(each).split(":")[0] for each in entries]  # a started one names its execution


def describe_job(job: RescanJob) -> dict[str, str]:
    return {
        "job_id": job.id,
        "lane": job.origin,
        "status": job.get_status(refresh=False).value,
        "description": job.description or "",
        "why": job.failure_reason() or str(job.meta.get("waiting_for", "")),
    }


@reported
def show(
    reference: Annotated[str | None, typer.Argument(metavar="REF")] = None,
    manifest_id: Annotated[int | None, typer.Option("--manifest-id")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The whole story of one manifest, and what will happen next."""
    context = open_context(config, with_database=True)
    evidence = context.evidence(resolve(reference, manifest_id))
    facts = gather_facts(evidence, tell_story(evidence))
    if as_json:
        print_json(facts)
        return
    blobs = facts.pop("blobs")
    print_table(("", ""), [(name, value) for name, value in facts.items() if value != ""])
    if blobs:
        say("")
        print_table(("blob", "bytes", "placed"), [tuple(blob.values()) for blob in blobs])


def gather_facts(evidence: Evidence, story: Story) -> dict[str, Any]:
    record, row, job = evidence.record, evidence.row, evidence.job
    return {
        "manifest": record.manifest_id,
        "repository": record.full_repository,
        "digest": record.digest,
        "standing": story.standing.value,
        "layers placed": f"{story.placed}/{story.total}",
        "in a sentence": story.sentence,
        "next": story.next_step,
        "status row": "none" if row is None else f"{row.status.value} {row.status.name}",
        "indexer hash": row.indexer_hash if row else "",
        "last indexed": f"{row.last_indexed:%Y-%m-%d %H:%M:%S} UTC" if row else "",
        "claimed by": row.claim.job if row and row.claim else "",
        "failures": row.retry_count if row else 0,
        "last error": (row.error if row else "") or (job.error if job else ""),
        "job": f"{job.status} on {job.lane}" if job else "none",
        "attempts": job.attempts if job else 0,
        "job waits for": job.waiting_for if job else "",
        "policy": f"{evidence.policy.policy.value} ({evidence.policy.rule})",
        "blobs": [
            {
                "digest": blob.digest,
                "bytes": blob.size,
                "placed": "missing" if blob.placeholder else ", ".join(blob.locations),
            }
            for blob in evidence.blobs
        ],
    }


@reported
def why(
    reference: Annotated[str | None, typer.Argument(metavar="REF")] = None,
    manifest_id: Annotated[int | None, typer.Option("--manifest-id")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """One sentence: why is this image not scanned?"""
    context = open_context(config, with_database=True)
    record = resolve(reference, manifest_id)
    story = tell_story(context.evidence(record))
    policy = context.policy(record)
    if as_json:
        facts = asdict(story) | {"policy": policy.policy.value, "rule": policy.rule}
        print_json({"manifest_id": record.manifest_id, **facts})
        return
    following = f" Next: {story.next_step}." if story.next_step else ""
    say(f"{record.full_repository}: {story.sentence}.{following}")
    say(f"Policy: {policy.policy.value}, decided by {policy.rule}.")
