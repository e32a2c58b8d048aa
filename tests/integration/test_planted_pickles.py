"""A pickle in every field of every record in Redis: no worker and no command ever loads one."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from typer.testing import CliRunner

from data.secscan.status import Reason
from data.settings import build_settings
from queues.__main__ import app
from queues.rescanjob import RESCAN_FIELDS
from queues.rescanqueue import RescanQueue, backfill_lane
from tests.integration.pipeline import Pipeline, pipeline
from tests.programs import Program
from tests.workers.ops.conftest import TOKEN, serving
from workers.demo.sampleimages import alpine_image

IMAGE = alpine_image("library/app")
REFERENCE = f"proxy/library/app:{IMAGE.tag}"
# Those that RQ writes for any job, ours or not.
OTHERS = ("result", "webhooks", "success_callback_name", "failure_callback_name", "dependency_ids")
FIELDS = sorted({field.decode() for field in RESCAN_FIELDS} | {"rank", "deaths", *OTHERS})
RESULTS = (("1", "return_value"), ("2", "exc_string"))
STATES = ("queued", "started", "scheduled", "failed", "finished", "canceled", "deferred")
WORKERS = ("proxycacheblobworker", "rescanworker", "securityworker", "sweepworker")
COMMANDS = (
    ["enqueue", REFERENCE],
    ["enqueue", "--org", "proxy"],
    ["why", REFERENCE],
    ["show", REFERENCE],
    ["status"],
    *(["list", state] for state in STATES[:4]),
    ["retry", REFERENCE],
    ["retry", "--all-failed"],
    ["cancel", REFERENCE],
    ["pause"],
    ["resume"],
    ["drain", "--timeout", "0"],
    ["backfill"],
    ["backfill", "--dry-run"],
    ["doctor"],
)
PAGES = ("/", "/readyz", "/metrics", "/rescans/1")


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def config(
    sqlite_database: str, redis: Redis, tmp_path: Path, canary: Path
) -> Iterator[dict[str, Any]]:
    """Of a Quay that has work, beside a Redis in which somebody planted his own."""
    with pipeline(sqlite_database, redis, tmp_path) as quay:
        fill(quay, redis)
        plant(redis, pickle.dumps(Canary(str(canary))))
        own = {"RESCAN_MAX_CONCURRENT_INDEXES": 1, "RESCAN_OPS_TOKEN": TOKEN}
        config = quay.config | own | {"RESCAN_OPS_LISTEN": "127.0.0.1:0"}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        yield config


def fill(quay: Pipeline, redis: Redis) -> None:
    """Every kind of record that we or RQ keep, as the programs themselves would leave it."""
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    quay.run()
    assert pulled.manifest_id == 1
    quay.security_worker_looks_too_early(pulled.manifest_id)
    now = int(redis.time()[0])
    numbers = itertools.count(100)
    for lane in ("rescan", backfill_lane("rescan")):
        queue = RescanQueue(lane, connection=redis)
        batch = redis.pipeline(transaction=False)
        for state, _ in itertools.product(STATES, FIELDS):
            job_id = f"rescan-{(number := next(numbers))}"
            queue.enqueue_rescan(number, Reason.EVENT, timeout=60)
            batch.hset(f"rq:job:{job_id}", "status", state)
            if state == "queued":
                continue
            batch.lrem(queue.key, 1, job_id)
            run = ":run" if state == "started" else ""
            batch.zadd(f"rq:{'wip' if run else state}:{lane}", {job_id + run: now - 100})
            batch.hset(f"rq:execution:{job_id}:run", "created_at", "x")
        batch.execute()
        redis.rpush(f"rq:queue:{lane}:intermediate", f"rescan-{next(numbers)}")
        redis.sadd(f"rq:workers:{lane}", "rq:worker:w")
    redis.sadd("rq:workers", "rq:worker:w")
    redis.hset("rq:worker:w", mapping={"birth": "x", "queues": "rescan", "pid": 1, "state": "x"})
    digest, day = f"sha256:{'a' * 64}", datetime.now(UTC)
    for name in ("circuit", "probe", "answers", "swept", "sampled", f"indexes:{digest}"):
        redis.set(f"rescan:rescan:{name}", "1")
    redis.set(f"rescan:rescan:unscannable:{day:%Y-%m-%d}", "")
    for name in ("again", "metrics", "organizations", "sweep:cursor", "backfill:cursor"):
        redis.hset(f"rescan:rescan:{name}", mapping={"rescan-104": "1", "unsupported": "1"})
    redis.hset("rescan:rescan:organizations", "proxy/placed", "1")
    for name in ("popped", "organizations:used", "slots", "slots:backfill", "digests"):
        redis.zadd(f"rescan:rescan:{name}", {"proxy": now})
    redis.sadd("rescan:rescan:poison", "rescan-102")
    for name in ("events", "samples"):
        redis.lpush(f"rescan:rescan:{name}", json.dumps({"at": 1}))


def plant(redis: Redis, pickled: bytes) -> None:
    """In each job another field, so that none is passed over because of one read before it."""
    keys: Any = redis.keys("*")
    batch = redis.pipeline(transaction=False)
    for key in keys:
        if key.startswith(b"rq:job:rescan-"):
            number = int(key.removeprefix(b"rq:job:rescan-"))
            batch.hset(key, FIELDS[number % len(FIELDS)], pickled)
            kind, field = RESULTS[number % len(RESULTS)]
            batch.xadd(key.replace(b":job:", b":results:"), {"type": kind, field: pickled})
            continue
        match redis.type(key):
            case b"string":
                batch.set(key, pickled)
            case b"hash":
                fields: Any = redis.hkeys(key)
                batch.hset(key, mapping=dict.fromkeys([*fields, pickled], pickled))
            case b"list":
                batch.rpush(key, pickled)
            case b"set":
                batch.sadd(key, pickled)
            case b"zset":
                batch.zadd(key, {pickled: 1})
    batch.execute()


@pytest.mark.parametrize("worker", WORKERS)
def test_no_worker_loads_a_planted_pickle_and_each_lives(
    worker: str, config: dict[str, Any], tmp_path: Path, canary: Path
) -> None:
    program = Program(
        f"workers.{worker}",
        "--burst",
        "--config",
        str(tmp_path / "config.yaml"),
        log=tmp_path / "log",
    )
    try:
        code = program.wait(60)
    finally:
        program.kill()
    said = program.log.read_text()
    assert code == 0, said
    assert "Traceback" not in said, said
    assert not canary.exists()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_loads_a_planted_pickle_and_each_answers(
    command: list[str], config: dict[str, Any], tmp_path: Path, canary: Path
) -> None:
    arguments = [*command, "--config", str(tmp_path / "config.yaml")]
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments)
    assert result.exit_code in {0, 1}, result.output
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert not canary.exists()


def test_the_ops_server_loads_no_planted_pickle_and_answers(
    config: dict[str, Any], tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(build_settings(config, tmp_path), monkeypatch) as running:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answers = {path: running.get(path, headers=headers).status_code for path in PAGES}
        answers["POST"] = running.ask({"manifest_id": 1}).status_code
    assert answers == dict.fromkeys(PAGES, 200) | {"POST": 202}
    assert not canary.exists()


def test_whoever_loads_one_is_found_out(config: dict[str, Any], redis: Redis, canary: Path) -> None:
    planted: Any = redis.get("rescan:rescan:swept")
    pickle.loads(planted)  # noqa: S301
    assert canary.exists()
