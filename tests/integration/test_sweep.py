"""The sweep: every stuck manifest is found again from the database alone, on every engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from redis_lock import Lock

from data import completion, sweep
from data.manifests import Manifest, parse_manifest
from data.models import ManifestSecurityStatus, QueueItem, utcnow
from data.secscan.status import CLAIM_LIFETIME, IndexStatus, Reason
from data.sweep import Stuck, find_complete, last_manifest_id, next_page
from queues.rescanqueue import job_id_of
from queues.unscannable import Unscannable
from queues.wiring import build_policy
from tests.integration.pipeline import Pipeline
from workers import sweepworker
from workers.demo.sampleimages import debian_image, helm_chart
from workers.sweepworker import Sweeper, Swept

IMAGE = debian_image("library/app")
CURSOR = "rescan:rescan:sweep:cursor"


@pytest.fixture
def sweeper(quay: Pipeline) -> Sweeper:
    redis = quay.queue.connection
    return Sweeper(
        redis=redis,
        queue=quay.queue,
        items=quay.blob_worker.items,
        unscannable=Unscannable(redis, "rescan"),
        decide_policy=build_policy(quay.settings),
        timeout=660,
    )


def run(sweeper: Sweeper) -> Swept:
    swept = sweeper.sweep(lambda: False)
    assert swept is not None
    return swept


def placed(quay: Pipeline, *, config: bool = True) -> int:
    """A manifest whose layers the registry placed; no event was ever told."""
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    QueueItem.delete().execute()  # type: ignore[misc]
    for digest in IMAGE.blobs:
        if config or digest != IMAGE.config_digest:
            quay.fetch_blob_in_request("proxy", IMAGE, digest)
    return pulled.manifest_id


def test_complete_manifest_at_unsupported_is_found(quay: Pipeline, sweeper: Sweeper) -> None:
    manifest_id = placed(quay)
    quay.security_worker_looks_too_early(manifest_id)
    assert run(sweeper) == Swept(stuck=1, enqueued=1)
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED
    assert run(sweeper) == Swept()


def test_many_stuck_manifests_go_to_the_backfills_lane(
    quay: Pipeline, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sweep beside an old Quay finds very many; a new pull doesn't wait behind them."""
    monkeypatch.setattr(sweepworker, "MOST_SWEPT_AHEAD", 1)
    redis = quay.queue.connection
    quay.queue.enqueue_rescan(4711, Reason.EVENT, timeout=660)
    manifest_id = placed(quay)
    assert run(sweeper).enqueued == 1
    assert redis.lrange("rq:queue:rescan-backfill", 0, -1) == [job_id_of(manifest_id).encode()]
    assert redis.lrange("rq:queue:rescan", 0, -1) == [b"rescan-4711"]
    redis.delete("rq:queue:rescan")
    assert run(sweeper).enqueued == 0, "it stays where it is"
    assert redis.llen("rq:queue:rescan") == 0


def test_complete_manifest_without_a_row_is_found(quay: Pipeline, sweeper: Sweeper) -> None:
    manifest_id = placed(quay)
    assert run(sweeper).enqueued == 1
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED


def test_stale_word_over_a_completed_row_is_healed(quay: Pipeline, sweeper: Sweeper) -> None:
    """Quay's worker replaced our COMPLETED by its -2, minutes later."""
    manifest_id = placed(quay)
    run(sweeper)
    quay.run_rescan_worker()
    quay.security_worker_looks_too_early(manifest_id)
    assert run(sweeper).enqueued == 1
    quay.run_rescan_worker()
    assert quay.status(manifest_id) is IndexStatus.COMPLETED


def test_missing_config_is_asked_for_once(quay: Pipeline, sweeper: Sweeper) -> None:
    placed(quay, config=False)
    assert run(sweeper).configs_asked_for == 1
    assert run(sweeper).configs_asked_for == 0
    (item,) = quay.items()
    assert json.loads(item.body)["digest"] == IMAGE.config_digest
    quay.run_blob_worker()
    assert IMAGE.config_digest is not None
    assert quay.is_placed(IMAGE.config_digest)


def test_incomplete_manifest_is_left_to_its_blobs(quay: Pipeline, sweeper: Sweeper) -> None:
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    assert run(sweeper) == Swept()


def test_artifact_costs_one_parse_a_day(quay: Pipeline, sweeper: Sweeper) -> None:
    chart = helm_chart("charts/app")
    quay.publish(chart)
    pulled = quay.pull("proxy", chart)
    for digest in chart.blobs:
        quay.fetch_blob_in_request("proxy", chart, digest)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    assert run(sweeper) == Swept(unscannable=1)
    assert run(sweeper) == Swept()
    assert quay.queue.depth().queued == 0


def test_artifact_that_lacks_a_blob_costs_one_parse_a_day_too(
    quay: Pipeline, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    def count(manifest_bytes: str, media_type: str) -> Manifest:
        parsed.append(media_type)
        return parse_manifest(manifest_bytes, media_type)

    chart = helm_chart("charts/app")
    quay.publish(chart)
    pulled = quay.pull("proxy", chart)
    for digest in list(chart.blobs)[1:]:
        quay.fetch_blob_in_request("proxy", chart, digest)
    quay.security_worker_looks_too_early(pulled.manifest_id)
    for module in (sweep, completion):
        monkeypatch.setattr(module, "parse_manifest", count)
    for _ in range(3):
        run(sweeper)
    assert len(parsed) == 1


def claim(quay: Pipeline, manifest_id: int, job: str | None, age: timedelta) -> None:
    owner = {"rescan": {"job": job, "attempt": "token"}} if job else {}
    quay.store_status(
        manifest_id,
        quay.row_of_manifest(manifest_id).repository_id,
        IndexStatus.IN_PROGRESS,
        indexer_hash="in_progress",
        last_indexed=utcnow() - age,
        metadata_json=json.dumps(owner),
    )


@pytest.mark.parametrize(
    ("job", "age", "found"),
    [
        ("own", timedelta(0), 1),  # Redis lost the job, so nobody goes on with it
        ("securityworker-1", timedelta(0), 0),
        (None, timedelta(0), 0),  # Quay's, and young
        (None, CLAIM_LIFETIME + timedelta(seconds=1), 1),
        ("securityworker-1", CLAIM_LIFETIME + timedelta(seconds=1), 1),
    ],
)
def test_claim_whose_owner_is_dead_is_retaken(
    quay: Pipeline, sweeper: Sweeper, job: str | None, age: timedelta, found: int
) -> None:
    manifest_id = placed(quay)
    claim(quay, manifest_id, job_id_of(manifest_id) if job == "own" else job, age)
    assert run(sweeper).stuck == found
    quay.run_rescan_worker()
    expected = IndexStatus.COMPLETED if found else IndexStatus.IN_PROGRESS
    assert quay.status(manifest_id) is expected


def test_claim_whose_job_lives_is_left_alone(quay: Pipeline, sweeper: Sweeper) -> None:
    manifest_id = placed(quay)
    claim(quay, manifest_id, job_id_of(manifest_id), timedelta(0))
    quay.queue.enqueue_rescan(manifest_id, Reason.EVENT, timeout=60)
    assert run(sweeper).stuck == 0


@pytest.mark.parametrize("status", [IndexStatus.FAILED, IndexStatus.COMPLETED])
def test_what_had_its_say_is_left_alone(
    quay: Pipeline, sweeper: Sweeper, status: IndexStatus
) -> None:
    manifest_id = placed(quay)
    quay.store_status(manifest_id, quay.row_of_manifest(manifest_id).repository_id, status)
    assert run(sweeper) == Swept()


def test_blob_whose_retries_ran_out_is_tried_again_once_an_hour(
    quay: Pipeline, sweeper: Sweeper
) -> None:
    quay.publish(IMAGE)
    quay.pull("proxy", IMAGE)
    QueueItem.update(retries_remaining=0).execute()
    assert run(sweeper).blobs_tried_again == 0, "the hour isn't over"
    an_hour_ago = utcnow() - timedelta(hours=1, seconds=1)  # MySQL rounds up
    QueueItem.update(available_after=an_hour_ago).execute()
    assert run(sweeper).blobs_tried_again == 3
    assert [item.retries_remaining for item in quay.items()] == [1, 1, 1]
    assert run(sweeper).blobs_tried_again == 0


def test_last_try_that_is_in_somebodys_hands_is_left_alone(
    quay: Pipeline, sweeper: Sweeper
) -> None:
    quay.publish(IMAGE)
    quay.pull("proxy", IMAGE)
    QueueItem.update(
        retries_remaining=0,
        available=False,
        processing_expires=utcnow() + timedelta(seconds=60),
        available_after=utcnow() - timedelta(hours=2),
    ).execute()
    assert run(sweeper).blobs_tried_again == 0


def test_exhausted_item_whose_blob_was_placed_meanwhile_is_done(
    quay: Pipeline, sweeper: Sweeper
) -> None:
    quay.publish(IMAGE)
    quay.pull("proxy", IMAGE)
    for digest in IMAGE.blobs:
        quay.fetch_blob_in_request("proxy", IMAGE, digest)
    QueueItem.update(retries_remaining=0, available_after=utcnow() - timedelta(hours=2)).execute()
    assert run(sweeper).blobs_tried_again == 0
    assert quay.items() == []


def test_one_sweeper_at_a_time(quay: Pipeline, sweeper: Sweeper) -> None:
    with Lock(sweeper.redis, "rescan:rescan:sweep", expire=10):
        assert sweeper.sweep(lambda: False) is None
    assert sweeper.sweep(lambda: False) is not None


def test_sweep_that_was_cut_short_goes_on_where_it_was(
    quay: Pipeline, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "WINDOW", 1)
    first = placed(quay)
    quay.security_worker_looks_too_early(first)
    stopped = sweeper.sweep(lambda: True)
    assert stopped is not None
    assert sweeper.redis.hgetall(CURSOR) == {b"unsupported": str(first).encode()}
    assert run(sweeper).stuck == 0, "this sweep began after the page that the last one had done"
    assert not sweeper.redis.exists(CURSOR)
    assert run(sweeper).stuck == 1, "and the next one begins anew"


@pytest.mark.parametrize("value", ["-9000000000", "9" * 30, b"\x80\x04.", ""])
def test_cursor_that_nobody_of_ours_wrote_is_a_sweep_that_begins(
    quay: Pipeline, sweeper: Sweeper, value: str | bytes
) -> None:
    manifest_id = placed(quay)
    quay.security_worker_looks_too_early(manifest_id)
    sweeper.redis.hset(CURSOR, "unsupported", value)
    assert run(sweeper).stuck == 1


def test_keys_of_another_type_do_not_end_the_sweeps_for_good(
    quay: Pipeline, sweeper: Sweeper
) -> None:
    manifest_id = placed(quay)
    claim(quay, manifest_id, job_id_of(manifest_id), timedelta(0))
    for key in (CURSOR, f"rq:job:{job_id_of(manifest_id)}"):
        sweeper.redis.set(key, "planted")
    assert run(sweeper).enqueued == 1


def test_sweeper_whose_lock_redis_forgot_lives_on(quay: Pipeline, sweeper: Sweeper) -> None:
    manifest_id = placed(quay)
    quay.security_worker_looks_too_early(manifest_id)
    assert sweeper.sweep(lambda: bool(sweeper.redis.flushall())) is not None
    assert run(sweeper).enqueued == 1


def test_flushed_redis_loses_nothing(quay: Pipeline, sweeper: Sweeper) -> None:
    manifest_id = placed(quay)
    quay.security_worker_looks_too_early(manifest_id)
    run(sweeper)
    sweeper.redis.flushall()
    assert run(sweeper).enqueued == 1


def test_organisations_that_are_no_proxy_are_none_of_ours(quay: Pipeline) -> None:
    manifest_id = placed(quay)
    assert next_page(Stuck.NO_ROW, 0).manifest_ids == (manifest_id,)
    assert next_page(Stuck.NO_ROW, 0, namespace="mirror").manifest_ids == ()


def test_a_page_costs_two_statements(
    quay: Pipeline, count_statements: Callable[[], list[str]]
) -> None:
    manifest_id = placed(quay)
    quay.security_worker_looks_too_early(manifest_id)
    before = len(count_statements())
    page = next_page(Stuck.UNSUPPORTED, 0)
    (complete,) = find_complete(page.manifest_ids)
    assert len(count_statements()) - before == 2
    assert complete.completed.manifest_id == manifest_id
    assert last_manifest_id() == manifest_id
    assert ManifestSecurityStatus.select().count() == 1
