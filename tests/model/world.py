"""What the actors act on: one image in two repositories, jobs, Clair, and what happened to them."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

from data.blob_records import record_placement
from data.errors import ScannerFetchFailed, ScannerUnavailable
from data.manifest_records import ManifestRecord
from data.manifests import parse_manifest
from data.models import ImageStorageLocation, Manifest, ManifestSecurityStatus
from data.policy import Policy
from data.proxycache import create_proxy_organization, create_repository, write_manifest
from data.secscan.clair import ClairClient
from data.secscan.indexer import Indexer
from data.secscan.layers import LayerLocation
from data.secscan.reports import IndexReport, ReportState
from data.secscan.status import IndexStatus, Reason, StatusRow
from data.secscan.status_rows import load_row
from data.statements import Statement
from queues.errors import DigestBusy
from tests.model.steps import Actor, Steps

MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
LOCATION = "default"
number = itertools.count(1)


class Answer(Enum):
    """How an index call of ours ends."""

    FINISHED = "finished"
    ERROR = "IndexError"
    NOT_FETCHED = "500, no layer"
    NO_ANSWER = "no answer"


@dataclass(slots=True, kw_only=True)
class Call:
    """An index call of ours, from where it begins to where it ends for its worker."""

    actor: Actor
    manifest_id: int
    refresh: bool


@dataclass(slots=True)
class Jobs:
    """The rescan queue as `queues.rescanqueue` keeps it: one live job a manifest, none lost."""

    queued: dict[int, Reason] = field(default_factory=dict)
    running: dict[int, tuple[Actor, Reason]] = field(default_factory=dict)
    again: dict[int, Reason] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enqueue(self, manifest_id: int, reason: Reason) -> None:
        with self.lock:
            target = self.again if manifest_id in self.running else self.queued
            if STRENGTH[reason] >= STRENGTH[target.get(manifest_id, reason)]:
                target[manifest_id] = reason

    def take(self, actor: Actor) -> tuple[int, Reason] | None:
        """A queued job, or that of a worker which is dead or taken for it."""
        with self.lock:
            for manifest_id, (owner, reason) in self.running.items():
                if owner is not actor and (owner.dead or owner.suspected):
                    self.running[manifest_id] = (actor, reason)
                    return manifest_id, reason
            if not self.queued:
                return None
            manifest_id = next(iter(self.queued))
            reason = self.queued.pop(manifest_id)
            self.running[manifest_id] = (actor, reason)
            return manifest_id, reason

    def end(self, actor: Actor, manifest_id: int, *, later: bool) -> None:
        with self.lock:
            owner, reason = self.running.get(manifest_id, (None, None))
            if owner is not actor or reason is None:
                return  # it was given to another worker meanwhile
            del self.running[manifest_id]
            asked = self.again.pop(manifest_id, None)
            if later or asked is not None:
                self.queued[manifest_id] = asked or reason


# Looked at after every step: one cheap query tells that there is nothing to look at.
ROWS = Statement(
    lambda first, second: (
        ManifestSecurityStatus.select()
        .where(
            (ManifestSecurityStatus.manifest_id == first)
            | (ManifestSecurityStatus.manifest_id == second)
        )
        .order_by(ManifestSecurityStatus.id)
        .tuples()
    )
)
SETTLED = {IndexStatus.COMPLETED, IndexStatus.MANIFEST_LAYER_TOO_LARGE}
STRENGTH = {Reason.SWEEP: 0, Reason.EVENT: 1, Reason.MANUAL: 2, Reason.FORCED: 3}


class World:
    """One image, freshly pulled in two repositories: nothing is placed but what the test places."""

    def __init__(self, steps: Steps, answers: Sequence[Answer], *, gate: bool) -> None:
        self.steps = steps
        self.answers = iter(answers)
        self.with_gate = gate
        self.jobs = Jobs()
        self.calls: list[Call] = []
        self.indexing: dict[str, Actor] = {}
        self.seen: list[tuple[Any, ...]] = []  # the rows as the database has them
        self.rows: dict[int, StatusRow | None] = {}
        self.owners: dict[str, str] = {}  # attempt -> name of the worker that makes it
        self.refreshing: set[tuple[str, int]] = set()  # who indexes what is COMPLETED again
        self.steps_of_a_call = 1
        self.settled: set[int] = set()  # at some time: no event resets these
        self.noticed: set[int] = set()  # found complete by a blob worker, or settled by then
        self.wrong: list[str] = []
        serial = next(number)
        self.config, *self.layers = (digest_of(f"{serial} {part}") for part in range(3))
        self.manifest_bytes = manifest_of(self.config, self.layers)
        self.digest = digest_of(self.manifest_bytes)
        parsed = parse_manifest(self.manifest_bytes, MEDIA_TYPE)
        self.repositories = [create_repository(name, "library/app") for name in ORGANIZATIONS]
        self.manifests = [
            write_manifest(repository, self.digest, MEDIA_TYPE, self.manifest_bytes, parsed)[0]
            for repository in self.repositories
        ]

    @property
    def names(self) -> set[str]:
        return {actor.name for actor in self.steps.actors}

    def place(self, digest: str) -> None:
        record_placement(
            digest,
            repository_id=self.repositories[0],
            location=LOCATION,
            size=10,
            keep_seconds=3600,
        )

    def indexer(self, actor: Actor, manifest_id: int) -> Indexer:
        return Indexer(
            scanner=cast(ClairClient, ActorsClair(self, actor, manifest_id)),
            links=Links(),
            gate=Gate(self, actor),
            decide_policy=immediate,
            on_first_index=lambda _: None,
            max_layer_size=None,
            max_failures=5,
        )

    def watch(self, moved: list[Actor]) -> None:
        """Looks at the rows after each step, and at who can have changed them."""
        seen = ROWS.rows(*self.manifests)
        if seen == self.seen:
            return
        self.seen = seen
        for manifest_id in self.manifests:
            before, now = self.rows.get(manifest_id), load_row(manifest_id)
            self.rows[manifest_id] = now
            if now and now.status in SETTLED:
                self.settled.add(manifest_id)
            if moved and all(actor.ours for actor in moved):
                names = "/".join(actor.name for actor in moved)
                self.wrong += [
                    f"{names} {each}" for each in self.misdeeds(manifest_id, before, now)
                ]

    def misdeeds(
        self, manifest_id: int, before: StatusRow | None, now: StatusRow | None
    ) -> Iterator[str]:
        """What no worker of ours may do to a row. Each signs its word with its name as the hash."""
        old, new = before and before.status, now and now.status
        author = now.indexer_hash if now else ""
        if old is IndexStatus.COMPLETED and new is not old:
            yield f"turned COMPLETED to {new}"
        rewritten = old is IndexStatus.COMPLETED and new is old and before != now
        if rewritten and (author, manifest_id) not in self.refreshing:
            yield f"wrote over a COMPLETED as {author}"
        if new is None and old not in {None, IndexStatus.IN_PROGRESS}:
            yield f"left a gap where {old} was"
        if new is IndexStatus.FAILED and old not in {new, IndexStatus.IN_PROGRESS}:
            yield f"wrote a failure over {old}"
        retaken = old is IndexStatus.IN_PROGRESS and new is old
        if retaken and before and now and job_of(before) != job_of(now):
            yield f"took the live claim of {job_of(before)}"
        if old is IndexStatus.IN_PROGRESS and new in {IndexStatus.COMPLETED, IndexStatus.FAILED}:
            claim = before.claim if before else None
            owner = self.owners.get(claim.attempt, author) if claim else "somebody else"
            if author in self.names and author != owner:
                yield f"wrote the word of {author} over the claim of {owner}"


@dataclass(slots=True)
class Gate:
    """`queues.scannergate` on one machine: one request a digest, of those that live."""

    world: World
    actor: Actor

    @contextmanager
    def enter(self, digest: str, reason: Reason) -> Iterator[None]:
        del reason
        holder = self.world.indexing.get(digest)
        if self.world.with_gate and holder and not (holder.dead or holder.suspected):
            raise DigestBusy(f"{holder.name} indexes it", retry_in=1)
        self.world.indexing[digest] = self.actor
        try:
            yield
        finally:
            if self.world.indexing.get(digest) is self.actor:
                del self.world.indexing[digest]

    def charge(self, digest: str) -> None:
        """The budget plays no part here."""

    def is_manifests_own(self, digest: str) -> bool:
        del digest
        return False


class Links:
    def locate(self, namespace: str, repository: str, digest: str) -> LayerLocation:
        del namespace, repository
        return LayerLocation(digest=digest, uri=f"http://127.0.0.1/{digest}")


@dataclass(slots=True)
class ActorsClair:
    """Clair for one worker: it takes a step, and answers what the test chose."""

    world: World
    actor: Actor
    manifest_id: int

    def index(self, digest: str, layers: Sequence[LayerLocation]) -> IndexReport:
        del layers
        call = self.begin()
        try:
            for _ in range(self.world.steps_of_a_call):
                self.world.steps.step()  # it works for up to 10 minutes
        finally:
            self.world.calls.remove(call)
        match next(self.world.answers, Answer.FINISHED):
            case Answer.NO_ANSWER:
                raise ScannerUnavailable("no answer")
            case Answer.NOT_FETCHED:
                raise ScannerFetchFailed("failed to fetch layers")
            case Answer.ERROR:
                return self.report(digest, ReportState.ERROR)
        return self.report(digest, ReportState.FINISHED)

    def begin(self) -> Call:
        """Notes whom of us it meets at the same manifest; a refresh claims nothing."""
        with self.world.steps.unseen():
            row = load_row(self.manifest_id)
        refresh = row is not None and row.status is IndexStatus.COMPLETED
        if refresh:
            self.world.refreshing.add((self.actor.name, self.manifest_id))
        if row is not None and row.claim is not None:
            self.world.owners.setdefault(row.claim.attempt, self.actor.name)
        call = Call(actor=self.actor, manifest_id=self.manifest_id, refresh=refresh)
        for other in self.world.calls:
            if other.manifest_id != self.manifest_id or other.refresh or refresh:
                continue
            if not (other.actor.dead or other.actor.suspected):
                self.world.wrong.append(f"{self.actor.name} indexes beside {other.actor.name}")
        self.world.calls.append(call)
        return call

    def report(self, digest: str, state: ReportState) -> IndexReport:
        return IndexReport(
            manifest_hash=digest, state=state, err="no tar", indexer_state=self.actor.name
        )


def job_of(row: StatusRow) -> str:
    return row.claim.job if row.claim else "somebody else"


ORGANIZATIONS = ("one", "other")


def immediate(record: ManifestRecord) -> Policy:
    del record
    return Policy.IMMEDIATE


def build_site() -> None:
    """What every world shares."""
    ImageStorageLocation.create(name=LOCATION)
    for name in ORGANIZATIONS:
        create_proxy_organization(name, "upstream.example", insecure=False)


def digest_of(content: str) -> str:
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def manifest_of(config: str, layers: Sequence[str]) -> str:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE,
            "config": {"mediaType": CONFIG, "size": 10, "digest": config},
            "layers": [{"mediaType": LAYER, "size": 10, "digest": each} for each in layers],
        }
    )


def is_gone(manifest_id: int) -> bool:
    return not Manifest.select(Manifest.id).where(Manifest.id == manifest_id).exists()
