"""Quay's tables at a size that hurts: MANIFESTS manifests of BLOBS_EACH blobs, on PostgreSQL.

All blobs are placed. Of the manifests, the first WAITING have no status row and bytes that are a
real document; they are what a backfill finds. The rest are COMPLETED. Every manifest has a config
and a layer of its own, and its other layers come from a pool that many share, as base layers are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from data.manifests import media_types
from data.models import MediaType
from data.proxycache import create_repository, named_id
from tests.benchmarks.site import ORGANIZATION, REPOSITORY, Site, manifest_document, sha256

MANIFESTS = 1_000_000
WAITING = 100_000
BLOBS_EACH = 10
BASE_LAYERS = 50_000
# So many of the waiting manifests share one more layer.
SHARING = (10, 1_000, 100_000)
FILLED = ("manifest", "imagestorage", "imagestorageplacement", "manifestblob")


@dataclass(frozen=True, slots=True)
class LargeTables:
    """Where things lie in the large tables."""

    manifests: int
    waiting_ids: range
    shared: Mapping[int, str]  # how many manifests share it -> digest of the blob

    def blobs_of_single_manifests(self, count: int) -> list[str]:
        """Digests of blobs that one waiting manifest has, spread over all of these."""
        step = max(1, len(self.waiting_ids) // count)
        return [sha256(f"own {each}") for each in self.waiting_ids[::step]][:count]


def build_large_tables(
    site: Site, *, manifests: int = MANIFESTS, waiting: int = WAITING
) -> LargeTables:
    """Fills the tables; a minute or two for a million manifests."""
    with loading(site) as loader:
        first = loader.next_id("manifest")
        last, waiting_ids = first + manifests - 1, range(first, first + waiting)
        with loader.without_indexes_and_triggers():
            own = loader.insert_blobs(manifests, f"'own ' || ({first} + i)")
            config = loader.insert_blobs(manifests, f"'config ' || ({first} + i)")
            base = loader.insert_blobs(BASE_LAYERS, "'base ' || i")
            loader.insert_manifests(first, last, waiting_ids.stop)
            layers = [
                f"{base} + (id * 7 + {n} * 6151) % {BASE_LAYERS}" for n in range(BLOBS_EACH - 2)
            ]
            for blob in (f"{own} + id - {first}", f"{config} + id - {first}", *layers):
                loader.link_blob(first, last, blob)
            shared = {}
            for count in (min(each, waiting) for each in SHARING):
                one = loader.insert_blobs(1, f"'shared by ' || {count}")
                loader.link_blob(first, first + count - 1, str(one))
                shared[count] = sha256(f"shared by {count}")
            loader.insert_completed(waiting_ids.stop, last)
        loader.set_sequences()
    for number in waiting_ids:
        site.store(sha256(f"own {number}"))
    return LargeTables(manifests, waiting_ids, shared)


@contextmanager
def loading(site: Site) -> Iterator[Loader]:
    uri = site.settings.database.uri.get_secret_value()
    named_id(MediaType, media_types.OCI_MANIFEST)  # where this part of the benchmarks is run alone
    with psycopg.connect(uri, autocommit=True) as connection:
        yield Loader(connection, create_repository(ORGANIZATION, REPOSITORY))


def complete_all_but(site: Site, stuck: range) -> None:
    """Every manifest is COMPLETED then, but for these, which have no row."""
    with loading(site) as loader:
        loader.insert_completed(1, loader.next_id("manifest") - 1)
        chosen = f"manifest_id BETWEEN {stuck.start} AND {stuck.stop - 1}"
        loader.run(f"DELETE FROM manifestsecuritystatus WHERE {chosen}")


def digest_sql(name: str) -> str:
    """SQL for the digest of what is called `name`, an SQL expression; `sha256` in site.py."""
    return f"'sha256:' || encode(sha256(convert_to({name}, 'UTF8')), 'hex')"


@dataclass(frozen=True, slots=True)
class Loader:
    """Fills tables by generate_series, on a connection of its own."""

    connection: psycopg.Connection[Any]
    repository_id: int

    def run(self, sql: str) -> list[Any]:
        cursor = self.connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []

    def next_id(self, table: str) -> int:
        return int(self.run(f"SELECT coalesce(max(id), 0) + 1 FROM {table}")[0][0])

    def insert_blobs(self, count: int, name: str) -> int:
        """So many placed blobs with names by `i`, which counts from 0; the first one's id."""
        start, ids = self.next_id("imagestorage"), f"generate_series(0, {count - 1}) s(i)"
        self.run(
            "INSERT INTO imagestorage "
            "(id, uuid, image_size, uploading, cas_path, content_checksum) "
            f"SELECT {start} + i, gen_random_uuid(), 9, true, true, {digest_sql(name)} FROM {ids}"
        )
        self.run(
            "INSERT INTO imagestorageplacement (storage_id, location_id) "
            f"SELECT {start} + i, 1 FROM {ids}"
        )
        return start

    def insert_manifests(self, first: int, last: int, first_completed: int) -> None:
        """Those that wait get a document that names the config and the layer of their own."""
        text = manifest_document("CONFIG", ["OWN"])
        digest, config, own = (digest_sql(f"'{n} ' || i") for n in ("manifest", "config", "own"))
        document = f"replace(replace('{text}', 'CONFIG', {config}), 'OWN', {own})"
        self.run(
            "INSERT INTO manifest (id, repository_id, digest, media_type_id, manifest_bytes) "
            f"SELECT i, {self.repository_id}, {digest}, "
            f"(SELECT id FROM mediatype WHERE name = '{media_types.OCI_MANIFEST}'), "
            f"CASE WHEN i < {first_completed} THEN {document} ELSE '{{}}' END "
            f"FROM generate_series({first}, {last}) s(i)"
        )

    def link_blob(self, first: int, last: int, blob: str) -> None:
        """Gives each of these manifests one more blob, an SQL expression by its `id`."""
        self.run(
            "INSERT INTO manifestblob (repository_id, manifest_id, blob_id) "
            f"SELECT {self.repository_id}, id, {blob} FROM generate_series({first}, {last}) m(id)"
        )

    def insert_completed(self, first: int, last: int) -> None:
        self.run(
            "INSERT INTO manifestsecuritystatus (manifest_id, repository_id, index_status, "
            "error_json, last_indexed, indexer_hash, indexer_version, metadata_json) "
            f"SELECT i, {self.repository_id}, 2, '\"\"', now(), 'benchmark', 4, '{{}}' "
            f"FROM generate_series({first}, {last}) s(i) ON CONFLICT DO NOTHING"
        )

    def set_sequences(self) -> None:
        for table in FILLED:
            sequence = f"pg_get_serial_sequence('{table}', 'id')"
            self.run(f"SELECT setval({sequence}, (SELECT max(id) FROM {table}))")
        self.run("ANALYZE")

    @contextmanager
    def without_indexes_and_triggers(self) -> Iterator[None]:
        """Loads fast: foreign keys are not looked up, and indexes are made once, at the end."""
        tables = ", ".join(f"'{table}'" for table in FILLED)
        indexes = self.run(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
            f"AND tablename IN ({tables}) AND indexname NOT LIKE '%_pkey'"
        )
        self.run("SET session_replication_role = replica")
        self.run("SET maintenance_work_mem = '512MB'")
        for name, _ in indexes:
            self.run(f'DROP INDEX "{name}"')
        yield
        for _, definition in indexes:
            self.run(definition)
