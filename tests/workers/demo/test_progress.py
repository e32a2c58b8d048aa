"""The demo is over when nothing is on its way, wherever a job may just be."""

from __future__ import annotations

import pytest
from redis import Redis

from data.secscan.status import Reason
from queues.rescanqueue import RescanQueue, job_id_of
from workers.demo.progress import count_jobs


@pytest.fixture
def rescans(redis: Redis) -> RescanQueue:
    return RescanQueue("rescan", connection=redis)


def test_a_queued_job_counts_and_no_job_is_none(rescans: RescanQueue) -> None:
    assert count_jobs(rescans) == 0
    rescans.enqueue_rescan(7, Reason.EVENT, timeout=60)
    assert count_jobs(rescans) == 1


def test_a_job_counts_that_a_worker_took_and_has_not_begun(
    rescans: RescanQueue, redis: Redis
) -> None:
    rescans.enqueue_rescan(7, Reason.EVENT, timeout=60)
    redis.lmove(rescans.key, rescans.intermediate_queue_key)
    assert rescans.depth().queued + rescans.depth().started == 0
    assert count_jobs(rescans) == 1


@pytest.mark.parametrize("registry", ["started_job_registry", "scheduled_job_registry"])
def test_a_job_counts_that_runs_or_waits(rescans: RescanQueue, redis: Redis, registry: str) -> None:
    redis.zadd(getattr(rescans, registry).key, {job_id_of(7): 1})
    assert count_jobs(rescans) == 1


def test_a_wish_for_one_more_look_counts(rescans: RescanQueue, redis: Redis) -> None:
    redis.hset(rescans.again_key, job_id_of(7), 1)
    depth = rescans.depth()
    assert (depth.queued, depth.started, depth.scheduled) == (0, 0, 0)
    assert count_jobs(rescans) == 1
