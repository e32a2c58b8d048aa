"""A proxied organisation: its upstream, and what Quay writes when a client pulls through it.

`pull_manifest` does what Quay's proxy model does with the pull of a tag or digest: the manifest
row, `manifestblob` rows with placeholders for config and layers, the children of a list, the tag;
the caller then puts one queue item a layer. In production Quay does this; demo and tests use it
to start where Quay starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from peewee import IntegrityError, ModelSelect, Value

from data.database import transaction
from data.errors import NotFoundError
from data.field_encryption import convert_secret_key, decrypt_field
from data.manifests import Manifest as ParsedManifest
from data.manifests import parse_manifest
from data.models import (
    ImageStorage,
    Manifest,
    ManifestBlob,
    ManifestChild,
    MediaType,
    ProxyCacheConfig,
    Repository,
    RepositoryKind,
    Tag,
    TagKind,
    User,
    Visibility,
    new_uuid,
)
from data.statements import Statement
from data.upstream import Upstream, UpstreamClient, parse_upstream

# What Quay keeps a placed blob for when the organisation's expiry is 0 or NULL.
DEFAULT_KEEP_SECONDS = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxiedRepository:
    """A repository of a proxied organisation, and where it comes from."""

    repository_id: int
    namespace: str
    name: str
    upstream: Upstream
    expiration_seconds: int | None

    @property
    def upstream_repository(self) -> str:
        return self.upstream.repository(self.name)


def load_proxied_repository(repository_id: int, secret_key: str | None) -> ProxiedRepository | None:
    """The repository with its upstream; None when it is gone or its organisation is no proxy.

    `secret_key` is DATABASE_SECRET_KEY. Raises `SecretError` when the credentials can't be read.
    """
    rows = PROXIED_REPOSITORY.rows(repository_id)
    if not rows:
        return None
    _, namespace, name, registry, username, password, insecure, expiration = rows[0]
    upstream = parse_upstream(
        registry,
        username=decrypt(username, secret_key),
        password=decrypt(password, secret_key),
        insecure=bool(insecure),
    )
    return ProxiedRepository(
        repository_id=repository_id,
        namespace=namespace,
        name=name,
        upstream=upstream,
        expiration_seconds=expiration,
    )


def select_proxied_repository(repository_id: int | Value) -> ModelSelect[Repository]:
    return (
        Repository.select(
            Repository.id,
            User.username,
            Repository.name,
            ProxyCacheConfig.upstream_registry,
            ProxyCacheConfig.upstream_registry_username,
            ProxyCacheConfig.upstream_registry_password,
            ProxyCacheConfig.insecure,
            ProxyCacheConfig.expiration_s,
        )
        .join(User, on=(User.id == Repository.namespace_user_id))
        .join(ProxyCacheConfig, on=(ProxyCacheConfig.organization_id == User.id))
        .where(Repository.id == repository_id)
    )


PROXIED_REPOSITORY = Statement(select_proxied_repository)


def decrypt(value: str | None, secret_key: str | None) -> str | None:
    if not value:
        return None
    return decrypt_field(value, convert_secret_key(secret_key or ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledManifest:
    """What a pull wrote: the manifest's id, whether it is new, and its layers' digests."""

    manifest_id: int
    digest: str
    created: bool
    layer_digests: tuple[str, ...]


def pull_manifest(
    repository: ProxiedRepository, reference: str, client: UpstreamClient
) -> PulledManifest:
    """Writes what Quay writes when a client asks for `reference` (a tag or a digest).

    Raises an `UpstreamError` or a `ManifestError`; then nothing was written.
    """
    fetched = client.get_manifest(repository.upstream_repository, reference)
    parsed = parse_manifest(fetched.bytes, fetched.media_type)
    manifest_bytes = fetched.bytes.decode()

    def write() -> tuple[int, bool]:
        manifest_id, created = write_manifest(
            repository.repository_id, fetched.digest, fetched.media_type, manifest_bytes, parsed
        )
        if not reference.startswith("sha256:"):
            write_tag(repository.repository_id, reference, manifest_id)
        return manifest_id, created

    manifest_id, created = transaction(write)
    layers = tuple(dict.fromkeys(layer.digest for layer in parsed.layers)) if created else ()
    return PulledManifest(
        manifest_id=manifest_id, digest=fetched.digest, created=created, layer_digests=layers
    )


def write_manifest(
    repository_id: int, digest: str, media_type: str, manifest_bytes: str, parsed: ParsedManifest
) -> tuple[int, bool]:
    """The row, its blobs and its children; (id, False) when the bytes were there already."""
    existing = Manifest.get_or_none(
        (Manifest.repository_id == repository_id) & (Manifest.digest == digest)
    )
    if existing is not None and existing.manifest_bytes:
        return int(existing.id), False
    if existing is not None:
        update = Manifest.update(manifest_bytes=manifest_bytes)
        update.where(Manifest.id == existing.id).execute()
        manifest_id = int(existing.id)
    else:
        manifest_id = insert_manifest(repository_id, digest, media_type, manifest_bytes, parsed)
    for blob_digest, size in blob_sizes(parsed).items():
        link_blob(repository_id, manifest_id, blob_digest, size)
    for child in parsed.children:
        link_child(repository_id, manifest_id, child.digest, child.media_type)
    return manifest_id, True


def insert_manifest(
    repository_id: int,
    digest: str,
    media_type: str,
    manifest_bytes: str,
    parsed: ParsedManifest | None,
) -> int:
    config_media_type = parsed.config_media_type if parsed else None
    return int(
        Manifest.insert(
            repository_id=repository_id,
            digest=digest,
            media_type_id=named_id(MediaType, media_type),
            manifest_bytes=manifest_bytes,
            config_media_type=config_media_type,
            subject_backfilled=True,
            artifact_type_backfilled=True,
        ).execute()
    )


def blob_sizes(parsed: ParsedManifest) -> dict[str, int | None]:
    """Config and layers with their sizes, in Quay's order."""
    sizes: dict[str, int | None] = {}
    if parsed.config_digest is not None:
        sizes[parsed.config_digest] = parsed.config_size
    for layer in parsed.layers:
        sizes.setdefault(layer.digest, layer.size)
    return sizes


def link_blob(repository_id: int, manifest_id: int, digest: str, size: int | None) -> None:
    blob = ImageStorage.get_or_none(ImageStorage.content_checksum == digest)
    blob_id = (
        int(blob.id)
        if blob is not None
        else int(
            ImageStorage.insert(
                uuid=new_uuid(),
                content_checksum=digest,
                image_size=size,
                uploading=True,
                cas_path=True,
            ).execute()
        )
    )
    ManifestBlob.insert(
        repository_id=repository_id, manifest_id=manifest_id, blob_id=blob_id
    ).on_conflict_ignore().execute()


def link_child(repository_id: int, manifest_id: int, digest: str, media_type: str) -> None:
    """A child that nobody pulled yet is a manifest row without bytes and without blobs."""
    child = Manifest.get_or_none(
        (Manifest.repository_id == repository_id) & (Manifest.digest == digest)
    )
    child_id = (
        int(child.id)
        if child is not None
        else insert_manifest(repository_id, digest, media_type, "", None)
    )
    ManifestChild.insert(
        repository_id=repository_id, manifest_id=manifest_id, child_manifest_id=child_id
    ).on_conflict_ignore().execute()


def write_tag(repository_id: int, name: str, manifest_id: int) -> None:
    """Points the tag at the manifest, ending the life of what it pointed at before."""
    now_ms = int(time.time() * 1000)
    alive = (
        (Tag.repository_id == repository_id) & (Tag.name == name) & Tag.lifetime_end_ms.is_null()
    )
    current = Tag.get_or_none(alive)
    if current is not None and current.manifest_id == manifest_id:
        return
    Tag.update(lifetime_end_ms=now_ms).where(alive).execute()
    Tag.insert(
        name=name,
        repository_id=repository_id,
        manifest_id=manifest_id,
        lifetime_start_ms=now_ms,
        hidden=False,
        reversion=False,
        tag_kind_id=named_id(TagKind, "tag"),
        immutable=False,
    ).execute()


def named_id(model: Callable[..., object] | type, name: str) -> int:
    """The id of the row called `name` in a table of names, made when it is missing."""
    table: type[MediaType] = model  # type: ignore[assignment]
    row = table.get_or_none(table.name == name)
    if row is not None:
        return int(row.id)
    try:
        return int(table.insert(name=name).execute())
    except IntegrityError:
        return int(table.get(table.name == name).id)


def create_proxy_organization(name: str, upstream_registry: str, *, insecure: bool) -> int:
    """An organisation that proxies `upstream_registry`; returns its id. Demo and tests only."""
    organization_id = int(
        User.insert(username=name, email=new_uuid(), organization=True, uuid=new_uuid()).execute()
    )
    ProxyCacheConfig.insert(
        organization_id=organization_id,
        upstream_registry=upstream_registry,
        insecure=insecure,
        expiration_s=86400,
    ).execute()
    return organization_id


def create_repository(namespace: str, name: str) -> int:
    """The repository's id, made when it is missing, as a first pull does."""
    owner = User.get_or_none(User.username == namespace)
    if owner is None:
        raise NotFoundError(f"there is no organisation {namespace}")
    existing = Repository.get_or_none(
        (Repository.namespace_user_id == owner.id) & (Repository.name == name)
    )
    if existing is not None:
        return int(existing.id)
    return int(
        Repository.insert(
            namespace_user_id=owner.id,
            name=name,
            visibility_id=named_id(Visibility, "private"),
            kind_id=named_id(RepositoryKind, "image"),
            badge_token=new_uuid(),
            trust_enabled=False,
            state=0,
        ).execute()
    )
