"""Manifests whose blobs are all placed, in numbers, on any engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from peewee import Model, fn

from data.database import is_mysql
from data.manifests import media_types
from data.models import (
    ImageStorage,
    ImageStorageLocation,
    ImageStoragePlacement,
    Manifest,
    ManifestBlob,
    MediaType,
    database_proxy,
)
from data.proxycache import create_repository, named_id

ROWS_AT_ONCE = 1000


def insert_placed_manifests(
    name: str, *, manifests: int, blobs_each: int, shared: bool = False
) -> None:
    """Blob n has the digest `placed_digest(name, n)`; the manifests have blobs of their own.

    Or, `shared`, all of them the same ones.
    """
    repository_id = create_repository("proxy", name)
    media_type_id = named_id(MediaType, media_types.OCI_MANIFEST)
    location_id = ImageStorageLocation.get(ImageStorageLocation.name == "default").id
    blobs = blobs_each if shared else manifests * blobs_each
    blob, manifest = next_id(ImageStorage), next_id(Manifest)
    with database_proxy.atomic():
        insert(
            ImageStorage,
            ("id", "uuid", "uploading", "cas_path", "content_checksum"),
            ((blob + n, f"{name}-{n}", True, True, placed_digest(name, n)) for n in range(blobs)),
        )
        insert(
            ImageStoragePlacement,
            ("storage_id", "location_id"),
            ((blob + n, location_id) for n in range(blobs)),
        )
        insert(
            Manifest,
            ("id", "repository_id", "digest", "media_type_id", "manifest_bytes"),
            (
                (manifest + n, repository_id, placed_digest(f"of {name}", n), media_type_id, "{}")
                for n in range(manifests)
            ),
        )
        insert(
            ManifestBlob,
            ("repository_id", "manifest_id", "blob_id"),
            (
                (repository_id, manifest + n // blobs_each, blob + n % blobs)
                for n in range(manifests * blobs_each)
            ),
        )
    analyze()


def placed_digest(name: str, number: int) -> str:
    return f"sha256:{hashlib.sha256(f'{name}-{number}'.encode()).hexdigest()}"


def next_id(model: type[Model]) -> int:
    return int(model.select(fn.COALESCE(fn.MAX(model.id), 0)).scalar()) + 1  # type: ignore[attr-defined]


def insert(model: type[Model], columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """By the driver itself: peewee would take longer to write the SQL than it takes to run."""
    database: Any = database_proxy.obj
    values = ", ".join([database.param] * len(columns))
    table = model._meta.table_name
    sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"
    left, cursor = iter(rows), database.connection().cursor()
    while some := list(islice(left, ROWS_AT_ONCE)):
        cursor.executemany(sql, some)


def analyze() -> None:
    """The statistics that each engine comes to by itself in time."""
    tables = ", ".join(
        model._meta.table_name
        for model in (ImageStorage, ImageStoragePlacement, Manifest, ManifestBlob)
    )
    database_proxy.execute_sql(f"ANALYZE TABLE {tables}" if is_mysql() else "ANALYZE")
