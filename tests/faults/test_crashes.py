"""A process dies at each point where something could be lost, and the next one goes on.

Real workers on real Valkey, SQLite and PostgreSQL. Each point has a queue and a manifest of its
own, and all of them die together, because what takes time here is that the dead are noticed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

import pytest
from redis import Redis

from data.database import open_database
from data.faultpoints import FaultPoint
from queues.rescanqueue import Enqueued
from tests import servers
from tests.conftest import bound_database
from tests.faults.site import Site, Worker, site
from tests.servers import Engine, wait_until
from workers.demo.images import Image
from workers.demo.scannerfaults import Held

# All of the time that is waited for is spent in the first test of the group.
pytestmark = [pytest.mark.xdist_group("crashes"), pytest.mark.timeout(300)]

BACK_WITHIN_SECONDS = 30
BLOB_POINTS = (
    FaultPoint.BLOB_STORED,
    FaultPoint.BLOB_PLACED,
    FaultPoint.COMPLETION_FOUND,
    FaultPoint.RESCAN_ENQUEUED,
)
RESCAN_POINTS = (
    FaultPoint.JOB_POPPED,
    FaultPoint.JOB_REGISTERED,
    FaultPoint.CLAIMED,
    FaultPoint.INDEXED,
    FaultPoint.RECORDED,
    FaultPoint.JOB_ENDED,
)
WHILE_CLAIR_WORKS = "while-clair-works"
SWEEP = ("sweep", FaultPoint.SWEEP_PAGE.value)  # on SQLite too, with nothing else to find
# Each point on the engine whose part in it is the larger; all on both in the nightly run.
ON_SQLITE = ("blob-stored", "completion-found", "job-popped", "job-registered", "job-ended")
ON_POSTGRESQL = (
    *("blob-placed", "rescan-enqueued", "claimed", WHILE_CLAIR_WORKS, "indexed", "recorded"),
)
EVERYWHERE = sorted({*ON_SQLITE, *ON_POSTGRESQL})
NIGHTLY = int(os.environ.get("FAULT_KILLS", "10")) > 10
CASES = [
    (engine, point)
    for engine, points in (("sqlite", ON_SQLITE), ("postgresql", ON_POSTGRESQL))
    for point in (EVERYWHERE if NIGHTLY else points)
] + [SWEEP]
# What the death costs Clair: a call whose answer nobody could record is made once more.
INDEX_CALLS = {WHILE_CLAIR_WORKS: 2, "indexed": 2}


@dataclass(slots=True, kw_only=True)
class Crash:
    """One point: the manifest whose worker dies there, and how it went on."""

    site: Site
    point: str
    queue: str
    image: Image
    manifest_id: int
    worker: Worker
    held: Held | None = None
    killed_at: float | None = None

    @property
    def died(self) -> bool:
        return self.killed_at is not None or self.worker.died.exists()

    @property
    def died_at(self) -> float:
        return self.worker.died_at if self.killed_at is None else self.killed_at

    def after_death(self, *names: str) -> list[float]:
        """Seconds from the death to each of these events that came after it."""
        times = [
            datetime.fromisoformat(event["timestamp"]).timestamp()
            for name in names
            for event in self.worker.events(name)
        ]
        return sorted(time - self.died_at for time in times if time > self.died_at)

    @property
    def ended(self) -> bool:
        return self.died and bool(self.after_death("rescanned", "swept"))


@pytest.fixture(scope="module")
def crashes(
    tmp_path_factory: pytest.TempPathFactory, postgresql: Engine
) -> Iterator[Callable[[str, str], Crash]]:
    """Everybody dies and comes back; then it returns the crash of an engine and point, bound."""
    directory = tmp_path_factory.mktemp("crashes")
    uris = {
        "sqlite": f"sqlite:///{directory}/quay.db",
        "sweep": f"sqlite:///{directory}/sweep.db",
        "postgresql": postgresql.create(),
    }
    with ExitStack() as stack:
        found: dict[tuple[str, str], Crash] = {}
        for engine in uris:
            server = stack.enter_context(servers.valkey())
            redis = stack.enter_context(Redis(port=server.port))
            stack.enter_context(bound_database(uris[engine]))
            running = stack.enter_context(site(uris[engine], redis, directory / engine))
            for case in CASES:
                if case[0] == engine:
                    found[case] = begin(running, engine, case[1])
        for crash in found.values():
            interfere(crash)
        for case, crash in found.items():
            wait_until(lambda each=crash: each.ended, 60, f"{case} goes on")  # type: ignore[misc]

        def bound(engine: str, point: str) -> Crash:
            open_database(uris[engine])
            return found[engine, point]

        yield bound


def begin(running: Site, engine: str, point: str) -> Crash:
    """Starts the worker that is to die at `point`, and gives it the reason to get there."""
    queue = point
    by_blobs = point in {each.value for each in BLOB_POINTS}
    running.quay.blob_worker.items = type(running.quay.blob_worker.items)(f"blobs-{point}")
    image, pulled = running.pull(point, place=not by_blobs)
    held = None
    if point in {WHILE_CLAIR_WORKS, "job-ended"}:
        held = Held()
        running.quay.scanner.faults.add(held, digest=image.digest, times=1)
    if not by_blobs and engine != "sweep" and point != FaultPoint.JOB_POPPED.value:
        running.enqueue(pulled.manifest_id, queue=queue)
    worker = running.start(
        "workers" if by_blobs or engine == "sweep" else "workers.rescanworker",
        fault=None if point == WHILE_CLAIR_WORKS else FaultPoint(point),
        RESCAN_QUEUE_NAME=queue,
        PROXY_CACHE_BLOB_QUEUE_NAME=f"blobs-{point}",
        RESCAN_MAX_CONCURRENT_INDEXES=1,
        RESCAN_WORKERS=["sweep"] if engine == "sweep" else ["blob", "rescan"],
        RESCAN_SWEEP_INTERVAL=1,
    )
    return Crash(
        site=running,
        point=point,
        queue=queue,
        image=image,
        manifest_id=pulled.manifest_id,
        worker=worker,
        held=held,
    )


def interfere(crash: Crash) -> None:
    """What happens while Clair works: an enqueue comes in, or somebody kills the worker."""
    if crash.point == FaultPoint.JOB_POPPED.value:
        enqueue_for_an_idle_worker(crash)
    if crash.held is None:
        return
    assert crash.held.wait_for_call(30)
    if crash.point == "job-ended":
        assert crash.site.enqueue(crash.manifest_id, queue=crash.queue) is Enqueued.RUNNING
    else:
        (pid,) = crash.site.pids_of_rescan_workers(crash.queue)
        os.kill(pid, signal.SIGKILL)
        crash.killed_at = time.time()
    crash.held.release()


def enqueue_for_an_idle_worker(crash: Crash) -> None:
    """A job is popped before its run is started only by a worker that waits for one.

    Once a second such a worker looks for a moment without waiting: a job that comes just then is
    served, and asked for again.
    """
    redis, job = crash.site.redis, f"rq:job:rescan-{crash.manifest_id}"

    def is_idle() -> bool:
        names = redis.smembers(f"rq:workers:{crash.queue}")
        return any(redis.hget(name, "state") == b"idle" for name in names)

    while not crash.died:
        wait_until(is_idle, 30, "the worker waits for jobs")
        assert crash.site.enqueue(crash.manifest_id, queue=crash.queue) is Enqueued.QUEUED
        wait_until(
            lambda: crash.died or redis.hget(job, "status") == b"finished", 30, "the job is taken"
        )


@pytest.mark.parametrize(("engine", "point"), [case for case in CASES if case != SWEEP])
def test_manifest_ends_completed_wherever_its_worker_died(
    crashes: Callable[[str, str], Crash],
    engine: str,
    point: str,
    record_property: Callable[[str, object], None],
) -> None:
    crash = crashes(engine, point)
    assert crash.site.is_completed(crash.manifest_id)
    calls = len(crash.site.quay.scanner.requests.of(crash.image.digest))
    assert calls == INDEX_CALLS.get(point, 1)
    back = crash.after_death("index call", "rescanned")[0]
    record_property("measured", f"death at {point} on {engine}: work again after {back:.1f} s")
    assert back < BACK_WITHIN_SECONDS
    # A blob that is settled while the job runs asks for it once more, and is told of it at its end.
    again = f"rescan:{crash.queue}:again"
    wait_until(lambda: crash.site.redis.hlen(again) == 0, 30, "nobody is owed another run")


def test_sweep_that_died_between_two_pages_is_done_again_and_enqueues_nothing_twice(
    crashes: Callable[[str, str], Crash],
) -> None:
    crash = crashes(*SWEEP)
    jobs = crash.site.redis.lrange(f"rq:queue:{crash.queue}", 0, -1)
    assert jobs.count(f"rescan-{crash.manifest_id}".encode()) == 1


@pytest.mark.parametrize("engine", sorted({case[0] for case in CASES}))
def test_no_file_lies_half_written_under_a_blobs_path(
    crashes: Callable[[str, str], Crash], engine: str
) -> None:
    point = next(case[1] for case in CASES if case[0] == engine)
    assert crashes(engine, point).site.wrong_files() == []
