"""A scanner that is down, busy, slow or out of its mind; real workers, each trouble at once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from redis import Redis

from data.secscan.status import IndexStatus
from tests import servers
from tests.conftest import bound_database
from tests.faults.site import Site, Worker, site
from tests.servers import wait_until
from workers.demo.images import Image
from workers.demo.scannerfaults import (
    Busy,
    ClosingConnection,
    Dripping,
    Failing,
    Fault,
    Garbage,
    Held,
    WrongState,
)
from workers.demo.scannerstandin import ScannerStandIn

pytestmark = [pytest.mark.xdist_group("scanner trouble"), pytest.mark.timeout(1200)]

AGAIN_WITHIN_SECONDS = 5
# Long enough for several probes, which are all that happens; 10 minutes in the nightly run.
DOWN_SECONDS = int(os.environ.get("SCANNER_DOWN_SECONDS", "4"))
# The client gives up a little before the job's time is over, on a machine that is busy too.
TIMEOUT_WHILE_DRIPPING = 15
TROUBLES: dict[str, Fault | None] = {
    "away": None,
    "429": Busy(),
    "429 with Retry-After": Busy("1"),
    "500": Failing(500),
    "slow drips": Dripping(interval=0.2),
    "closed connections": ClosingConnection(after=20),
    "garbage": Garbage(),
    "unknown state": WrongState("Confused"),
}


@dataclass(slots=True)
class Trouble:
    """A scanner in one kind of trouble, and the manifest that waits for it."""

    scanner: ScannerStandIn
    worker: Worker
    queue: str
    image: Image
    manifest_id: int

    def begin(self, fault: Fault | None) -> None:
        if fault is None:
            self.scanner.go_down()
        else:
            self.scanner.faults.add(fault, call=None)

    def end(self) -> None:
        self.scanner.faults.clear()
        if TROUBLES[self.queue.replace("_", " ")] is None:
            self.scanner.come_up()


@dataclass(slots=True)
class Troubles:
    site: Site
    found: dict[str, Trouble]
    ended_at: float
    tries: dict[str, object]
    states: dict[str, IndexStatus | None]


@pytest.fixture(scope="module")
def troubles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Troubles]:
    directory = tmp_path_factory.mktemp("troubles")
    with ExitStack() as stack:
        uri = stack.enter_context(bound_database(f"sqlite:///{directory}/quay.db"))
        server = stack.enter_context(servers.valkey())
        redis = stack.enter_context(Redis(port=server.port))
        running = stack.enter_context(site(uri, redis, directory / "site"))
        found = {name: begin(running, stack, name) for name in TROUBLES}
        for name, trouble in found.items():
            wait_until(
                lambda each=trouble: each.worker.says("rescan again later"),  # type: ignore[misc]
                60,
                f"{name} shows",
            )
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > DOWN_SECONDS, DOWN_SECONDS + 1, "it lasts")
        tries = {name: meta_of(redis, trouble).get("tries") for name, trouble in found.items()}
        states = {name: state_between_calls(running, each) for name, each in found.items()}
        for trouble in found.values():
            trouble.end()
        ended_at = time.time()
        for name, trouble in found.items():
            wait_until(
                lambda each=trouble: running.is_completed(each.manifest_id),  # type: ignore[misc]
                30,
                f"{name} is over",
            )
        yield Troubles(running, found, ended_at, tries, states)


def begin(running: Site, stack: ExitStack, name: str) -> Trouble:
    queue = name.replace(" ", "_")
    scanner = stack.enter_context(ScannerStandIn())
    image, pulled = running.pull(queue.lower())
    running.enqueue(pulled.manifest_id, queue=queue)
    worker = running.start(
        "workers.rescanworker",
        SECURITY_SCANNER_V4_ENDPOINT=scanner.endpoint,
        RESCAN_QUEUE_NAME=queue,
        RESCAN_MAX_CONCURRENT_INDEXES=1,
        RESCAN_JOB_TIMEOUT=TIMEOUT_WHILE_DRIPPING if name == "slow drips" else 660,
    )
    trouble = Trouble(scanner, worker, queue, image, pulled.manifest_id)
    trouble.begin(TROUBLES[name])
    return trouble


def state_between_calls(running: Site, trouble: Trouble) -> IndexStatus | None:
    """While a probe goes on the row is claimed, for as long as the call takes."""
    status = running.quay.status
    claimed = IndexStatus.IN_PROGRESS
    wait_until(lambda: status(trouble.manifest_id) is not claimed, 20, "the claim is taken back")
    return status(trouble.manifest_id)


def meta_of(redis: Redis, trouble: Trouble) -> dict[str, object]:
    meta = redis.hget(f"rq:job:rescan-{trouble.manifest_id}", "meta")
    return dict(json.loads(meta or "{}"))


@pytest.mark.parametrize("name", TROUBLES)
def test_work_starts_again_within_5_seconds_of_the_scanners_return(
    troubles: Troubles, name: str, record_property: Callable[[str, object], None]
) -> None:
    worker = troubles.found[name].worker
    # The row is written before the line in the log.
    wait_until(lambda: bool(worker.events("rescanned")), 20, "the worker tells of the rescan")
    (event, *_) = worker.events("rescanned")
    seconds = datetime.fromisoformat(event["timestamp"]).timestamp() - troubles.ended_at
    record_property("measured", f"scanner trouble ({name}): done {seconds:.1f} s after its end")
    assert seconds < AGAIN_WITHIN_SECONDS


@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_of_the_scanner_uses_up_no_retry_and_leaves_no_claim(
    troubles: Troubles, name: str
) -> None:
    assert troubles.tries[name] is None
    assert troubles.states[name] is None, "anybody may index it meanwhile"
    assert troubles.site.redis.zcard(f"rq:failed:{troubles.found[name].queue}") == 0


@pytest.mark.parametrize("name", TROUBLES)
def test_scanner_in_trouble_is_left_alone_but_for_a_probe_now_and_then(
    troubles: Troubles, name: str
) -> None:
    """One call a pause: what 429 asked for, else 2 s. Without the circuit it would be many."""
    trouble = troubles.found[name]
    times = [each.arrived_ns / 1e9 for each in trouble.scanner.requests.of(trouble.image.digest)]
    before = [time for time in times if time < troubles.ended_at]
    pause = 1.0 if name == "429 with Retry-After" else 2.0
    longest = troubles.ended_at - min(before, default=troubles.ended_at)
    assert len(before) <= 1 + longest / pause


def test_workers_of_several_processes_never_send_more_requests_at_once_than_the_limit(
    sqlite_database: str, redis: Redis, tmp_path_factory: pytest.TempPathFactory
) -> None:
    limit, images = 3, 9
    held = Held()
    with site(sqlite_database, redis, tmp_path_factory.mktemp("limit")) as running:
        running.quay.scanner.faults.add(held)
        ids = [running.pull(f"image-{number}")[1].manifest_id for number in range(images)]
        for manifest_id in ids:
            running.enqueue(manifest_id)
        config: Any = {"RESCAN_MAX_CONCURRENT_INDEXES": limit}
        workers = [running.start("workers.rescanworker", **config) for _ in range(2)]
        wait_until(
            lambda: any(
                "slots" in e["why"] for w in workers for e in w.events("rescan again later")
            ),
            40,
            "a worker finds every slot taken",
        )
        assert len(running.quay.scanner.requests) == limit
        held.release()
        done: Callable[[Sequence[int]], bool] = lambda each: all(map(running.is_completed, each))  # noqa: E731
        wait_until(lambda: done(ids), 30, "all are completed")
        assert running.quay.scanner.requests.most_open == limit
        assert len(running.quay.scanner.requests) == images
