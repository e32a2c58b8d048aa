"""What the whole pipeline counts, from the pull to the scan, as it stands in Redis afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from data.secscan.status import IndexStatus
from queues.events import EventKind
from queues.metricstore import MetricStore, OrganizationCount
from tests.integration.pipeline import Pipeline, pipeline
from workers.demo import registryfaults, scannerfaults
from workers.demo.sampleimages import debian_image

IMAGE = debian_image("library/app")


@pytest.fixture
def quay(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Pipeline]:
    """On SQLite alone: the engine plays no part in these."""
    with pipeline(sqlite_database, redis, tmp_path) as whole:
        yield whole


@pytest.fixture
def store(redis: Redis) -> MetricStore:
    return MetricStore(redis, "rescan")


def value(store: MetricStore, name: str, **labels: str) -> float:
    return store.totals().get((name, tuple(sorted(labels.items()))), 0.0)


def test_one_image_is_counted_at_every_step(quay: Pipeline, store: MetricStore) -> None:
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED
    blobs = len(IMAGE.blobs)
    size = sum(blob.size for blob in IMAGE.blobs.values())
    assert value(store, "quay_proxy_cache_blob_downloads_total", outcome="placed") == blobs
    assert value(store, "quay_proxy_cache_blob_bytes_total", namespace="other") == size
    assert value(store, "quay_proxy_cache_security_resets_total", namespace="other") == 1
    assert value(store, "quay_rescan_jobs_total", outcome="completed", reason="event") == 1
    assert value(store, "quay_rescan_index_seconds_count") == 1
    assert value(store, "quay_rescan_last_blob_to_index_seconds_count") == 1
    assert 0 < value(store, "quay_rescan_last_blob_to_index_seconds_sum") < 10
    kinds = [event.kind for event in store.events()]
    assert kinds == [EventKind.RESCANNED, EventKind.COMPLETE]
    (organization,) = store.organizations(10)
    assert organization.name == "proxy"
    assert organization.counts == {
        OrganizationCount.PLACED: blobs,
        OrganizationCount.BYTES: size,
        OrganizationCount.COMPLETED: 1,
        OrganizationCount.FAILED: 0,
        OrganizationCount.RESETS: 1,
    }


def test_reset_counts_also_when_clair_was_away_at_first(quay: Pipeline, store: MetricStore) -> None:
    """The row is reset by the attempt that met a scanner that was down, and by no other."""
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    quay.scanner.faults.add(scannerfaults.Busy(), times=1)
    quay.run()
    assert value(store, "quay_proxy_cache_security_resets_total", namespace="other") == 1
    assert value(store, "quay_rescan_jobs_total", outcome="completed", reason="event") == 0
    assert store.events()[0].kind is EventKind.AGAIN_LATER


def test_failed_downloads_are_counted_one_by_one(quay: Pipeline, store: MetricStore) -> None:
    quay.publish(IMAGE)
    last = IMAGE.layer_digests[-1]
    quay.upstream.troubles.add(registryfaults.Failing(404), reference=last)
    quay.pull("proxy", IMAGE)
    for _ in range(5):
        quay.run_blob_worker()
        quay.make_items_available()
    downloads = "quay_proxy_cache_blob_downloads_total"
    assert value(store, downloads, outcome="failed") == 4
    assert value(store, downloads, outcome="given_up") == 1
    assert store.events()[0].kind is EventKind.BLOB_GIVEN_UP
    assert last in store.events()[0].detail


def test_redis_without_room_for_metrics_fails_no_rescan(
    quay: Pipeline, redis: Redis, store: MetricStore
) -> None:
    """The keys of the metrics hold something else: each command on them is an error."""
    redis.set(store.key("metrics"), "not a hash")
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    quay.run()
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED


def test_manifest_that_clair_refuses_counts_as_failed(quay: Pipeline, store: MetricStore) -> None:
    quay.publish(IMAGE)
    quay.scanner.faults.add(scannerfaults.Failing(400, "bogus manifest"))
    quay.pull("proxy", IMAGE)
    quay.run()
    assert value(store, "quay_rescan_jobs_total", outcome="failed", reason="event") == 1
    assert store.events()[0].detail.startswith("failed: ")
    (organization,) = store.organizations(10)
    assert organization.counts[OrganizationCount.FAILED] == 1


def test_what_a_job_did_is_told_outside_of_its_time_limit(
    quay: Pipeline, store: MetricStore, redis: Redis
) -> None:
    """A Redis that is slow to take the counts must not turn a rescan into a failed job."""
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    quay.run_blob_worker()
    worker = quay.prepare_rescan_worker()
    tell, told = worker.after_job, []

    def tell_and_note() -> None:
        told.append(redis.hget(f"rq:job:rescan-{pulled.manifest_id}", "status"))
        tell()

    worker.after_job = tell_and_note
    worker.work(burst=True, logging_level=None)
    assert set(told) == {b"queued", b"finished"}, "never while it is started"
    assert value(store, "quay_rescan_jobs_total", outcome="completed", reason="event") == 1
