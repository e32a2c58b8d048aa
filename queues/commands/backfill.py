"""`backfill`: every manifest that is stuck already in a Quay that exists.

In place of the DELETE that operators run by hand: it resets only what is complete and an image,
each just before it is indexed, on a lane of its own, so that a new pull never waits behind it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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
from data.policy import Policy
from data.secscan.status import Reason
from data.sweep import Stuck, find_stuck_images, last_manifest_id, require_proxy_organization
from queues.commands.context import ConfigOption, Context, open_context
from queues.commands.output import JsonOption, console, print_json, reported, say
from queues.rescanqueue import Enqueued
from queues.walkcursor import WalkCursor
from queues.wiring import decide_for

WALKS = (Stuck.UNSUPPORTED, Stuck.NO_ROW)


@dataclass(slots=True)
class Tally:
    """What a backfill found; `policy_off` manifests are stuck too, and left alone."""

    stuck: int = 0
    queued: int = 0
    policy_off: int = 0
    started: float = 0.0  # by the monotonic clock


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
    if organization is not None:
        require_proxy_organization(organization)
    if restart and not dry_run:
        cursor_of(context, organization).clear()
    walk = Walk(context, organization, dry_run=dry_run, rate=rate)
    tally, last = walk.tally, last_manifest_id()
    with Progress(
        TextColumn("looked at"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console(),
        disable=as_json,
    ) as progress:
        task = progress.add_task("backfill", total=last * len(WALKS))
        for number, after in walk.run():
            progress.update(task, completed=number * last + min(after, last))
        progress.update(task, completed=last * len(WALKS))
    if as_json:
        found = {"stuck": tally.stuck, "queued": tally.queued, "policy_off": tally.policy_off}
        print_json(found | {"dry_run": dry_run})
        return
    verb = "would be queued" if dry_run else f"found, {tally.queued:,} queued now"
    say(f"{tally.stuck:,} stuck manifests {verb}.")
    if tally.policy_off:
        say(f"{tally.policy_off:,} more are left alone: RESCAN_POLICY says off.")


@dataclass(frozen=True, slots=True)
class Walk:
    """One backfill over all manifests, a page at a time. `rate` is in manifests a second."""

    context: Context
    organization: str | None
    dry_run: bool
    rate: float | None
    tally: Tally = field(default_factory=Tally)

    def run(self) -> Iterator[tuple[int, int]]:
        """Yields where it is: the number of the walk, and the id up to which it has looked.

        A dry run looks at everything, and leaves a backfill that was cut short where it is.
        """
        self.tally.started = time.monotonic()
        cursor = cursor_of(self.context, self.organization)
        for number, stuck in enumerate(WALKS):
            after = 0 if self.dry_run else cursor.read(stuck.value)
            for page in find_stuck_images(stuck, after=after, namespace=self.organization):
                wanted = [each for each in page.images if not self.is_off(each)]
                self.tally.policy_off += len(page.images) - len(wanted)
                for part in self.in_parts(wanted):
                    self.enqueue(part)
                    yield number, part[-1].completed.manifest_id
                if not self.dry_run:
                    cursor.write(stuck.value, page.after)
                yield number, page.after
        if not self.dry_run:
            cursor.clear()

    def is_off(self, image: SharingManifest) -> bool:
        completed = image.completed
        decision = decide_for(
            self.context.settings, completed.namespace, completed.repository, proxied=True
        )
        return decision.policy is Policy.OFF

    def in_parts(self, images: list[SharingManifest]) -> Iterator[list[SharingManifest]]:
        """All at once, or what a second may have: a page at a time would come in bursts."""
        size = len(images) if self.rate is None else max(1, int(self.rate))
        for start in range(0, len(images), max(1, size)):
            yield images[start : start + size]

    def enqueue(self, images: Sequence[SharingManifest]) -> None:
        self.tally.stuck += len(images)
        if self.dry_run:
            return
        ids = [each.completed.manifest_id for each in images]
        lane, timeout = self.context.backfill, self.context.timeout
        counts = lane.enqueue_rescans(ids, Reason.SWEEP, timeout=timeout)
        self.tally.queued += counts[Enqueued.QUEUED]
        self.slow_down()

    def slow_down(self) -> None:
        """Waits until no more than `rate` a second were found since the start."""
        if self.rate is not None:
            ahead = self.tally.stuck / self.rate - (time.monotonic() - self.tally.started)
            time.sleep(max(0.0, ahead))


def cursor_of(context: Context, organization: str | None) -> WalkCursor:
    suffix = f":{organization}" if organization else ""
    return WalkCursor(context.redis, f"rescan:{context.queue.name}:backfill:cursor{suffix}")
