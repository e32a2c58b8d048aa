"""The work item of a proxied blob, as Quay's proxy model writes it and its blob worker reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from data.blob_records import find_blobs_of_manifest
from data.completion import CompletedManifest
from data.digests import parse_digest
from data.errors import DataError
from data.manifest_records import load_manifest
from data.storage import Storage
from queues.errors import InvalidWork
from queues.workqueue import WorkItem, WorkQueue

LARGEST_ID = 2**63 - 1  # what a database takes for an id at most


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobWork:
    """One blob to place, on behalf of one repository."""

    digest: str
    repository_id: int
    namespace: str
    username: str | None = None

    def path(self) -> tuple[str, str, str]:
        return (self.namespace, str(self.repository_id), self.digest)

    def body(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "repo_id": self.repository_id,
            "username": self.username,
            "namespace": self.namespace,
        }


def read_blob_work(item: WorkItem) -> BlobWork:
    """What the item asks for. Raises `InvalidWork` naming what is wrong with it."""
    try:
        body = json.loads(item.body)
    except (ValueError, RecursionError) as error:
        raise InvalidWork(f"queue item {item.id}: its body is no JSON ({error})") from error
    match body:
        case {"digest": str(digest), "repo_id": int(repository_id), "namespace": str(namespace)}:
            pass
        case _:
            raise InvalidWork(f"queue item {item.id}: it lacks a digest, repo_id or namespace")
    if isinstance(repository_id, bool):
        raise InvalidWork(f"queue item {item.id}: repo_id is no number")
    if not 0 < repository_id <= LARGEST_ID:
        raise InvalidWork(f"queue item {item.id}: repo_id is no id of a repository")
    username = body.get("username")
    try:
        parse_digest(digest)
    except DataError as error:
        raise InvalidWork(f"queue item {item.id}: {error}") from error
    return BlobWork(
        digest=digest,
        repository_id=repository_id,
        namespace=namespace,
        username=username if isinstance(username, str) else None,
    )


def ask_for_lost_blobs(queue: WorkQueue, storage: Storage, manifest_id: int) -> list[str]:
    """Queues the blobs of a proxied manifest whose placement is there and whose bytes are gone.

    Returns their digests. A blob that has a live item already gets no other.
    """
    record = load_manifest(manifest_id)
    if record is None or not record.proxied:
        return []
    lost = [
        blob.digest
        for blob in find_blobs_of_manifest(manifest_id)
        if not blob.placeholder and storage.find(blob.digest, blob.locations) is None
    ]
    for digest in lost:
        work = BlobWork(
            digest=digest, repository_id=record.repository_id, namespace=record.namespace
        )
        if not queue.has_live_item(work.path()):
            put_blob_work(queue, work, available_after=0)
    return lost


def ask_for_config(
    queue: WorkQueue, completed: CompletedManifest, *, available_after: float = 0
) -> bool:
    """Queues the config blob that the manifest lacks, unless an item for it is there already."""
    if completed.missing_config is None:
        return False
    work = BlobWork(
        digest=completed.missing_config,
        repository_id=completed.repository_id,
        namespace=completed.namespace,
    )
    if queue.has_item(work.path()):
        return False
    put_blob_work(queue, work, available_after=available_after)
    return True


def put_blob_work(queue: WorkQueue, work: BlobWork, *, available_after: float) -> None:
    """Asks whichever blob worker comes first, Quay's or ours, to place the blob."""
    queue.put(work.path(), work.body(), available_after=available_after)
