"""`backfill`: every manifest that is stuck already in a Quay that exists.

In place of the DELETE that operators run by hand: it resets only what is complete and an image,
each just before it is indexed, on a lane of its own, so that a new pull never waits behind it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from data.completion import SharingManifest
from data.errors import ManifestError
from data.manifests import parse_manifest
from data.secscan.status import Reason
from data.sweep import Stuck, find_complete, last_manifest_id, next_page
from queues.commands.context import ConfigOption, Context, open_context
from queues.commands.output import JsonOption, console, print_json, reported, say
from queues.rescanqueue import Enqueued

WALKS = (Stuck.UNSUPPORTED, Stuck.NO_ROW)


@dataclass(slots=True)
class Tally:
    """What a backfill found."""

    stuck: int = 0
    queued: int = 0
    started: float = field(default_factory=time.monotonic)


@reported
def backfill(
    organization: Annotated[
        str | None, typer.Option("--org", help="Only this organisation.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and enqueue nothing.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Manifests a second, at most.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="From the beginning, not where the last one ended.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enqueue every manifest that is stuck already. Ctrl-C, and run it again: it goes on."""
    context = open_context(config, with_database=True)
    if restart or dry_run:
        context.redis.delete(cursor_key(context, organization))
    tally, last = Tally(), last_manifest_id()
    with Progress(
        TextColumn("looked at"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console(),
        disable=as_json,
    ) as progress:
        task = progress.add_task("backfill", total=last * len(WALKS))
        for looked_at in run(context, organization, last, tally, dry_run=dry_run, rate=rate):
            progress.update(task, completed=looked_at)
    if as_json:
        print_json({"stuck": tally.stuck, "queued": tally.queued, "dry_run": dry_run})
    else:
        verb = "would be queued" if dry_run else f"found, {tally.queued:,} queued now"
        say(f"{tally.stuck:,} stuck manifests {verb}.")


def run(
    context: Context,
    organization: str | None,
    last: int,
    tally: Tally,
    *,
    dry_run: bool,
    rate: float | None,
) -> Iterator[int]:
    """Page after page; yields how many ids were looked at, over both walks."""
    key = cursor_key(context, organization)
    for number, stuck in enumerate(WALKS):
        after = int(context.redis.hget(key, stuck.value) or 0)
        while after < last:
            page = next_page(stuck, after, namespace=organization)
            images = [each for each in find_complete(page.manifest_ids) if is_image(each)]
            tally.stuck += len(images)
            if not dry_run:
                tally.queued += enqueue(context, images)
                context.redis.hset(key, stuck.value, page.after)
                slow_down(tally, rate)
            after = page.after
            yield number * last + min(after, last)
    context.redis.delete(key)


def enqueue(context: Context, images: list[SharingManifest]) -> int:
    ids = [each.completed.manifest_id for each in images]
    counts = context.backfill.enqueue_rescans(ids, Reason.SWEEP, timeout=context.timeout)
    return counts[Enqueued.QUEUED]


def is_image(complete: SharingManifest) -> bool:
    try:
        manifest = parse_manifest(complete.manifest_bytes, complete.media_type)
    except ManifestError:
        return False
    return manifest.unscannable is None


def slow_down(tally: Tally, rate: float | None) -> None:
    """Waits until no more than `rate` a second were found since the start."""
    if rate is not None:
        ahead = tally.stuck / rate - (time.monotonic() - tally.started)
        time.sleep(max(0.0, ahead))


def cursor_key(context: Context, organization: str | None) -> str:
    suffix = f":{organization}" if organization else ""
    return f"rescan:{context.queue.name}:backfill:cursor{suffix}"
