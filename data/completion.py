"""Which manifests did these blobs complete?

A blob is shared by every repository that uses its digest, so one placement can complete many
manifests at once, none of which the worker that placed it has ever heard of.

Next: queues/rescanqueue.py
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from peewee import JOIN, SQL, Case, ModelSelect, fn

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
from data.statements import StatementOfMany

# A manifest in one of these states has had its say; no blob event resets it (design, rule 4).
SETTLED = (IndexStatus.COMPLETED, IndexStatus.MANIFEST_LAYER_TOO_LARGE)

# In the SQL itself and no parameter: PostgreSQL's plan for all values would take it for something
# that most manifests may have, and look through a small table once for each that shares the blob.
EMPTY = SQL("''")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedManifest:
    """A manifest of a proxied organisation whose layers are all placed."""

    manifest_id: int
    repository_id: int
    namespace: str
    repository: str
    digest: str
    missing_config: str | None = None  # digest of the config blob, while it is a placeholder


@dataclass(frozen=True, slots=True)
class SharingManifest:
    """A manifest that uses the blob, and the digests of its blobs that are still placeholders."""

    completed: CompletedManifest
    media_type: str
    manifest_bytes: str  # empty when nothing is missing: then nobody has to parse it
    missing: frozenset[str]


def find_manifests_completed_by(*digests: str) -> list[CompletedManifest]:
    """The manifests, in every proxied repository, that are complete and use one of the blobs.

    To be called after the placements were committed and outside of a transaction: of two workers
    that place the last two blobs at once, at least the later to commit then sees both. One SQL
    statement, however many manifests share the blobs; those already settled cost one look each.
    """
    if not digests:
        return []
    sharing = group_by_manifest(SHARING_MANIFESTS.rows([(each,) for each in sorted(set(digests))]))
    return [each.completed for each in keep_complete(sharing)]


def keep_complete(sharing: Iterable[SharingManifest]) -> list[SharingManifest]:
    """Those whose layers are placed, each with the digest of its config if that is missing."""
    return [found for each in sharing if (found := when_complete(each)) is not None]


def when_complete(sharing: SharingManifest) -> SharingManifest | None:
    """None unless it lacks nothing but the config, which indexing doesn't need, and foreign layers.

    Those are never placed, so a config that is missing beside them is missing alone.
    """
    if not sharing.missing:
        return sharing
    try:
        manifest = parse_manifest(sharing.manifest_bytes, sharing.media_type)
    except ManifestError:
        return None  # an unreadable manifest is never scannable, so no event can help it
    if not sharing.missing.isdisjoint(manifest.required_layer_digests):
        return None
    config = manifest.config_digest if manifest.config_digest in sharing.missing else None
    return replace(sharing, completed=replace(sharing.completed, missing_config=config))


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
    )
    return SharingManifest(completed, str(media_type), str(manifest_bytes), missing)


def select_sharing_manifests(digests: Sequence[Any]) -> ModelSelect[Manifest]:
    """One row a (manifest, missing blob) for the manifests that may be complete.

    Walks imagestorage_content_checksum -> manifestblob_blob_id -> manifestblob_manifest_id_blob_id
    -> imagestorageplacement_storage_id; nothing here scans a table. The bytes are read only where
    something is missing that may be the config or foreign layers.
    """
    counts = count_missing_blobs(digests).alias("counts")
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
    # Where nothing is missing the blobs are looked up by NULL, which costs nothing: as a condition
    # beside the look-up it would be checked after it.
    incomplete = Case(None, [(counts.c.missing > 0, Manifest.id)])
    lacks_blob = (unplaced.manifest_id == incomplete) & ~fn.EXISTS(placed)
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
            (Manifest.manifest_bytes != EMPTY)
            & ((counts.c.missing <= 1) | Manifest.manifest_bytes.contains('"urls"'))
        )
        .order_by(Manifest.id)
    )


def count_missing_blobs(digests: Sequence[Any]) -> ModelSelect[ManifestBlob]:
    """(manifest_id, missing): placeholders of each unsettled manifest that uses one of the blobs.

    Counted by what is missing: a manifest that uses several of the blobs is met once for each.
    """
    every = ManifestBlob.alias()
    rows_of_blobs = ImageStorage.select(ImageStorage.id).where(
        ImageStorage.content_checksum.in_(digests)
    )
    missing = Case(None, [(ImageStoragePlacement.id.is_null(), every.blob_id)])
    return (
        ManifestBlob.select(ManifestBlob.manifest_id, fn.COUNT(missing.distinct()).alias("missing"))
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
            ManifestBlob.blob_id.in_(rows_of_blobs)
            & (
                ManifestSecurityStatus.id.is_null()
                | ManifestSecurityStatus.index_status.not_in(SETTLED)
            )
        )
        .group_by(ManifestBlob.manifest_id)
    )


SHARING_MANIFESTS = StatementOfMany(select_sharing_manifests)
