"""Where the counts of all worker processes meet, on a real server."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
from redis import Redis

from queues.events import Event, EventKind, decode_event
from queues.metricstore import (
    EVENTS_KEPT,
    ORGANIZATIONS_KEPT,
    SAMPLES_KEPT,
    MetricStore,
    OrganizationCount,
)

BYTES = ("quay_proxy_cache_blob_bytes_total", (("namespace", "other"),))
DOWNLOADS = ("quay_proxy_cache_blob_downloads_total", (("outcome", "placed"),))
ROUNDS = 50


@pytest.fixture
def store(redis: Redis) -> MetricStore:
    return MetricStore(redis, "rescan")


def add_rounds(port: int) -> None:
    store = MetricStore(Redis(port=port), "rescan")
    for _ in range(ROUNDS):
        store.record({BYTES: 3.0, DOWNLOADS: 1.0}, (), {("org", OrganizationCount.PLACED): 1})


def test_counts_of_many_processes_add_up(store: MetricStore, redis: Redis) -> None:
    port = redis.connection_pool.connection_kwargs["port"]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_rounds, args=(port,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert store.totals() == {BYTES: 3.0 * ROUNDS * 3, DOWNLOADS: 1.0 * ROUNDS * 3}
    (organization,) = store.organizations(10)
    assert organization.counts[OrganizationCount.PLACED] == ROUNDS * 3


def test_large_totals_stay_exact(store: MetricStore) -> None:
    petabyte = 10.0**15
    store.record({BYTES: petabyte})
    store.record({BYTES: 1.0})
    assert store.totals()[BYTES] == petabyte + 1


def test_fields_that_nobody_of_ours_wrote_are_passed_over(store: MetricStore, redis: Redis) -> None:
    store.record({BYTES: 1.0})
    planted: dict[Any, Any] = {
        "no json": "1",
        "[1, 2]": "1",
        '["name", {"a": "b"}]': "no number",
        '{"a": 1}': "2",
        b"\xff": "1",
    }
    redis.hset("rescan:rescan:metrics", mapping=planted)
    assert store.totals() == {BYTES: 1.0}


def test_events_are_the_last_ones_newest_first(store: MetricStore) -> None:
    for first in range(0, EVENTS_KEPT + 30, 10):
        events = [Event(kind=EventKind.RESCANNED, manifest_id=first + n) for n in range(10)]
        store.record({}, events)
    kept = [event.manifest_id for event in store.events()]
    assert kept == list(range(EVENTS_KEPT + 29, 29, -1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"at": 1, "kind": "none", "manifest": 1, "digest": "", "repository": "", "detail": ""}',
        '{"at": "x", "kind": "swept", "manifest": 1, "digest": "", "repository": "", "detail": ""}',
        "[" * 100_000,
    ],
)
def test_event_that_nobody_of_ours_wrote_is_none(text: str) -> None:
    assert decode_event(text) is None


def test_event_is_bounded_and_comes_back_whole() -> None:
    event = Event(kind=EventKind.SWEPT, manifest_id=4, digest="d", repository="a/b", detail="é" * 9)
    assert decode_event(event.encode()) == Event(
        kind=event.kind,
        manifest_id=4,
        digest="d",
        repository="a/b",
        detail=event.detail,
        at=round(event.at, 3),
    )
    longest = Event(kind=EventKind.SWEPT, detail="x" * 100_000)
    assert len(longest.encode()) < 1000


def test_organisations_unused_for_longest_are_forgotten(store: MetricStore, redis: Redis) -> None:
    for n in range(ORGANIZATIONS_KEPT + 5):
        store.record({}, (), {(f"org{n}", OrganizationCount.BYTES): 2})
    newest = store.organizations(3)
    assert newest[0].counts[OrganizationCount.BYTES] == 2
    assert redis.zcard("rescan:rescan:organizations:used") == ORGANIZATIONS_KEPT
    assert redis.hlen("rescan:rescan:organizations") == ORGANIZATIONS_KEPT


def test_samples_are_those_of_an_hour_oldest_first(store: MetricStore) -> None:
    for n in range(SAMPLES_KEPT + 3):
        store.add_sample({"at": n})
    samples = store.samples()
    assert [samples[0]["at"], samples[-1]["at"]] == [3, SAMPLES_KEPT + 2]
    assert len(samples) == SAMPLES_KEPT


def test_of_many_ops_servers_one_takes_the_sample(store: MetricStore) -> None:
    assert [store.take_sample_turn() for _ in range(3)] == [True, False, False]


def test_last_sweep_is_told(store: MetricStore) -> None:
    assert store.sweep() is None
    store.record_sweep(7)
    sweep = store.sweep()
    assert sweep is not None
    assert sweep.stuck == 7
