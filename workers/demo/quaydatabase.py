"""An embedded Quay: its tables on SQLite, and the parts of Quay that a pull meets.

The registry and the security worker are played as Quay's own code does them (quay-facts: what Quay
does with a proxied pull); the pipeline's own workers are real and run elsewhere.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from data.blob_records import find_blobs_of_manifest, record_placement
from data.database import create_tables, fetch_rows, open_database, transaction
from data.manifest_records import load_manifest
from data.manifests import parse_manifest
from data.models import (
    ImageStorageLocation,
    ManifestSecurityStatus,
    QueueItem,
    RepositoryKind,
    TagKind,
    Visibility,
    new_uuid,
    utcnow,
)
from data.proxycache import create_proxy_organization
from data.secscan.status import INDEXER_VERSION, IndexStatus
from data.storage import BlobStore
from workers.demo.images import BlobSource

LOCATION = "default"
KEEP_SECONDS = 3600


def create_quay(path: Path, upstream: str, organizations: tuple[str, ...]) -> str:
    """A fresh Quay at `path` with these organisations as proxies of `upstream`; its DB_URI."""
    uri = f"sqlite:///{path}"
    open_database(uri)
    create_tables()
    ImageStorageLocation.create(name=LOCATION)
    Visibility.create(name="private")
    RepositoryKind.create(name="image")
    TagKind.create(name="tag")
    for name in organizations:
        create_proxy_organization(name, upstream, insecure=True)
    return uri


def security_worker_passes(manifest_id: int) -> None:
    """Quay's security worker: -2 for what is no image and for one whose config it can't read.

    With the config at hand it would call Clair, layers or not. No pull of the demo is that far
    when it comes by, so that isn't played, and nothing is written then.
    """
    manifest = load_manifest(manifest_id)
    assert manifest is not None
    parsed = parse_manifest(manifest.manifest_bytes, manifest.media_type)
    blobs = {blob.digest: blob for blob in find_blobs_of_manifest(manifest_id)}
    config = blobs.get(parsed.config_digest or "")
    if parsed.unscannable is None and config is not None and not config.placeholder:
        return

    def replace_row() -> None:
        delete = ManifestSecurityStatus.delete()  # type: ignore[misc]
        delete.where(ManifestSecurityStatus.manifest_id == manifest_id).execute()
        ManifestSecurityStatus.insert(
            manifest_id=manifest_id,
            repository_id=manifest.repository_id,
            index_status=IndexStatus.MANIFEST_UNSUPPORTED,
            error_json="{}",
            last_indexed=utcnow(),
            indexer_hash="none",
            indexer_version=INDEXER_VERSION,
            metadata_json="{}",
        ).execute()

    transaction(replace_row)


def registry_places_blob(
    store: BlobStore, repository_id: int, digest: str, blob: BlobSource
) -> None:
    """What Quay's registry does when a client asks for a proxied blob: store it, place it."""
    size = 0
    with store.open_write(digest) as writer:
        for piece in blob.pieces():
            writer.write(piece)
            size += len(piece)
        writer.commit()
    record_placement(
        digest,
        repository_id=repository_id,
        location=store.location,
        size=size,
        keep_seconds=KEEP_SECONDS,
    )


def make_items_available() -> None:
    """Quay's items wait 5 s after a pull; the demo doesn't make its audience wait as well."""

    def advance() -> None:
        for (item_id,) in fetch_rows(QueueItem.select(QueueItem.id)):
            changed = QueueItem.update(available_after=utcnow(), state_id=new_uuid())
            changed.where(QueueItem.id == item_id).execute()

    transaction(advance)  # the workers write already, and would end a read that is to be a write


def status_of(manifest_id: int) -> int | None:
    row = ManifestSecurityStatus.get_or_none(ManifestSecurityStatus.manifest_id == manifest_id)
    return None if row is None else int(row.index_status)


def count_items_due(seconds: float) -> int:
    """Items in a worker's hands, or to be taken within so many seconds: not those given back."""
    soon = utcnow() + timedelta(seconds=seconds)
    claimed = ~QueueItem.available
    due = QueueItem.available & (QueueItem.available_after <= soon)
    return int(
        QueueItem.select().where(claimed | (due & (QueueItem.retries_remaining > 0))).count()
    )
