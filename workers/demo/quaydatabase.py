"""An embedded Quay: its tables on SQLite, and the parts of Quay that a pull meets.

The registry and the security worker are played as Quay's own code does them (quay-facts: what Quay
does with a proxied pull); the pipeline's own workers are real and run elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from data.blob_records import record_placement
from data.database import create_tables, open_database, transaction
from data.models import (
    ImageStorageLocation,
    Manifest,
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
    """Quay's security worker on a manifest whose config it can't read: -2, whatever was there."""

    def replace_row() -> None:
        manifest = Manifest.get_by_id(manifest_id)
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
    for item in QueueItem.select(QueueItem.id):
        changed = QueueItem.update(available_after=utcnow(), state_id=new_uuid())
        changed.where(QueueItem.id == item.id).execute()


def status_of(manifest_id: int) -> int | None:
    row = ManifestSecurityStatus.get_or_none(ManifestSecurityStatus.manifest_id == manifest_id)
    return None if row is None else int(row.index_status)


def count_items() -> int:
    return int(QueueItem.select().count())
