"""Which manifests did this blob complete?

A blob is shared by every repository that uses its digest, so one placement can complete many
manifests at once, none of which the worker that placed it has ever heard of.

Next: queues/rescanqueue.py
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from peewee import JOIN, Case, ModelSelect, Value, fn

from data.database import KeyedQuery
from data.errors import ManifestError
from data.manifests import parse_manifest
from data.models import (
    ImageStorage,
    ImageStoragePlacement,
    Manifest,
    ManifestBlob,
    ManifestSecurityStatus,
    MediaType,
    ProxyCacheConfig,
    Repository,
    User,
)
from data.secscan.status import IndexStatus

# A manifest in one of these states has had its say; no blob event resets it (design, rule 4).
SETTLED = (IndexStatus.COMPLETED, IndexStatus.MANIFEST_LAYER_TOO_LARGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedManifest:
    """A manifest of a proxied organisation whose layers are all placed."""

    manifest_id: int
    repository_id: int
    namespace: str
    repository: str
    digest: str
    missing_config: str | None  # digest of the config blob, when it alone is still a placeholder


@dataclass(frozen=True, slots=True)
class SharingManifest:
    """A manifest that uses the blob, and the digests of its blobs that are still placeholders."""

    completed: CompletedManifest
    media_type: str
    manifest_bytes: str  # empty when nothing is missing: then nobody has to parse it
    missing: frozenset[str]


def find_manifests_completed_by(digest: str) -> list[CompletedManifest]:
    """The manifests, in every proxied repository, that are complete and use the blob `digest`.

    To be called after the placement was committed and outside of a transaction: of two workers
    that place the last two blobs at once, at least the later to commit then sees both. One SQL
    statement, however many manifests share the blob; those already settled cost one look each.
    """
    sharing = group_by_manifest(SHARING_MANIFESTS.rows(digest))
    return [each.completed for each in sharing if layers_are_placed(each)]


def layers_are_placed(sharing: SharingManifest) -> bool:
    """Whether all that is missing is the config, which indexing doesn't need, or foreign layers."""
    if not sharing.missing:
        return True
    try:
        manifest = parse_manifest(sharing.manifest_bytes, sharing.media_type)
    except ManifestError:
        return False  # an unreadable manifest is never scannable, so no event can help it
    return sharing.missing.isdisjoint(manifest.required_layer_digests)


def group_by_manifest(rows: Iterable[tuple[object, ...]]) -> list[SharingManifest]:
    """Folds rows of (manifest.., missing blob or None) into one value a manifest."""
    missing: dict[int, set[str]] = defaultdict(set)
    first: dict[int, tuple[object, ...]] = {}
    for row in rows:
        manifest_id, blob = int(str(row[0])), row[-1]
        first.setdefault(manifest_id, row)
        if blob is not None:
            missing[manifest_id].add(str(blob))
    return [sharing_manifest(row, frozenset(missing[key])) for key, row in first.items()]


def sharing_manifest(row: tuple[object, ...], missing: frozenset[str]) -> SharingManifest:
    manifest_id, repository_id, namespace, repository, digest, media_type, manifest_bytes, _ = row
    completed = CompletedManifest(
        manifest_id=int(str(manifest_id)),
        repository_id=int(str(repository_id)),
        namespace=str(namespace),
        repository=str(repository),
        digest=str(digest),
        missing_config=next(iter(missing), None) if len(missing) == 1 else None,
    )
    return SharingManifest(completed, str(media_type), str(manifest_bytes), missing)


def select_sharing_manifests(digest: str | Value) -> ModelSelect[Manifest]:
    """One row a (manifest, missing blob) for the manifests that may be complete.

    Walks imagestorage_content_checksum -> manifestblob_blob_id -> manifestblob_manifest_id_blob_id
    -> imagestorageplacement_storage_id; nothing here scans a table. The bytes are read only where
    something is missing that may be the config or foreign layers.
    """
    counts = count_missing_blobs(digest).alias("counts")
    needed_bytes = Case(None, [(counts.c.missing == 0, "")], Manifest.manifest_bytes)
    return select_candidates(counts, needed_bytes)


def select_candidates(counts: Any, manifest_bytes: Any) -> ModelSelect[Manifest]:
    """The rows that `group_by_manifest` folds, for `counts` of (manifest_id, missing).

    Of manifests that lack nothing, one blob (it may be the config), or foreign layers ("urls").
    """
    unplaced = ManifestBlob.alias()
    placed = ImageStoragePlacement.select().where(
        ImageStoragePlacement.storage_id == unplaced.blob_id
    )
    lacks_blob = (counts.c.missing > 0) & (unplaced.manifest_id == Manifest.id) & ~fn.EXISTS(placed)
    return (
        Manifest.select(
            Manifest.id,
            Manifest.repository_id,
            User.username,
            Repository.name,
            Manifest.digest,
            MediaType.name,
            manifest_bytes,
            ImageStorage.content_checksum,
        )
        .join(counts, on=(counts.c.manifest_id == Manifest.id))
        .join_from(Manifest, MediaType, on=(MediaType.id == Manifest.media_type_id))
        .join_from(Manifest, Repository, on=(Repository.id == Manifest.repository_id))
        .join_from(Repository, User, on=(User.id == Repository.namespace_user_id))
        .join_from(User, ProxyCacheConfig, on=(ProxyCacheConfig.organization_id == User.id))
        .join_from(Manifest, unplaced, JOIN.LEFT_OUTER, on=lacks_blob)
        .join_from(
            unplaced, ImageStorage, JOIN.LEFT_OUTER, on=(ImageStorage.id == unplaced.blob_id)
        )
        .where(
            (Manifest.manifest_bytes != "")
            & ((counts.c.missing <= 1) | Manifest.manifest_bytes.contains('"urls"'))
        )
        .order_by(Manifest.id)
    )


def count_missing_blobs(digest: str | Value) -> ModelSelect[ManifestBlob]:
    """(manifest_id, missing): placeholders of each unsettled manifest that uses the blob."""
    every = ManifestBlob.alias()
    rows_of_blob = ImageStorage.select(ImageStorage.id).where(
        ImageStorage.content_checksum == digest
    )
    is_missing = Case(None, [(ImageStoragePlacement.id.is_null(), 1)], 0)
    return (
        ManifestBlob.select(ManifestBlob.manifest_id, fn.SUM(is_missing).alias("missing"))
        .join(every, on=(every.manifest_id == ManifestBlob.manifest_id))
        .join_from(
            every,
            ImageStoragePlacement,
            JOIN.LEFT_OUTER,
            on=(ImageStoragePlacement.storage_id == every.blob_id),
        )
        .join_from(
            ManifestBlob,
            ManifestSecurityStatus,
            JOIN.LEFT_OUTER,
            on=(ManifestSecurityStatus.manifest_id == ManifestBlob.manifest_id),
        )
        .where(
            ManifestBlob.blob_id.in_(rows_of_blob)
            & (
                ManifestSecurityStatus.id.is_null()
                | ManifestSecurityStatus.index_status.not_in(SETTLED)
            )
        )
        .group_by(ManifestBlob.manifest_id)
    )


SHARING_MANIFESTS = KeyedQuery(select_sharing_manifests)
