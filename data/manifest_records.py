"""A manifest row with the names around it, and how a person's reference leads to one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from peewee import JOIN, ModelSelect

from data.database import fetch_rows
from data.errors import NotFoundError
from data.models import (
    Manifest,
    ManifestChild,
    ManifestSecurityStatus,
    MediaType,
    ProxyCacheConfig,
    Repository,
    Tag,
    User,
)
from data.statements import Statement

REFERENCE = re.compile(
    r"(?P<namespace>[^/:@\s]+)/(?P<repository>[^:@\s]+)"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64})|:(?P<tag>[\w][\w.-]{0,127}))",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRecord:
    """A manifest, its bytes, and where it belongs."""

    manifest_id: int
    repository_id: int
    namespace: str
    repository: str
    digest: str
    media_type: str
    manifest_bytes: str  # empty for a child of a list that nobody pulled yet
    proxied: bool  # its organisation is a proxy cache
    has_status: bool = True  # it had a status row when this was read; True also: not looked

    @property
    def full_repository(self) -> str:
        return f"{self.namespace}/{self.repository}"


def load_manifest(manifest_id: int) -> ManifestRecord | None:
    """The manifest, or None when it was deleted. One SQL statement."""
    return next(iter(read_manifests(MANIFEST_BY_ID.rows(manifest_id))), None)


def find_manifests_by_digest(digest: str) -> list[ManifestRecord]:
    """The same manifest in every repository that holds it, by id. One SQL statement."""
    return read_manifests(MANIFESTS_BY_DIGEST.rows(digest))


def find_children(manifest_id: int) -> list[ManifestRecord]:
    """The children of a manifest list that somebody pulled, by id; none for an image."""
    linked = ManifestChild.select(ManifestChild.child_manifest_id).where(
        ManifestChild.manifest_id == manifest_id
    )
    return load_manifests(Manifest.id.in_(linked) & (Manifest.manifest_bytes != ""))


def load_manifests(condition: Any) -> list[ManifestRecord]:
    query = select_manifests().where(condition).order_by(Manifest.id)
    return read_manifests(fetch_rows(query))


def select_manifests() -> ModelSelect[Manifest]:
    return (
        Manifest.select(
            Manifest.id,
            Manifest.repository_id,
            User.username,
            Repository.name,
            Manifest.digest,
            MediaType.name,
            Manifest.manifest_bytes,
            ProxyCacheConfig.id,
            ManifestSecurityStatus.id,
        )
        .join(MediaType, on=(MediaType.id == Manifest.media_type_id))
        .join_from(Manifest, Repository, on=(Repository.id == Manifest.repository_id))
        .join(User, on=(User.id == Repository.namespace_user_id))
        .join(ProxyCacheConfig, JOIN.LEFT_OUTER, on=(ProxyCacheConfig.organization_id == User.id))
        .join_from(
            Manifest,
            ManifestSecurityStatus,
            JOIN.LEFT_OUTER,
            on=(ManifestSecurityStatus.manifest_id == Manifest.id),
        )
    )


MANIFEST_BY_ID = Statement(lambda manifest_id: select_manifests().where(Manifest.id == manifest_id))
MANIFESTS_BY_DIGEST = Statement(
    lambda digest: select_manifests().where(Manifest.digest == digest).order_by(Manifest.id)
)


def read_manifests(rows: Iterable[tuple[Any, ...]]) -> list[ManifestRecord]:
    return [
        ManifestRecord(
            manifest_id=row[0],
            repository_id=row[1],
            namespace=row[2],
            repository=row[3],
            digest=row[4],
            media_type=row[5],
            manifest_bytes=row[6],
            proxied=row[7] is not None,
            has_status=row[8] is not None,
        )
        for row in rows
    ]


def find_manifest(reference: str) -> ManifestRecord:
    """The manifest that `org/repo:tag` or `org/repo@sha256:..` names.

    Raises `NotFoundError` saying which part of the reference points at nothing.
    """
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise NotFoundError(
            f"{reference!r} is no reference; write org/repo:tag or org/repo@sha256:<64 hex digits>"
        )
    namespace, repository = match["namespace"], match["repository"]
    repository_id = find_repository_id(namespace, repository)
    if match["digest"]:
        in_repository = (Manifest.repository_id == repository_id) & (
            Manifest.digest == match["digest"]
        )
        found = next(iter(load_manifests(in_repository)), None)
    else:
        manifest_id = find_tagged_manifest_id(repository_id, match["tag"])
        found = load_manifest(manifest_id) if manifest_id is not None else None
    if found is None:
        missing = match["digest"] or f"tag {match['tag']}"
        raise NotFoundError(
            f"{namespace}/{repository} has no {missing}; pull it through Quay first"
        )
    return found


def find_repository_id(namespace: str, repository: str) -> int:
    query = (
        Repository.select(Repository.id)
        .join(User, on=(User.id == Repository.namespace_user_id))
        .where((User.username == namespace) & (Repository.name == repository))
    )
    rows = fetch_rows(query)
    if not rows:
        raise NotFoundError(f"Quay has no repository {namespace}/{repository}; check the spelling")
    return int(rows[0][0])


def find_tagged_manifest_id(repository_id: int, tag: str) -> int | None:
    now_ms = int(time.time() * 1000)
    query = (
        Tag.select(Tag.manifest_id)
        .where(
            (Tag.repository_id == repository_id)
            & (Tag.name == tag)
            & (Tag.lifetime_end_ms.is_null() | (Tag.lifetime_end_ms > now_ms))
        )
        .order_by(Tag.lifetime_start_ms.desc())
        .limit(1)
    )
    rows = fetch_rows(query)
    return None if not rows or rows[0][0] is None else int(rows[0][0])
