"""`enqueue`, `retry` and `cancel`: what a person asks of single manifests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from data.errors import NotFoundError
from data.manifest_records import ManifestRecord, find_children
from data.policy import Policy
from data.secscan.status import Reason
from data.sweep import Stuck, find_stuck_images, require_proxy_organization
from queues.commands.context import ConfigOption, Context, open_context, resolve
from queues.commands.output import EXIT_NOT_DONE, JsonOption, fail, print_json, reported, say
from queues.commands.waiting import wait_for_outcomes
from queues.rescanjob import RescanJob, is_rescan_id, readable
from queues.rescanqueue import Enqueued, RescanQueue, job_id_of, manifest_id_of

WORDS = {
    Enqueued.QUEUED: "queued now",
    Enqueued.WAITING: "was waiting already",
    Enqueued.RUNNING: "is running; it is looked at once more afterwards",
    Enqueued.LEFT_ALONE: "failed a short while ago; left alone",
}

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
        if not answers:
            say("No manifest is stuck there.")
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
    require_proxy_organization(organization)
    for stuck in (Stuck.UNSUPPORTED, Stuck.NO_ROW):
        for page in find_stuck_images(stuck, namespace=organization):
            for image in page.images:
                yield resolve(None, image.completed.manifest_id)


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
    if all_failed:
        wanted = [(lane, list(failed_ids(lane))) for lane in (context.queue, context.backfill)]
    else:
        wanted = [(context.queue, [resolve(reference, manifest_id).manifest_id])]
    queued = sum(
        lane.enqueue_rescans(ids, Reason.MANUAL, timeout=context.timeout)[Enqueued.QUEUED]
        for lane, ids in wanted
    )
    asked = sum(len(ids) for _, ids in wanted)
    if as_json:
        print_json({"asked": asked, "queued": queued})
    else:
        say(f"{queued} of {asked} queued now")


def failed_ids(lane: RescanQueue) -> Iterator[int]:
    """What failed on one lane is tried again there: no pull waits behind a failed backfill."""
    entries: list[Any] = list(lane.connection.zrange(f"rq:failed:{lane.name}", 0, -1))
    for entry in entries:
        text = readable(entry)
        if is_rescan_id(text):
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
        if record.proxied and context.policy(record).policy is not Policy.OFF:
            say(
                "If it is stuck the sweep asks for it again; set RESCAN_POLICY to off to stop that."
            )
    else:
        say(f"{job_id_of(record.manifest_id)} is not waiting (it is: {status})")
    if not canceled:
        raise typer.Exit(EXIT_NOT_DONE)
