"""Redis, the database or the disk fail under the workers, in the middle of their work."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests import servers
from tests.conftest import ENGINES, bound_database
from tests.faults.site import Site, Worker, site
from tests.servers import CrashingValkey, wait_until
from workers.demo.sampleimages import alpine_image
from workers.demo.scannerfaults import Held

IN_FLIGHT = 2
IMAGES = 5
WORKERS: dict[str, Any] = {"RESCAN_WORKERS": ["rescan", "sweep"], "RESCAN_SWEEP_INTERVAL": 1}


def begin_work(
    running: Site, program: str = "workers", **config: Any
) -> tuple[Worker, Held, dict[str, int]]:
    """Two manifests are with Clair, held there, and three wait in the queue."""
    held = Held()
    running.quay.scanner.faults.add(held, times=IN_FLIGHT)
    manifests = {}
    for number in range(IMAGES):
        image, pulled = running.pull(f"image-{number}")
        running.enqueue(pulled.manifest_id)
        manifests[image.digest] = pulled.manifest_id
    worker = running.start(program, RESCAN_MAX_CONCURRENT_INDEXES=IN_FLIGHT, **config)
    assert running.quay.scanner.requests.wait_for(lambda all_: len(all_) == IN_FLIGHT, 20)
    return worker, held, manifests


def all_end_completed(running: Site, manifests: dict[str, int]) -> None:
    wait_until(
        lambda: all(running.is_completed(each) for each in manifests.values()),
        40,
        "all are completed",
    )
    calls = [len(running.quay.scanner.requests.of(digest)) for digest in manifests]
    assert sum(calls) <= IMAGES + IN_FLIGHT, "at most one call too many for each in flight"
    assert max(calls) <= 2


def test_redis_that_loses_everything_costs_nothing_but_a_sweep(
    sqlite_database: str, redis: Redis, tmp_path: Path
) -> None:
    with site(sqlite_database, redis, tmp_path / "site") as running:
        _, held, manifests = begin_work(running, **WORKERS)
        redis.flushall()
        held.release()
        all_end_completed(running, manifests)
        wait_until(
            lambda: redis.scard("rq:workers:rescan") == IN_FLIGHT, 20, "workers are known again"
        )


@pytest.mark.parametrize("persistent", [True, False], ids=["persistent", "forgetful"])
def test_redis_is_restarted_in_the_middle_of_the_work(
    sqlite_database: str, tmp_path: Path, persistent: bool
) -> None:
    """One that wrote everything down brings the queue back; else the sweep finds the manifests."""
    directory = tmp_path / "valkey"
    directory.mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(CrashingValkey(directory, persistent=persistent))
        redis = stack.enter_context(Redis(port=server.port))
        running = stack.enter_context(site(sqlite_database, redis, tmp_path / "site"))
        without_sweep: dict[str, Any] = {"RESCAN_WORKERS": ["rescan"]}
        _, held, manifests = begin_work(running, **(without_sweep if persistent else WORKERS))
        server.crash()
        held.release()
        server.start()
        all_end_completed(running, manifests)


SERVERS = {"postgresql": servers.postgresql, "mariadb": servers.mariadb}


@pytest.mark.parametrize("server", [each for each in SERVERS if each in ENGINES])
def test_database_is_restarted_in_the_middle_of_the_work(
    server: str, redis: Redis, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        engine = stack.enter_context(SERVERS[server]())
        assert engine.restart is not None
        uri = stack.enter_context(bound_database(engine.create()))
        running = stack.enter_context(site(uri, redis, tmp_path / "site"))
        _, held, manifests = begin_work(running, **WORKERS)
        engine.restart(held.release)
        all_end_completed(running, manifests)
        assert len(running.quay.scanner.requests) == IMAGES, "what Clair had answered is recorded"


def test_full_disk_under_the_blob_store_loses_no_retry_and_leaves_no_half_file(
    sqlite_database: str, redis: Redis, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the disk: the write that crosses it fails."""
    with site(sqlite_database, redis, tmp_path / "site") as running:
        image = alpine_image("library/large", payload=8_000_000)
        running.quay.publish(image)
        pulled = running.quay.pull("proxy", image)
        worker = running.start("workers", largest_file=4_000_000, RESCAN_WORKERS=["blob", "rescan"])
        wait_until(lambda: worker.says("blob not placed, tried again"), 20, "the disk is full")
        errors = [event["error"] for event in worker.events("blob not placed, tried again")]
        assert all("free space there" in error for error in errors)
        assert not list((running.quay.storage_path / "sha256").glob("??/*"))
        # The other layer may be on its way still, so a moment with no upload at all is waited for.
        uploads = running.quay.storage_path / "uploads"
        wait_until(lambda: not list(uploads.glob("*")), 20, "failed writes have left nothing")
        wait_until(
            lambda: [each.retries_remaining for each in running.quay.items()] == [5, 5],
            20,
            "no retry is used up",
        )
        worker.lift_file_limit()
        wait_until(lambda: running.is_completed(pulled.manifest_id), 20, "there is space again")
        assert running.wrong_files() == []
