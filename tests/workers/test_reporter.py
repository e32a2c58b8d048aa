"""What a worker tells the operator, in how many commands; it never is the work's trouble."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry

from data.manifest_records import ManifestRecord
from data.metrics import NamespaceLabels
from data.secscan.rescan import Outcome, RescanRequest, RescanResult
from data.secscan.status import Reason
from queues.events import EventKind
from queues.metricstore import MetricStore, OrganizationCount
from workers import reporter as reporting
from workers.reporter import Reporter

RECORD = ManifestRecord(
    manifest_id=4,
    repository_id=1,
    namespace="org",
    repository="app",
    digest="sha256:4",
    media_type="",
    manifest_bytes="",
    proxied=True,
)
REQUEST = RescanRequest(manifest_id=4, reason=Reason.EVENT)
RESULT = RescanResult(
    manifest_id=4, outcome=Outcome.COMPLETED, digest="sha256:4", repository="org/app", reset=True
)
JOBS = ("quay_rescan_jobs_total", (("outcome", "completed"), ("reason", "event")))
CALLS = ("quay_rescan_last_blob_to_index_seconds_count", ())
WAITED = ("quay_rescan_last_blob_to_index_seconds_sum", ())


@pytest.fixture
def store(redis: Redis) -> MetricStore:
    return MetricStore(redis, "rescan")


@pytest.fixture
def reporter(store: MetricStore) -> Reporter:
    return Reporter(store, NamespaceLabels({"org": "team"}))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many commands went to Redis since the test asked for this fixture."""
    sent: list[object] = []
    send = Connection.send_command

    def count(self: Connection, *arguments: object, **options: object) -> None:
        sent.append(arguments)
        send(self, *arguments, **options)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Connection, "send_command", count)
    return lambda: len(sent)


def whole_job(reporter: Reporter) -> None:
    reporter.job_begins({}, datetime.now(UTC) - timedelta(seconds=2))
    reporter.reset(RECORD)
    reporter.index_called(RECORD)
    reporter.index_answered(RECORD, 0.3)
    reporter.rescanned(REQUEST, RESULT)
    reporter.tell()


def test_whole_job_costs_one_command(reporter: Reporter, commands: Callable[[], int]) -> None:
    whole_job(reporter)  # loads the script
    before = commands()
    whole_job(reporter)
    assert commands() - before == 1


def test_nothing_new_costs_nothing(reporter: Reporter, commands: Callable[[], int]) -> None:
    reporter.tell()
    assert commands() == 0


def test_many_blobs_in_a_row_are_told_together(
    reporter: Reporter,
    store: MetricStore,
    commands: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole_job(reporter)  # loads the script, and was told a moment ago
    monkeypatch.setattr("workers.reporter.PAUSE_SECONDS", 60.0)
    before = commands()
    for _ in range(5):
        reporter.blob_placed("org", 10)
        reporter.tell_now_and_then()
    assert commands() == before
    monkeypatch.setattr("workers.reporter.PAUSE_SECONDS", 0.0)
    reporter.tell_now_and_then()
    assert commands() - before == 1
    assert store.totals()["quay_proxy_cache_blob_bytes_total", (("namespace", "team"),)] == 50


def test_job_is_counted_timed_and_told(reporter: Reporter, store: MetricStore) -> None:
    whole_job(reporter)
    totals = store.totals()
    assert totals[JOBS] == 1
    assert totals[CALLS] == 1
    assert 2 <= totals[WAITED] < 5
    assert totals["quay_rescan_index_seconds_sum", ()] == pytest.approx(0.3)
    assert totals["quay_proxy_cache_security_resets_total", (("namespace", "team"),)] == 1
    (event,) = store.events()
    assert (event.kind, event.manifest_id, event.detail) == (EventKind.RESCANNED, 4, "completed")
    (organization,) = store.organizations(10)
    assert organization.name == "org"
    assert organization.counts[OrganizationCount.COMPLETED] == 1
    assert organization.counts[OrganizationCount.RESETS] == 1


def test_each_count_is_told_once(reporter: Reporter, store: MetricStore) -> None:
    whole_job(reporter)
    reporter.tell()
    reporter.tell()
    assert store.totals()[JOBS] == 1
    assert len(store.events()) == 1
    assert store.organizations(1)[0].counts[OrganizationCount.COMPLETED] == 1


def test_only_the_first_index_call_of_a_job_is_timed(
    reporter: Reporter, store: MetricStore
) -> None:
    """Clair failed on it, and the job runs again after a wait that says nothing of the pipeline."""
    meta: dict[str, object] = {}
    for _ in range(2):
        reporter.job_begins(meta, datetime.now(UTC))
        reporter.index_called(RECORD)
        reporter.tell()
    assert store.totals()[CALLS] == 1


def test_job_that_no_event_asked_for_is_not_timed(reporter: Reporter, store: MetricStore) -> None:
    reporter.job_begins({}, None)
    reporter.index_called(RECORD)
    reporter.rescanned(REQUEST, RESULT)
    reporter.tell()
    assert CALLS not in store.totals()


def test_job_that_ends_with_an_error_is_a_failed_one(
    reporter: Reporter, store: MetricStore
) -> None:
    reporter.job_failed(REQUEST, ValueError("no way"))
    reporter.tell()
    failed = ("quay_rescan_jobs_total", (("outcome", "failed"), ("reason", "event")))
    assert store.totals()[failed] == 1
    assert store.events()[0].detail == "no way"


def test_blobs_are_counted_by_how_they_ended(reporter: Reporter, store: MetricStore) -> None:
    reporter.blob_placed("org", 10)
    reporter.blob_placed("unheard-of", 5)
    reporter.blob_failed("proxycacheblob/org/1/sha256:1/", "503", given_up=False)
    reporter.blob_failed("proxycacheblob/org/1/sha256:1/", "503", given_up=True)
    reporter.tell()
    totals = store.totals()
    outcomes = {"placed": 2, "failed": 1, "given_up": 1}
    for outcome, count in outcomes.items():
        name = "quay_proxy_cache_blob_downloads_total"
        assert totals[name, (("outcome", outcome),)] == count
    assert totals["quay_proxy_cache_blob_bytes_total", (("namespace", "team"),)] == 10
    assert totals["quay_proxy_cache_blob_bytes_total", (("namespace", "other"),)] == 5


def test_sweep_is_an_event_only_when_it_found_something(
    reporter: Reporter, store: MetricStore
) -> None:
    reporter.swept(stuck=3, enqueued=0)
    assert store.events() == []
    reporter.swept(stuck=3, enqueued=2)
    assert [event.kind for event in store.events()] == [EventKind.SWEPT]


@pytest.fixture
def silent_redis() -> Iterator[Redis]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Redis(
            port=listener.getsockname()[1], socket_timeout=1, retry=Retry(NoBackoff(), 1)
        )
        yield connection
        connection.close()


def test_redis_that_is_away_holds_up_no_work(
    silent_redis: Redis, store: MetricStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = Reporter(MetricStore(silent_redis, "rescan"), NamespaceLabels({}))
    started = time.monotonic()
    for _ in range(20):
        whole_job(reporter)
    assert time.monotonic() - started < 20, "it is asked once, then left alone for a while"
    reporter.store = store
    monkeypatch.setattr(reporting, "SILENCE_SECONDS", 0)
    reporter.silent_until = 0
    reporter.tell()
    assert store.totals()[JOBS] == 20, "what couldn't be told is told later"
    assert len(store.events()) == 20
