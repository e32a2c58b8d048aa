"""The rows of a blob: the blob itself, where its bytes are placed, and what keeps it alive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from peewee import JOIN, ModelSelect

from data.database import transaction
from data.errors import SettingsError
from data.models import (
    ImageStorage,
    ImageStorageLocation,
    ImageStoragePlacement,
    ManifestBlob,
    UploadedBlob,
    utcnow,
)
from data.statements import Statement


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRecord:
    """One `imagestorage` row; old installations may hold several for one digest."""

    id: int
    digest: str
    size: int | None  # bytes, compressed
    locations: tuple[str, ...]  # names of the locations that are said to hold the bytes

    @property
    def placeholder(self) -> bool:
        return not self.locations


def find_blobs(digest: str) -> list[BlobRecord]:
    """Every row of the blob with its placements, by id; empty when nobody has heard of it."""
    return collect_blobs(BLOBS_BY_DIGEST.rows(digest))


def find_blobs_of_manifest(manifest_id: int) -> list[BlobRecord]:
    """The blobs that the manifest's `manifestblob` rows name, config and layers, by id."""
    return collect_blobs(BLOBS_OF_MANIFEST.rows(manifest_id))


def select_blobs() -> ModelSelect[ImageStorage]:
    return (
        ImageStorage.select(
            ImageStorage.id,
            ImageStorage.content_checksum,
            ImageStorage.image_size,
            ImageStorageLocation.name,
        )
        .join(
            ImageStoragePlacement,
            JOIN.LEFT_OUTER,
            on=(ImageStoragePlacement.storage_id == ImageStorage.id),
        )
        .join(
            ImageStorageLocation,
            JOIN.LEFT_OUTER,
            on=(ImageStorageLocation.id == ImageStoragePlacement.location_id),
        )
        .order_by(ImageStorage.id, ImageStorageLocation.id)
    )


BLOBS_BY_DIGEST = Statement(
    lambda digest: select_blobs().where(ImageStorage.content_checksum == digest)
)
BLOBS_OF_MANIFEST = Statement(
    lambda manifest_id: select_blobs().where(
        ImageStorage.id.in_(
            ManifestBlob.select(ManifestBlob.blob_id).where(ManifestBlob.manifest_id == manifest_id)
        )
    )
)


def collect_blobs(rows: Iterable[tuple[Any, ...]]) -> list[BlobRecord]:
    """Folds rows of (id, digest, size, location or None) into one value a blob."""
    sizes: dict[int, tuple[str, int | None]] = {}
    locations: dict[int, list[str]] = {}
    for blob_id, digest, size, location in rows:
        sizes[blob_id] = (digest, size)
        locations.setdefault(blob_id, []).extend([] if location is None else [location])
    return [
        BlobRecord(id=key, digest=digest, size=size, locations=tuple(locations[key]))
        for key, (digest, size) in sizes.items()
    ]


def record_placement(
    digest: str, *, repository_id: int, location: str, size: int, keep_seconds: int
) -> None:
    """Says that `location` holds the blob, and keeps it from Quay's garbage collector for a while.

    One transaction; every row of the digest gets the placement, so that it is placed for each
    manifest that links to any of them. Saying it again changes nothing but the time to live. Raises
    `SettingsError` when Quay's database doesn't know the location.
    """

    def write() -> None:
        location_id = find_location_id(location)
        records = find_blobs(digest)
        for record in records:
            if location not in record.locations:
                insert_placement(record.id, location_id)
            if record.size is None:
                sized = ImageStorage.update(image_size=size)
                sized.where(ImageStorage.id == record.id).execute()
        for record in records[:1]:
            keep_blob(record.id, repository_id, keep_seconds)

    transaction(write)


def insert_placement(blob_id: int, location_id: int) -> None:
    ImageStoragePlacement.insert(
        storage_id=blob_id, location_id=location_id
    ).on_conflict_ignore().execute()


def keep_blob(blob_id: int, repository_id: int, keep_seconds: int) -> None:
    now = utcnow()
    UploadedBlob.insert(
        repository_id=repository_id,
        blob_id=blob_id,
        uploaded_at=now,
        expires_at=now + timedelta(seconds=keep_seconds),
    ).execute()


def find_location_id(name: str) -> int:
    """The id of a storage location; ids differ between installations."""
    rows = LOCATION_IDS.rows(name)
    if not rows:
        raise SettingsError(
            "DISTRIBUTED_STORAGE_PREFERENCE",
            f"Quay's database knows no storage location {name}; "
            "start Quay once with this configuration, or correct the name",
        )
    return int(rows[0][0])


LOCATION_IDS = Statement(
    lambda name: ImageStorageLocation.select(ImageStorageLocation.id).where(
        ImageStorageLocation.name == name
    )
)


def placed_digests(blobs: Iterable[BlobRecord]) -> frozenset[str]:
    """The digests of which at least one row is placed."""
    return frozenset(blob.digest for blob in blobs if not blob.placeholder)
