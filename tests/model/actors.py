"""Who acts on a manifest: our workers as they are, Quay's as their code does."""

from __future__ import annotations

from collections.abc import Callable

from peewee import IntegrityError

from data.completion import find_manifests_completed_by
from data.database import transaction
from data.errors import DatabaseUnavailable, ScannerError
from data.models import Manifest, ManifestBlob, ManifestSecurityStatus, utcnow
from data.secscan.rescan import Outcome, RescanRequest
from data.secscan.status import IndexStatus, Reason
from queues.errors import ScannerClosed
from queues.rescanqueue import job_id_of
from tests.model.steps import Actor
from tests.model.world import World

Act = Callable[[Actor], None]
LOOKS = 4


def blob_worker(world: World, layer: int) -> Act:
    """Places a layer, then enqueues what that completed."""

    def act(actor: Actor) -> None:
        world.place(world.layers[layer])
        found = find_manifests_completed_by(world.layers[layer])
        world.noticed |= {each.manifest_id for each in found} | world.settled
        for completed in found:
            world.steps.step()
            world.jobs.enqueue(completed.manifest_id, Reason.EVENT)

    return act


def registry(world: World, layer: int) -> Act:
    """Places a layer in a client's request, and tells nobody."""
    return lambda _: world.place(world.layers[layer])


def rescan_worker(world: World) -> Act:
    """Looks for a job a few times; what it leaves, others do."""

    def act(actor: Actor) -> None:
        for _ in range(LOOKS):
            world.steps.step()
            job = world.jobs.take(actor)
            if job is not None:
                rescan(world, actor, *job)

    return act


def rescan(world: World, actor: Actor, manifest_id: int, reason: Reason) -> None:
    request = RescanRequest(manifest_id=manifest_id, reason=reason)
    try:
        indexer = world.indexer(actor, manifest_id)
        result = indexer.index_manifest(request, job_id_of(manifest_id))
        later = result.outcome is Outcome.CLAIMED_ELSEWHERE or not result.final
    except DatabaseUnavailable as error:
        world.wrong.append(f"{actor.name} heard of a conflict: {error}")
        later = True
    except (ScannerError, ScannerClosed):
        later = True
    world.steps.step()  # RQ's end of the job
    world.jobs.end(actor, manifest_id, later=later)


def security_worker_of_ours(world: World) -> Act:
    """The periodic cycle, on each manifest once."""

    def act(actor: Actor) -> None:
        for manifest_id in world.manifests:
            request = RescanRequest(manifest_id=manifest_id, reason=Reason.CYCLE)
            try:
                world.indexer(actor, manifest_id).index_manifest(request, "securityworker-here-1")
            except DatabaseUnavailable as error:
                world.wrong.append(f"{actor.name} heard of a conflict: {error}")
            except (ScannerError, ScannerClosed):
                continue

    return act


def security_worker_of_quay_with_a_stale_look(world: World) -> Act:
    """It saw no config, so it stores -2 without another look: a DELETE, then an INSERT."""

    def act(actor: Actor) -> None:
        manifest_id = world.manifests[0]
        delete = ManifestSecurityStatus.delete()  # type: ignore[misc]
        delete.where(ManifestSecurityStatus.manifest_id == manifest_id).execute()
        insert_as_quay(world, manifest_id, IndexStatus.MANIFEST_UNSUPPORTED, "none")

    return act


def security_worker_of_quay(world: World, *, well: bool) -> Act:
    """Claims by update or insert, calls Clair, and writes what came of it."""

    def act(actor: Actor) -> None:
        manifest_id = world.manifests[0]
        row = ManifestSecurityStatus.get_or_none(ManifestSecurityStatus.manifest_id == manifest_id)
        if row is not None and row.index_status != IndexStatus.FAILED:
            return
        if row is not None:
            update_as_quay(manifest_id, IndexStatus.IN_PROGRESS, "in_progress")
        elif not insert_as_quay(world, manifest_id, IndexStatus.IN_PROGRESS, "in_progress"):
            return
        world.steps.step()  # Clair works
        if well:
            update_as_quay(manifest_id, IndexStatus.COMPLETED, "quay")
        else:
            update_as_quay(
                manifest_id, IndexStatus.FAILED, "api_failure", only_over=IndexStatus.IN_PROGRESS
            )

    return act


def indexer_v2_of_quay(world: World) -> Act:
    """Visits only rows that exist, and indexes those that failed."""

    def act(actor: Actor) -> None:
        rows = ManifestSecurityStatus.select().where(
            ManifestSecurityStatus.manifest_id.in_(world.manifests)
            & (ManifestSecurityStatus.index_status == IndexStatus.FAILED)
        )
        for row in list(rows):
            world.steps.step()  # Clair works
            update_as_quay(row.manifest_id, IndexStatus.COMPLETED, "quay")

    return act


def garbage_collection(world: World) -> Act:
    """Deletes the manifest of the second repository."""

    def act(actor: Actor) -> None:
        manifest_id = world.manifests[1]

        def delete() -> None:
            for table in (ManifestSecurityStatus, ManifestBlob):
                rows = table.delete()  # type: ignore[misc]
                rows.where(table.manifest_id == manifest_id).execute()
            manifest = Manifest.delete()  # type: ignore[misc]
            manifest.where(Manifest.id == manifest_id).execute()

        try:
            transaction(delete)
        except (IntegrityError, DatabaseUnavailable):
            return  # a row came in between; Quay collects it another time

    return act


def person(world: World, reason: Reason) -> Act:
    """`python -m queues enqueue`, with or without --force."""
    return lambda _: world.jobs.enqueue(world.manifests[0], reason)


def insert_as_quay(world: World, manifest_id: int, status: IndexStatus, hash_: str) -> bool:
    """False when the row is there: Quay's worker fails with an integrity error."""
    try:
        ManifestSecurityStatus.insert(
            manifest_id=manifest_id,
            repository_id=world.repositories[world.manifests.index(manifest_id)],
            index_status=status,
            indexer_hash=hash_,
            indexer_version=4,
            last_indexed=utcnow(),
            error_json="{}",
            metadata_json="{}",
        ).execute()
    except IntegrityError:
        return False
    return True


def update_as_quay(
    manifest_id: int, status: IndexStatus, hash_: str, *, only_over: IndexStatus | None = None
) -> None:
    update = ManifestSecurityStatus.update(
        index_status=status, indexer_hash=hash_, last_indexed=utcnow(), metadata_json="{}"
    )
    condition = ManifestSecurityStatus.manifest_id == manifest_id
    if only_over is not None:
        condition &= ManifestSecurityStatus.index_status == only_over
    update.where(condition).execute()
