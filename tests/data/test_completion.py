"""Which manifests did this blob complete: in every repository, in one statement."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Sequence

import pytest
from psycopg.sql import Literal

from data.blob_records import record_placement
from data.completion import find_manifests_completed_by, select_sharing_manifests
from data.database import connection, is_sqlite
from data.manifests import media_types, parse_manifest
from data.models import (
    ImageStorage,
    ImageStorageLocation,
    Manifest,
    ManifestBlob,
    ManifestSecurityStatus,
    User,
    database_proxy,
)
from data.proxycache import create_proxy_organization, create_repository, write_manifest
from data.secscan.status import IndexStatus
from tests.conftest import ENGINES
from tests.placedmanifests import insert_placed_manifests, placed_digest

OTHER_ENGINES = [each for each in ENGINES if each in ("mariadb", "sqlite")]
pytestmark = pytest.mark.usefixtures("locations")


@pytest.fixture
def locations(database: str) -> str:
    ImageStorageLocation.create(name="default")
    create_proxy_organization("proxy", "upstream.example", insecure=True)
    create_proxy_organization("mirror", "upstream.example", insecure=True)
    User.create(username="plain", organization=True)
    return database


FOREIGN = {
    "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "urls": ["https://example.com/layer"],
}


def digest_of(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def image(
    name: str, layers: Sequence[str], *, foreign: Sequence[str] = (), organization: str = "proxy"
) -> int:
    """A manifest row with placeholders for its config (`<name>-config`) and layers."""
    document = {
        "schemaVersion": 2,
        "config": {
            "mediaType": media_types.OCI_CONFIG,
            "digest": digest_of(f"{name}-config"),
            "size": 1,
        },
        "layers": [
            {"mediaType": "application/x-layer", "digest": digest_of(layer), "size": 1}
            | (FOREIGN if layer in foreign else {})
            for layer in layers
        ],
    }
    text = json.dumps(document)
    manifest_id, _ = write_manifest(
        create_repository(organization, name),
        digest_of(text),
        media_types.OCI_MANIFEST,
        text,
        parse_manifest(text, media_types.OCI_MANIFEST),
    )
    return manifest_id


def place(*names: str) -> None:
    for name in names:
        record_placement(
            digest_of(name), repository_id=1, location="default", size=1, keep_seconds=60
        )


def completed_by(*names: str) -> list[int]:
    digests = [digest_of(name) for name in names]
    return [each.manifest_id for each in find_manifests_completed_by(*digests)]


def test_only_the_last_layer_completes() -> None:
    manifest_id = image("app", ["a", "b"])
    place("app-config", "a")
    assert completed_by("a") == []
    place("b")
    assert completed_by("b") == completed_by("a") == [manifest_id]


def test_config_is_not_needed_and_is_named_when_it_is_missing() -> None:
    manifest_id = image("app", ["a", "b"])
    place("a", "b")
    (completed,) = find_manifests_completed_by(digest_of("b"))
    assert completed.manifest_id == manifest_id
    assert completed.missing_config == digest_of("app-config")
    assert (completed.namespace, completed.repository) == ("proxy", "app")


def test_a_missing_layer_is_no_missing_config() -> None:
    image("app", ["a", "b"])
    place("app-config", "a")
    assert completed_by("a") == []


def test_every_repository_that_shares_the_blob_is_looked_at() -> None:
    first = image("one", ["base", "a"])
    second = image("two", ["base", "b"], organization="mirror")
    place("a", "b", "base")
    assert completed_by("base") == [first, second]
    assert completed_by("a") == [first]


def test_organisations_that_are_no_proxy_are_left_alone() -> None:
    image("one", ["base"], organization="plain")
    place("base")
    assert completed_by("base") == []


def test_foreign_layers_count_as_placed() -> None:
    windows = image("windows", ["f1", "f2", "f3", "own"], foreign=["f1", "f2", "f3"])
    place("own")
    assert completed_by("own") == [windows]


def test_a_foreign_layer_is_never_taken_for_the_config() -> None:
    """Neither is placed; only the config can be fetched, and Quay needs it."""
    image("windows", ["f1", "f2", "own"], foreign=["f1", "f2"])
    place("own")
    (completed,) = find_manifests_completed_by(digest_of("own"))
    assert completed.missing_config == digest_of("windows-config")
    image("nano", ["f1", "base"], foreign=["f1"])
    place("base", "nano-config")
    (completed,) = find_manifests_completed_by(digest_of("base"))
    assert completed.missing_config is None


def test_foreign_layers_do_not_hide_a_missing_one() -> None:
    image("windows", ["f1", "own", "late"], foreign=["f1"])
    place("own")
    assert completed_by("own") == []


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (IndexStatus.MANIFEST_UNSUPPORTED, True),
        (IndexStatus.FAILED, True),
        (IndexStatus.SCAN_RETRIES_EXHAUSTED, True),
        (IndexStatus.PENDING, True),
        (IndexStatus.IN_PROGRESS, True),
        (IndexStatus.COMPLETED, False),
        (IndexStatus.MANIFEST_LAYER_TOO_LARGE, False),
    ],
)
def test_settled_manifests_are_passed_over(status: IndexStatus, found: bool) -> None:
    manifest_id = image("app", ["a"])
    ManifestSecurityStatus.create(
        manifest_id=manifest_id,
        repository_id=1,
        index_status=status,
        indexer_hash="none",
        indexer_version=4,
    )
    place("a")
    assert completed_by("a") == ([manifest_id] if found else [])


def test_child_that_nobody_pulled_is_not_complete() -> None:
    """It has neither bytes nor blob rows; linked to a blob it would still have no bytes."""
    manifest_id = image("app", ["a"])
    Manifest.update(manifest_bytes="").where(Manifest.id == manifest_id).execute()
    place("a", "app-config")
    assert completed_by("a") == []


def test_unreadable_manifest_with_something_missing_is_not_complete() -> None:
    manifest_id = image("app", ["a", "b"])
    Manifest.update(manifest_bytes="not json").where(Manifest.id == manifest_id).execute()
    place("a", "b")
    assert completed_by("a") == []


def test_several_rows_for_one_digest_are_placed_together() -> None:
    """Old installations hold several rows of one blob, each linked by other manifests."""
    first = image("one", ["base"])
    twin = ImageStorage.create(content_checksum=digest_of("base"), image_size=1)
    second = image("two", ["other"])
    ManifestBlob.create(repository_id=2, manifest_id=second, blob_id=twin.id)
    place("other", "two-config", "base")
    assert completed_by("base") == [first, second]


def test_placements_in_several_locations_are_one() -> None:
    manifest_id = image("app", ["a", "b"])
    ImageStorageLocation.create(name="second")
    place("a")
    record_placement(digest_of("a"), repository_id=1, location="second", size=1, keep_seconds=60)
    assert completed_by("a") == []
    place("b")
    assert completed_by("a") == [manifest_id]


def test_one_statement_however_many_manifests(
    count_statements: Callable[[], list[str]],
) -> None:
    for number in range(20):
        image(f"app{number}", ["base", f"own{number}"])
        place(f"own{number}")
    place("base")
    before = len(count_statements())
    assert len(completed_by("base")) == 20
    assert len(count_statements()) - before == 1


def test_several_blobs_are_asked_for_at_once() -> None:
    """A manifest that uses several of them is one, however often it is met."""
    first, second, third = image("one", ["a", "b"]), image("two", ["b", "c"]), image("three", ["d"])
    place("a", "b", "c")
    assert completed_by("a", "b", "c", "d") == [first, second]
    place("d")
    assert completed_by("b", "d", "b") == [first, second, third]
    assert completed_by() == []


def test_manifest_met_by_several_blobs_lacks_what_it_lacks_once() -> None:
    """All but its config is there: that is one missing blob, and not one for each that is there."""
    whole, partial = image("app", ["a", "b", "c"]), image("part", ["a", "b", "late"])
    place("a", "b", "c")
    (completed,) = find_manifests_completed_by(*map(digest_of, "abc"))
    assert completed.manifest_id == whole
    assert completed.missing_config == digest_of("app-config")
    place("part-config")
    assert completed_by("a", "b") == [whole], f"{partial} lacks a layer"


def test_several_blobs_are_one_statement(count_statements: Callable[[], list[str]]) -> None:
    for number in range(5):
        image(f"app{number}", [f"own{number}"])
        place(f"own{number}")
    before = len(count_statements())
    assert len(completed_by(*(f"own{number}" for number in range(5)))) == 5
    assert len(count_statements()) - before == 1


def test_one_of_two_workers_sees_both_last_blobs() -> None:
    """Both place, then both look: the look comes after the commit, so at least one sees both."""
    manifest_id = image("app", ["a", "b"])
    placed = threading.Barrier(2, timeout=60)
    seen: dict[str, list[int]] = {}

    def work(name: str) -> None:
        with connection():
            place(name)
            placed.wait()
            seen[name] = completed_by(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": [manifest_id], "b": [manifest_id]}


LARGE_TABLES = ("manifest", "manifestblob", "imagestorage", "imagestorageplacement")


@pytest.mark.parametrize("blobs", [1, 16])
@pytest.mark.parametrize("database_uri", OTHER_ENGINES, indirect=True)
def test_no_table_is_scanned_on_mysql_and_sqlite(blobs: int) -> None:
    sql, parameters = fill_tables_and_ask(4_000, blobs)
    tables = {alias: table for table, alias in re.findall(r"[`\"](\w+)[`\"] AS [`\"](\w+)", sql)}
    if is_sqlite():  # (.., .., .., "SCAN t1" or "SEARCH t1 USING ..")
        rows = database_proxy.execute_sql(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
        scanned = [row[3].split()[1] for row in rows if row[3].startswith("SCAN ")]
    else:  # (.., .., "t1", .., rows that a look finds, by statistics, ..)
        cursor = database_proxy.execute_sql(f"EXPLAIN {sql}", parameters)
        rows_column = [column[0] for column in cursor.description].index("rows")
        scanned = [row[2] for row in cursor.fetchall() if int(row[rows_column]) > 100]
    assert {tables.get(alias) for alias in scanned}.isdisjoint(LARGE_TABLES)


def fill_tables_and_ask(manifests: int, blobs: int) -> tuple[str, list[object]]:
    """The statement for so many blobs, with tables large enough that a scan would hurt."""
    insert_placed_manifests("filled", manifests=manifests, blobs_each=2)
    digests = [placed_digest("filled", 7 * number) for number in range(blobs)]
    sql, parameters = select_sharing_manifests(digests).sql()
    return sql, parameters


@pytest.mark.parametrize("blobs", [1, 16])
@pytest.mark.parametrize("database_uri", ["postgresql"], indirect=True)
def test_no_table_is_scanned(blobs: int) -> None:
    """The plan on PostgreSQL, with tables large enough that a scan would hurt.

    Also the one that it keeps for all values, once it has seen the statement a few times.
    """
    sql, parameters = fill_tables_and_ask(12_000, blobs)
    plans = {
        "for these values": explain(sql, parameters),
        "for all values": explain_prepared(sql, parameters),
    }
    for plan in plans.values():
        for table in LARGE_TABLES:
            assert f"Seq Scan on {table} " not in plan, plan
        assert "manifest_bytes <> ''" in plan, "how many those are is known from statistics"


def explain(sql: str, parameters: Sequence[object]) -> str:
    cursor = database_proxy.execute_sql(f"EXPLAIN {sql}", parameters)
    return "\n".join(row[0] for row in cursor.fetchall())


def explain_prepared(sql: str, parameters: Sequence[object]) -> str:
    numbers = itertools.count(1)
    text = re.sub("%s", lambda _: f"${next(numbers)}", sql).replace("%%", "%")
    values = ", ".join(Literal(each).as_string() for each in parameters)
    with database_proxy.atomic():
        database_proxy.execute_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        database_proxy.execute_sql(f"PREPARE sharing AS {text}")
        plan = explain(f"EXECUTE sharing({values})".replace("%", "%%"), ())
        database_proxy.execute_sql("DEALLOCATE sharing")
    assert re.search(r"\$\d", plan), "it is the one for all values"
    return plan
