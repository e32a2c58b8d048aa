"""`python -m queues backfill`: what is stuck already, once, in order, and as fast as allowed."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from data.models import ManifestSecurityStatus
from queues.commands import backfill
from queues.rescanqueue import manifest_id_of
from tests.queues.conftest import IMAGE, Shell
from workers.demo.sampleimages import debian_image, helm_chart

CURSOR = "rescan:rescan:backfill:cursor"


@pytest.fixture
def stuck(shell: Shell) -> list[int]:
    """Five complete manifests whose rows say -2; nothing is queued."""
    ids = []
    for n in range(5):
        image = debian_image(f"library/app{n}")
        shell.quay.publish(image)
        ids.append(shell.quay.pull("proxy", image).manifest_id)
        shell.quay.security_worker_looks_too_early(ids[-1])
    shell.quay.run_blob_worker()
    shell.quay.queue.empty()  # type: ignore[no-untyped-call]
    return ids


def queued(redis: Redis) -> list[int]:
    entries: list[Any] = list(redis.lrange("rq:queue:rescan-backfill", 0, -1))
    return [manifest_id_of(entry.decode()) for entry in entries]


def test_backfill_finds_what_is_stuck_on_a_lane_of_its_own(shell: Shell, complete: int) -> None:
    assert shell.json("backfill", "--dry-run") == {
        "stuck": 1,
        "queued": 0,
        "policy_off": 0,
        "dry_run": True,
    }
    assert shell.quay.queue.connection.llen("rq:queue:rescan-backfill") == 0
    assert shell.json("backfill")["queued"] == 1
    assert shell.json("backfill")["queued"] == 0, "again is no more"
    assert shell.quay.queue.connection.llen("rq:queue:rescan-backfill") == 1
    assert shell.json("backfill", "--org", "mirror")["stuck"] == 0


def test_backfill_goes_on_where_it_was_cut_short(shell: Shell, complete: int) -> None:
    redis = shell.quay.queue.connection
    redis.hset("rescan:rescan:backfill:cursor", "unsupported", complete)
    assert shell.json("backfill")["stuck"] == 0
    assert not redis.exists("rescan:rescan:backfill:cursor")
    redis.hset("rescan:rescan:backfill:cursor", "unsupported", complete)
    assert shell.json("backfill", "--restart")["stuck"] == 1


def test_dry_run_counts_everything_and_leaves_a_backfill_where_it_is(
    shell: Shell, stuck: list[int], redis: Redis
) -> None:
    redis.hset(CURSOR, "unsupported", stuck[1])
    assert shell.json("backfill", "--dry-run")["stuck"] == 5
    assert "5 stuck manifests would be queued." in shell.run("backfill", "--dry-run").stdout
    shell.run("backfill", "--dry-run", "--restart")
    assert redis.hget(CURSOR, "unsupported") == str(stuck[1]).encode()
    shell.run("backfill")
    assert queued(redis) == stuck[2:]


def test_interrupted_backfill_goes_on_where_it_was(
    shell: Shell, stuck: list[int], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.sweep.PAGE", 2)
    pages = 0

    def interrupt(walk: backfill.Walk) -> None:
        nonlocal pages
        pages += 1
        if pages == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(backfill.Walk, "slow_down", interrupt)
    shell.run("backfill", code=130)
    assert queued(redis) == stuck[:4]
    shell.run("backfill")
    assert queued(redis) == stuck, "once each, also the page that was cut short"
    assert not redis.exists(CURSOR)


class Clock:
    """A clock that only sleeping moves; at each sleep it notes what is queued by then."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.now = 0.0
        self.seen: list[tuple[float, int]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.seen.append((self.now, len(queued(self.redis))))
        self.now += seconds


def test_rate_is_kept_within_a_page_too(
    shell: Shell, stuck: list[int], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page holds up to 500: as one they would come in a burst, then nothing for minutes."""
    del stuck
    clock = Clock(redis)
    monkeypatch.setattr(backfill, "time", clock)
    shell.run("backfill", "--rate", "2")
    assert clock.seen == [(0.0, 2), (1.0, 4), (2.0, 5)]
    redis.flushall()
    clock = Clock(redis)
    monkeypatch.setattr(backfill, "time", clock)
    shell.run("backfill", "--rate", "0.5")
    assert clock.seen == [(0.0, 1), (2.0, 2), (4.0, 3), (6.0, 4), (8.0, 5)]


def test_policy_off_is_left_alone_and_told(shell: Shell, stuck: list[int], redis: Redis) -> None:
    policy = "RESCAN_POLICY: {repositories: {proxy/library/app3: off}}\n"
    shell.config.write_text(shell.config.read_text() + policy)
    words = shell.run("backfill").stdout
    assert "4 stuck manifests found, 4 queued now." in words
    assert "1 more are left alone: RESCAN_POLICY says off." in words
    assert stuck[3] not in queued(redis)


def test_artifact_is_not_stuck(shell: Shell) -> None:
    chart = helm_chart("charts/app")
    shell.quay.publish(chart)
    pulled = shell.quay.pull("proxy", chart)
    for digest in chart.blobs:
        shell.quay.fetch_blob_in_request("proxy", chart, digest)
    shell.quay.security_worker_looks_too_early(pulled.manifest_id)
    assert shell.json("backfill")["stuck"] == 0
    assert shell.json("enqueue", "--org", "proxy") == []


def test_what_it_queues_is_scanned(shell: Shell, stuck: list[int]) -> None:
    shell.run("backfill")
    shell.quay.run_rescan_worker(backfill=True)
    rows = ManifestSecurityStatus.select(ManifestSecurityStatus.index_status)
    assert [row.index_status for row in rows] == [2] * len(stuck)


@pytest.mark.parametrize("command", ["backfill", "enqueue"])
def test_wrong_organisation_is_said(shell: Shell, command: str) -> None:
    assert "no organisation nobody" in shell.run(command, "--org", "nobody", code=2).stderr
    shell.quay.publish(IMAGE)
    assert shell.json(command, "--org", "mirror") in (
        [],
        {"stuck": 0, "queued": 0, "policy_off": 0, "dry_run": False},
    )
