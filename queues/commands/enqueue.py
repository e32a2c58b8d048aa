"""`enqueue`, `retry` and `cancel`: what a person asks of single manifests."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.text import Text
from rq.utils import as_text

from data.errors import NotFoundError
from data.manifest_records import ManifestRecord, find_children
from data.secscan.status import Reason
from data.sweep import Stuck, find_complete, last_manifest_id, next_page
from queues.commands.context import ConfigOption, Context, open_context, resolve
from queues.commands.output import (
    EXIT_NOT_DONE,
    JsonOption,
    console,
    fail,
    print_json,
    reported,
    say,
)
from queues.rescanjob import RescanJob
from queues.rescanqueue import Enqueued, job_id_of, manifest_id_of

WORDS = {
    Enqueued.QUEUED: "queued now",
    Enqueued.WAITING: "was waiting already",
    Enqueued.RUNNING: "is running; it is looked at once more afterwards",
    Enqueued.LEFT_ALONE: "failed a short while ago; left alone",
}
ENDED = frozenset({"finished", "failed", "canceled", "stopped"})
LOOK_SECONDS = 0.1

References = Annotated[
    list[str] | None,
    typer.Argument(metavar="REF..", help="org/repo:tag or org/repo@sha256:..; - reads them."),
]
ManifestIds = Annotated[
    list[int] | None, typer.Option("--manifest-id", help="A manifest by its id in Quay.")
]


@reported
def enqueue(
    references: References = None,
    manifest_ids: ManifestIds = None,
    organization: Annotated[
        str | None, typer.Option("--org", help="All stuck manifests of this organisation.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what is COMPLETED, or has a layer too large.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until the outcome is known.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have manifests rescanned now; works for every repository, proxied or not."""
    context = open_context(config, with_database=True)
    records = list(choose(references, manifest_ids, organization))
    reason = Reason.FORCED if force else Reason.MANUAL
    answers = [ask(context, record, reason) for record in records]
    if not as_json:
        for answer in answers:
            say(f"{answer['job_id']}  {answer['repository']}  {answer['words']}")
    ok = wait_for_outcomes(context, answers, quiet=as_json) if wait else True
    if as_json:
        print_json(answers)
    if not ok:
        raise typer.Exit(EXIT_NOT_DONE)


def choose(
    references: list[str] | None, manifest_ids: list[int] | None, organization: str | None
) -> Iterator[ManifestRecord]:
    """Every manifest that was named; of a list its pulled children. One not found ends it all."""
    named = [each for each in references or [] if each != "-"]
    if "-" in (references or []):
        named += [line.strip() for line in sys.stdin if line.strip()]
    if not named and not manifest_ids and organization is None:
        raise NotFoundError("name a manifest: org/repo:tag, org/repo@sha256:.. or --manifest-id N")
    found = [resolve(each, None) for each in named]
    found += [resolve(None, each) for each in manifest_ids or []]
    for record in found:
        yield from find_children(record.manifest_id) or [record]
    if organization is not None:
        yield from stuck_of(organization)


def stuck_of(organization: str) -> Iterator[ManifestRecord]:
    last = last_manifest_id()
    for stuck in (Stuck.UNSUPPORTED, Stuck.NO_ROW):
        after = 0
        while after < last:
            page = next_page(stuck, after, namespace=organization)
            after = page.after
            for complete in find_complete(page.manifest_ids):
                yield resolve(None, complete.completed.manifest_id)


def ask(context: Context, record: ManifestRecord, reason: Reason) -> dict[str, Any]:
    enqueued = context.queue.enqueue_rescan(record.manifest_id, reason, timeout=context.timeout)
    return {
        "job_id": job_id_of(record.manifest_id),
        "manifest_id": record.manifest_id,
        "repository": record.full_repository,
        "digest": record.digest,
        "enqueued": enqueued.name.lower(),
        "words": WORDS[enqueued],
    }


def wait_for_outcomes(context: Context, answers: list[dict[str, Any]], *, quiet: bool) -> bool:
    """Waits until every job has ended; notes each outcome. True if all of them are scanned."""
    waiting = {answer["job_id"]: answer for answer in answers}
    live = Live(console=console(), transient=True) if not quiet else None
    with live or nullcontext():
        while waiting:
            for job_id in list(waiting):
                outcome = outcome_of(context, job_id)
                if outcome is not None:
                    waiting.pop(job_id)["outcome"] = outcome
            if live is not None:
                live.update(Text(f"waiting for {len(waiting)} of {len(answers)} rescans"))
            if waiting:
                time.sleep(LOOK_SECONDS)
    if not quiet:
        for answer in answers:
            say(f"{answer['job_id']}  {answer['outcome']}")
    return all(answer["outcome"] in {"completed", "up_to_date"} for answer in answers)


def outcome_of(context: Context, job_id: str) -> str | None:
    """How the job ended; None while it hasn't."""
    job = RescanJob.fetch_quietly(job_id, context.redis)
    if job is None:
        return "gone"
    status = job.get_status(refresh=False).value
    if status not in ENDED:
        return None
    result = job.return_value()
    return str(result["outcome"]) if isinstance(result, dict) else status


@reported
def retry(
    reference: Annotated[str | None, typer.Argument(metavar="REF")] = None,
    manifest_id: Annotated[int | None, typer.Option("--manifest-id")] = None,
    all_failed: Annotated[
        bool, typer.Option("--all-failed", help="Every job that failed, poison too.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run failed rescans once more."""
    if all_failed == (reference is not None or manifest_id is not None):
        fail("name one manifest, or --all-failed")
    context = open_context(config, with_database=not all_failed)
    ids = list(failed_ids(context)) if all_failed else [resolve(reference, manifest_id).manifest_id]
    counts = context.queue.enqueue_rescans(ids, Reason.MANUAL, timeout=context.timeout)
    queued = counts[Enqueued.QUEUED]
    if as_json:
        print_json({"asked": len(ids), "queued": queued})
    else:
        say(f"{queued} of {len(ids)} queued now")


def failed_ids(context: Context) -> Iterable[int]:
    for lane in (context.queue, context.backfill):
        entries: list[Any] = list(context.redis.zrange(f"rq:failed:{lane.name}", 0, -1))
        for entry in entries:
            text = as_text(entry)
            if text.removeprefix("rescan-").isdigit():
                yield manifest_id_of(text)


@reported
def cancel(
    reference: Annotated[str | None, typer.Argument(metavar="REF")] = None,
    manifest_id: Annotated[int | None, typer.Option("--manifest-id")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a waiting rescan off the queue; one that runs is left alone."""
    context = open_context(config, with_database=True)
    record = resolve(reference, manifest_id)
    job = RescanJob.fetch_quietly(job_id_of(record.manifest_id), context.redis)
    status = job.get_status(refresh=False).value if job else "none"
    canceled = job is not None and status in {"queued", "scheduled"}
    if job is not None and canceled:
        job.cancel()
    if as_json:
        print_json({"job_id": job_id_of(record.manifest_id), "canceled": canceled, "was": status})
    elif canceled:
        say(f"{job_id_of(record.manifest_id)} is canceled")
    else:
        say(f"{job_id_of(record.manifest_id)} is not waiting (it is: {status})")
    if not canceled:
        raise typer.Exit(EXIT_NOT_DONE)
