"""SIGKILL at random moments, of workers and of their children, while they have much to do.

FAULT_KILLS (10; the nightly run takes 200) is how many, FAULT_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from data.models import QueueItem, utcnow
from data.secscan.status import IndexStatus, Reason
from tests.conftest import bound_database
from tests.faults.site import Site, Worker, children_of, site
from tests.servers import Engine, wait_until
from workers.demo.registryfaults import Call, Paced
from workers.demo.scannerfaults import Delayed

KILLS = int(os.environ.get("FAULT_KILLS", "10"))
SEED = int(os.environ.get("FAULT_SEED", "0")) or random.randrange(1, 1 << 31)
MANIFESTS = max(8, KILLS // 3)
SECONDS_BETWEEN_KILLS = 0.3
WORKERS: dict[str, Any] = {
    "RESCAN_WORKERS": ["blob", "rescan", "sweep"],
    "RESCAN_MAX_CONCURRENT_INDEXES": 3,
    "RESCAN_SWEEP_INTERVAL": 1,
}


@pytest.fixture
def running(postgresql: Engine, redis: Redis, tmp_path: Path) -> Iterator[Site]:
    uri = postgresql.create()
    with bound_database(uri), site(uri, redis, tmp_path / "site") as running:
        yield running


def start(running: Site) -> Worker:
    return running.start("workers", **WORKERS)


def kill_somebody(running: Site, worker: Worker, chance: random.Random) -> Worker:
    """Kills the parent or one below it; returns the parent that runs then, as systemd would."""
    victim = chance.choice([worker.pid, *children_of(worker.pid)])
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    if victim == worker.pid or worker.process.poll() is not None:
        worker.process.wait()
        return start(running)
    return worker


def an_hour_passes() -> None:
    """Until the sweep tries blobs again whose retries the deaths have used up."""
    exhausted = QueueItem.update(available_after=utcnow() - timedelta(hours=2))
    exhausted.where(QueueItem.retries_remaining <= 0).execute()


def have_poison_done(running: Site, manifest_ids: list[int]) -> int:
    """Chance may kill the worker of one job three times; then a person reads so, and asks again."""
    set_aside = 0
    for manifest_id in manifest_ids:
        if running.quay.status(manifest_id) is IndexStatus.FAILED:
            assert "three workers" in json.loads(running.quay.row(manifest_id).error_json)
            running.enqueue(manifest_id, reason=Reason.MANUAL)
            set_aside += 1
    return set_aside


def test_every_manifest_ends_completed_whoever_is_killed_when(
    running: Site, record_property: Callable[[str, object], None]
) -> None:
    chance, pause = random.Random(SEED), threading.Event()
    running.quay.scanner.faults.add(Delayed(0.2))
    running.quay.upstream.troubles.add(Paced(piece=1000, interval=0.05), call=Call.BLOB)
    pulls = [running.pull(f"image-{n}", place=False) for n in range(MANIFESTS)]
    ids = [pulled.manifest_id for _, pulled in pulls]
    worker = start(running)
    wait_until(lambda: worker.says("blob placed"), 30, "the load is on")
    for _ in range(KILLS):
        worker = kill_somebody(running, worker, chance)
        pause.wait(SECONDS_BETWEEN_KILLS)
    set_aside = 0

    def all_done() -> bool:
        nonlocal set_aside, worker
        an_hour_passes()
        set_aside += have_poison_done(running, ids)
        if worker.process.poll() is not None:
            worker = start(running)
        return all(running.is_completed(each) for each in ids)

    wait_until(all_done, 60 + KILLS, f"all are completed (FAULT_SEED={SEED})")
    calls = sum(len(running.quay.scanner.requests.of(image.digest)) for image, _ in pulls)
    record_property(
        "measured",
        f"{KILLS} random kills: {MANIFESTS} of {MANIFESTS} manifests completed, "
        f"{calls - MANIFESTS} index calls too many, {set_aside} jobs set aside",
    )
    assert calls <= MANIFESTS + KILLS
    assert running.wrong_files() == []
