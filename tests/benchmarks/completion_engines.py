"""The completion check on MariaDB and SQLite: as completion.py has it, in smaller tables."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import quantiles

from rich.table import Table

from data.completion import find_manifests_completed_by
from data.database import create_tables, open_database
from data.models import ImageStorageLocation, database_proxy
from data.proxycache import create_proxy_organization
from tests import servers
from tests.benchmarks.completion import (
    BLOBS,
    check_per_blob,
    check_per_manifest,
    once,
    statements_of,
    timed,
)
from tests.placedmanifests import insert_placed_manifests, placed_digest

MANIFESTS = 5000
SHARING = 500
LOOKS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class OnEngine:
    """What was measured on one engine: beside the references at SHARING manifests, and alone."""

    engine: str
    statements: int
    times_faster_than_per_blob: float
    times_faster_than_per_manifest: float
    p99_ms: float  # for a blob that one of MANIFESTS has


def measure(*, rounds: int) -> list[OnEngine]:
    """On MariaDB where it is installed, and on SQLite. Leaves the tables bound to neither."""
    with ExitStack() as stack:
        uris = {"SQLite": stack.enter_context(sqlite())}
        if servers.find_mariadbd():
            uris["MariaDB"] = stack.enter_context(servers.mariadb()).create()
        return [measure_on(engine, uri, rounds) for engine, uri in sorted(uris.items())]


def measure_on(engine: str, uri: str, rounds: int) -> OnEngine:
    open_database(uri)
    create_tables()
    ImageStorageLocation.create(name="default")
    create_proxy_organization("proxy", "upstream.example", insecure=True)
    insert_placed_manifests("own", manifests=MANIFESTS, blobs_each=BLOBS)
    insert_placed_manifests("shared", manifests=SHARING, blobs_each=BLOBS, shared=True)
    shared = placed_digest("shared", 0)
    found = len(find_manifests_completed_by(shared))
    if found != SHARING:
        raise RuntimeError(f"{found} manifests are complete on {engine}, {SHARING} should be")
    ours = timed(lambda: find_manifests_completed_by(shared), rounds)
    looks = [
        once(partial(find_manifests_completed_by, placed_digest("own", n * BLOBS)))
        for n in range(LOOKS)
    ]
    measured = OnEngine(
        engine=engine,
        statements=statements_of(lambda: find_manifests_completed_by(shared)),
        times_faster_than_per_blob=timed(lambda: check_per_blob(shared), rounds) / ours,
        times_faster_than_per_manifest=timed(lambda: check_per_manifest(shared), rounds) / ours,
        p99_ms=quantiles(looks, n=100)[98] * 1000,
    )
    database_proxy.close()
    return measured


@contextmanager
def sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="rescan-bench-sqlite-") as directory:
        yield f"sqlite:///{directory}/quay.db"


def table_of(measured: list[OnEngine]) -> Table:
    table = Table(title=f"Completion check of {SHARING} manifests, {MANIFESTS:,} others beside")
    for column in ("on", "statements", "beside one a blob", "beside two a manifest", "p99 of one"):
        table.add_column(column, justify="left" if column == "on" else "right")
    for each in measured:
        table.add_row(
            each.engine,
            str(each.statements),
            f"{each.times_faster_than_per_blob:.0f} times",
            f"{each.times_faster_than_per_manifest:.0f} times",
            f"{each.p99_ms:.1f} ms",
        )
    return table
