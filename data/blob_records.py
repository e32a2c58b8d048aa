"""The rows of a blob: the blob itself, where its bytes are placed, and what keeps it alive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from data.statements import Statement, StatementOfMany


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
    return find_blobs_of_digests([digest])[digest]


def find_blobs_of_digests(digests: Iterable[str]) -> Mapping[str, list[BlobRecord]]:
    """As `find_blobs` for each digest, in one statement; the list of an unknown one is empty."""
    wanted = list(dict.fromkeys(digests))
    found: dict[str, list[BlobRecord]] = {digest: [] for digest in wanted}
    if wanted:
        for blob in collect_blobs(BLOBS_BY_DIGEST.rows([(digest,) for digest in wanted])):
            found.setdefault(blob.digest, []).append(blob)  # MySQL finds other cases of it, too
    return found


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


BLOBS_BY_DIGEST = StatementOfMany(
    lambda digests: select_blobs().where(ImageStorage.content_checksum.in_(digests))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPlacement:
    """A blob whose bytes a location holds now, and which is to be kept for a while."""

    digest: str
    repository_id: int  # on whose behalf it was fetched
    location: str
    size: int  # bytes
    keep_seconds: int


def record_placements(placements: Sequence[NewPlacement]) -> None:
    """Says of each location that it holds the blob, and keeps it from Quay's garbage collector.

    One transaction; every row of a digest gets the placement, so that it is placed for each
    manifest that links to any of them. Saying it again changes nothing but the time to live. Raises
    `SettingsError` when Quay's database doesn't know a location; then nothing is said of any.
    """

    def write() -> None:
        blobs = find_blobs_of_digests(each.digest for each in placements)
        insert_placements(placements, blobs)
        for each in placements:
            for blob in blobs[each.digest]:
                if blob.size is None:
                    sized = ImageStorage.update(image_size=each.size)
                    sized.where(ImageStorage.id == blob.id).execute()
        keep_blobs(placements, blobs)

    if placements:
        transaction(write)


def record_placement(
    digest: str, *, repository_id: int, location: str, size: int, keep_seconds: int
) -> None:
    """As `record_placements` for one."""
    record_placements(
        [
            NewPlacement(
                digest=digest,
                repository_id=repository_id,
                location=location,
                size=size,
                keep_seconds=keep_seconds,
            )
        ]
    )


def insert_placements(
    placements: Sequence[NewPlacement], blobs: Mapping[str, list[BlobRecord]]
) -> None:
    """In the order of the blobs, so that of two transactions none waits for the other in turn."""
    ids = {name: find_location_id(name) for name in {each.location for each in placements}}
    missing = {
        (blob.id, ids[each.location])
        for each in placements
        for blob in blobs[each.digest]
        if each.location not in blob.locations
    }
    if missing:
        INSERT_PLACEMENTS.run(sorted(missing))


INSERT_PLACEMENTS = StatementOfMany(
    lambda blob_ids, location_ids: ImageStoragePlacement.insert_many(
        list(zip(blob_ids, location_ids, strict=True)),
        fields=[ImageStoragePlacement.storage_id, ImageStoragePlacement.location_id],
    ).on_conflict_ignore(),
    columns=2,
)


def keep_blobs(placements: Sequence[NewPlacement], blobs: Mapping[str, list[BlobRecord]]) -> None:
    now = utcnow()
    links = [
        (each.repository_id, blob.id, now + timedelta(seconds=each.keep_seconds))
        for each in placements
        for blob in blobs[each.digest][:1]
    ]
    if links:
        INSERT_UPLOADED.run(links, now)


INSERT_UPLOADED = StatementOfMany(
    lambda repository_ids, blob_ids, expirations, now: UploadedBlob.insert_many(
        [
            (repository_id, blob_id, now, expires_at)
            for repository_id, blob_id, expires_at in zip(
                repository_ids, blob_ids, expirations, strict=True
            )
        ],
        fields=[
            UploadedBlob.repository_id,
            UploadedBlob.blob_id,
            UploadedBlob.uploaded_at,
            UploadedBlob.expires_at,
        ],
    ),
    columns=3,
    each_number=True,
)


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
