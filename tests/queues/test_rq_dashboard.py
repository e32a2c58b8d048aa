"""rq-dashboard, told our queue's module as in the README: it shows and requeues, runs nothing.

`rq info` and `rq requeue` are in `test_rescanqueue.py`.
"""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import requests
from redis import Redis
from rq.results import Result

from data.secscan.status import Reason
from queues.rescanjob import RescanJob
from queues.rescanqueue import RescanQueue
from tests.queues.test_rescanqueue import Canary
from tests.servers import free_port, wait_until

README = Path(__file__).parent.parent.parent / "README.md"
JOB, KEY = "rescan-7", "rq:job:rescan-7"
# What the page asks for: the queues, each list of jobs, the job, and the workers.
LISTS = ("queued", "started", "failed", "finished", "scheduled")
PATHS = (
    "/0/data/queues.json",
    *(f"/0/data/jobs/rescan/{name}/8/asc/1.json" for name in LISTS),
    f"/0/data/job/{JOB}.json",
    "/0/data/workers.json",
)


def options_in_readme() -> list[str]:
    """Of the README's command, but for the address of Redis."""
    found = re.search(r"^    rq-dashboard (.+) --redis-url ", README.read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


@contextmanager
def dashboard(redis: Redis, options: list[str], directory: Path) -> Iterator[str]:
    """rq-dashboard as a process of its own; yields its address."""
    port, redis_port = free_port(), redis.connection_pool.connection_kwargs["port"]
    arguments = ["--bind", "127.0.0.1", "--port", str(port)]
    address = ["--redis-url", f"redis://127.0.0.1:{redis_port}"]
    with (directory / "dashboard.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "rq_dashboard", *arguments, *options, *address],
            stdout=log,
            stderr=log,
            env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"},
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(url), 30, "rq-dashboard answers")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).ok
    except requests.ConnectionError:
        return False


@pytest.fixture
def queue(redis: Redis) -> RescanQueue:
    """A job that waits, and one that failed, with what a failed job has."""
    queue = RescanQueue("rescan", connection=redis)
    queue.enqueue_rescan(8, Reason.EVENT, timeout=660)
    queue.enqueue_rescan(7, Reason.EVENT, timeout=660)
    redis.lrem(queue.key, 0, JOB)
    redis.hset(KEY, "status", "failed")
    Result.create_failure(RescanJob.fetch(JOB, connection=redis), 500, "Clair rejected it")
    redis.zadd("rq:failed:rescan", {JOB: 9e9})
    return queue


def test_it_shows_and_requeues_our_jobs(queue: RescanQueue, redis: Redis, tmp_path: Path) -> None:
    with dashboard(redis, options_in_readme(), tmp_path) as url:
        (shown,) = requests.get(url + PATHS[0], timeout=10).json()["queues"]
        assert (shown["name"], shown["count"], shown["failed_job_registry_count"]) == (
            "rescan",
            1,
            1,
        )
        failed = requests.get(f"{url}/0/data/jobs/rescan/failed/8/asc/1.json", timeout=10).json()
        assert failed["jobs"][0]["description"] == "manifest 7 (event)"
        assert "Clair rejected it" in failed["jobs"][0]["exc_info"]
        job = requests.get(f"{url}/0/data/job/{JOB}.json", timeout=10).json()
        assert job["status"] == "failed"
        assert requests.post(f"{url}/job/{JOB}/requeue", timeout=10).json() == {"status": "OK"}
    assert redis.lrange(queue.key, 0, -1) == [b"rescan-8", JOB.encode()]
    assert redis.hget(KEY, "status") == b"queued"


@pytest.mark.parametrize("told", [True, False])
def test_planted_pickle_runs_only_where_it_is_not_told(
    queue: RescanQueue, redis: Redis, tmp_path: Path, told: bool
) -> None:
    """By its own default it unpickles what it shows; that is why the README says so."""
    del queue
    canary = tmp_path / "canary"
    planted = pickle.dumps(Canary(str(canary)))
    redis.hset(KEY, mapping={"meta": planted, "data": planted})
    redis.zadd("rq:wip:rescan", {f"{JOB}:execution": 1})
    with dashboard(redis, options_in_readme() if told else [], tmp_path) as url:
        for path in PATHS:
            requests.get(url + path, timeout=10)
        requests.post(f"{url}/job/{JOB}/requeue", timeout=10)
        requests.post(f"{url}/requeue/rescan", timeout=10)
    assert canary.exists() is not told


def test_version_is_the_one_that_the_readme_names() -> None:
    assert f"rq-dashboard {version('rq-dashboard')}" in README.read_text()
