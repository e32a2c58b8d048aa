"""A Quay in full swing, for the page: rows, jobs, events and samples, mostly by our own code."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import timedelta

from data.blob_records import record_placement
from data.manifest_records import load_manifest
from data.metrics import LATENCY_BUCKETS
from data.models import (
    ImageStorageLocation,
    Manifest,
    ManifestSecurityStatus,
    MediaType,
    new_uuid,
    utcnow,
)
from data.proxycache import create_proxy_organization, create_repository, link_blob, named_id
from data.secscan.rescan import Outcome, RescanRequest, RescanResult
from data.secscan.status import IndexStatus, Reason
from data.settings import Settings
from queues.blobwork import BlobWork, put_blob_work
from queues.metricstore import SAMPLE_SECONDS, SAMPLES_KEPT, MetricStore
from queues.rescanqueue import job_id_of
from queues.workqueue import WorkQueue
from workers.reporter import Reporter
from workers.wiring import build_queue, build_redis, build_reporter

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
REPOSITORIES = (
    "docker-hub/library/nginx",
    "docker-hub/library/postgres",
    "docker-hub/library/redis",
    "docker-hub/grafana/grafana",
    "ghcr/platform/api",
    "ghcr/platform/web",
    "team-blue/mirror/base",
)
REJECTED = "Clair rejected the manifest: layer sha256:9f2c is no tar archive"
LAYERS = 7


@dataclass(slots=True)
class Filled:
    """Manifest ids by where they stand."""

    done: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    complete: list[int] = field(default_factory=list)


def digest_of(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def fill(settings: Settings) -> Filled:
    """Fills the database that is bound and the Redis of the settings."""
    ImageStorageLocation.create(name="default")
    filled = Filled()
    for organization in sorted({name.partition("/")[0] for name in REPOSITORIES}):
        create_proxy_organization(organization, "registry.example", insecure=False)
    for name in REPOSITORIES:
        add_repository(name, filled)
    add_jobs(settings, filled)
    reporter = build_reporter(settings)
    add_events(reporter, filled)
    add_samples(reporter.store)
    return filled


def add_repository(name: str, filled: Filled) -> None:
    organization, _, repository = name.partition("/")
    repository_id = create_repository(organization, repository)
    for version in range(4):
        manifest_id = add_manifest(repository_id, f"{name}:{version}")
        if version < 2:
            add_status(manifest_id, repository_id, IndexStatus.COMPLETED, minutes=7 * version + 1)
            filled.done.append(manifest_id)
        elif version == 2 and organization == "ghcr":
            add_status(manifest_id, repository_id, IndexStatus.FAILED, minutes=4, error=REJECTED)
            filled.failed.append(manifest_id)
        elif version == 3 and "library" in name:
            placed = 1 + 2 * len(filled.waiting)
            wait_for_blobs(manifest_id, repository_id, organization, f"{name}:{version}", placed)
            filled.waiting.append(manifest_id)
        else:
            filled.complete.append(manifest_id)


def add_manifest(repository_id: int, name: str) -> int:
    layers = [digest_of(f"{name} layer {n}") for n in range(LAYERS)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(f"{name} config"), "size": 2},
        "layers": [{"mediaType": OCI_LAYER, "digest": digest, "size": 9} for digest in layers],
    }
    manifest_id = int(
        Manifest.insert(
            repository_id=repository_id,
            digest=digest_of(name),
            media_type_id=named_id(MediaType, OCI_MANIFEST),
            manifest_bytes=json.dumps(manifest),
        ).execute()
    )
    for digest in layers:
        link_blob(repository_id, manifest_id, digest, 9)
    return manifest_id


def add_status(
    manifest_id: int, repository_id: int, status: IndexStatus, *, minutes: int, error: str = ""
) -> None:
    ManifestSecurityStatus.insert(
        manifest_id=manifest_id,
        repository_id=repository_id,
        index_status=status,
        indexer_hash="state",
        indexer_version=4,
        last_indexed=utcnow() - timedelta(minutes=minutes),
        error_json=json.dumps(error),
        metadata_json='{"retry_count": 1}' if error else "{}",
    ).execute()


def wait_for_blobs(
    manifest_id: int, repository_id: int, organization: str, name: str, placed: int
) -> None:
    del manifest_id
    items = WorkQueue("proxycacheblob")
    for n in range(LAYERS):
        digest = digest_of(f"{name} layer {n}")
        if n < placed:
            record_placement(
                digest, repository_id=repository_id, location="default", size=9, keep_seconds=3600
            )
        else:
            work = BlobWork(digest=digest, repository_id=repository_id, namespace=organization)
            put_blob_work(items, work, available_after=-20)


def add_jobs(settings: Settings, filled: Filled) -> None:
    """Queued, running and failed jobs, a worker, as RQ leaves them in Redis."""
    redis = build_redis(settings)
    queue = build_queue(settings, redis)
    queue.enqueue_rescans(filled.complete, Reason.EVENT, timeout=660)
    *_, failed, running = filled.complete
    for manifest_id in (failed, running):
        redis.lrem(queue.key, 1, job_id_of(manifest_id))
    moment = (utcnow() - timedelta(seconds=12)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    redis.hset(f"rq:job:{job_id_of(running)}", mapping={"status": "started", "started_at": moment})
    redis.zadd(f"rq:wip:{queue.name}", {f"{job_id_of(running)}:{new_uuid()}": time.time() + 60})
    meta = json.dumps(
        {"waiting_for": "no location holds layer sha256:77ab; it was asked for again"}
    )
    redis.hset(
        f"rq:job:{job_id_of(failed)}",
        mapping={"status": "failed", "ended_at": moment, "meta": meta},
    )
    redis.zadd(f"rq:failed:{queue.name}", {job_id_of(failed): time.time() + 3600})
    for n in range(4):
        redis.sadd(f"rq:workers:{queue.name}", f"rq:worker:{n}")
        redis.hset(f"rq:worker:{n}", "state", "idle")
    redis.close()


def add_events(reporter: Reporter, filled: Filled) -> None:
    manifests = [*filled.done, *filled.failed]
    for manifest_id in manifests:
        record = Manifest.get_by_id(manifest_id)
        name = REPOSITORIES[record.repository_id - 1]
        for _ in range(LAYERS):
            reporter.blob_placed(name.partition("/")[0], 31_000_000)
        reporter.complete(manifest_id, record.digest, name)
        done = manifest_id in filled.done
        result = RescanResult(
            manifest_id=manifest_id,
            outcome=Outcome.COMPLETED if done else Outcome.FAILED,
            digest=record.digest,
            repository=name,
            error="" if done else REJECTED,
        )
        reporter.rescanned(RescanRequest(manifest_id=manifest_id, reason=Reason.EVENT), result)
        reporter.metrics.index.observe(0.4)
        reporter.metrics.last_blob_to_index.observe(0.02)
        loaded = load_manifest(manifest_id)
        assert loaded is not None
        reporter.reset(loaded)
    reporter.blob_failed(
        "ghcr/platform/web", "registry.example: 503 for sha256:1d0f", given_up=True
    )
    now, count = time.time(), len(reporter.events)
    reporter.events = deque(
        replace(event, at=now - 11 * (count - n)) for n, event in enumerate(reporter.events)
    )
    reporter.swept(stuck=9, enqueued=2)


def add_samples(store: MetricStore) -> None:
    """An hour with one wave of pulls in it; the latency grows with the queue."""
    store.take_sample_turn()  # the ops server's own would end the wave in the middle
    buckets = [0.0] * (len(LATENCY_BUCKETS) + 1)
    for n in range(SAMPLES_KEPT):
        age = (SAMPLES_KEPT - n) * SAMPLE_SECONDS
        wave = max(0.0, math.sin(n / SAMPLES_KEPT * 9.0)) ** 3
        latency = 0.03 + 4 * wave**2 + 0.01 * math.sin(n / 9)
        for index, edge in enumerate([*LATENCY_BUCKETS, math.inf]):
            buckets[index] += sum(latency * factor <= edge for factor in (0.4, 0.8, 1, 1.5, 2.2))
        store.add_sample(
            {
                "at": time.time() - age,
                "queued": round(42 * wave * (1 + 0.05 * math.sin(n * 1.7))) + int(n % 23 < 3),
                "started": round(min(4, 1 + 6 * wave)),
                "scheduled": round(9 * max(0.0, math.sin((n - 20) / SAMPLES_KEPT * 9.0)) ** 4),
                "latency": list(buckets),
            }
        )
