"""What the commands work on: settings, the two lanes, and a manifest by its reference."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from redis import Redis

from data.authorities import trust_extra_authorities
from data.errors import NotFoundError
from data.manifest_records import ManifestRecord, find_manifest, load_manifest
from data.policy import PolicyDecision
from data.secscan.story import Evidence, JobState, gather_evidence
from data.settings import Settings, conf_directory, read_settings
from queues.redisclient import open_redis
from queues.rescanjob import RescanJob
from queues.rescanqueue import RescanQueue, job_id_of
from queues.wiring import build_database, build_queue, decide_for

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="PATH", help="Quay's config.yaml (default: Quay's own)."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One command's collaborators; the database is bound only when `with_database` asked."""

    settings: Settings
    redis: Redis
    queue: RescanQueue
    backfill: RescanQueue

    @property
    def timeout(self) -> int:
        return int(self.settings.rescan.job_timeout)

    def policy(self, record: ManifestRecord) -> PolicyDecision:
        return decide_for(
            self.settings, record.namespace, record.repository, proxied=record.proxied
        )

    def job_state(self, manifest_id: int) -> JobState | None:
        job = RescanJob.fetch_quietly(job_id_of(manifest_id), self.redis)
        if job is None:
            return None
        return JobState(
            status=job.get_status(refresh=False).value,
            lane=job.origin,
            attempts=(job.number_of_retries or 0) + 1,
            waiting_for=str(job.meta.get("waiting_for", "")),
            error=job.failure_reason(),
        )

    def evidence(self, record: ManifestRecord) -> Evidence:
        return gather_evidence(record, self.job_state(record.manifest_id), self.policy(record))


def open_context(config: Path | None, *, with_database: bool = False) -> Context:
    """Raises `SettingsError` for a wrong configuration; nothing is asked of a server yet."""
    trust_extra_authorities(conf_directory(config, os.environ), os.environ)
    settings = read_settings(config)
    if with_database:
        build_database(settings)
    redis = open_redis(settings.redis, patient=False)
    return Context(
        settings=settings,
        redis=redis,
        queue=build_queue(settings, redis),
        backfill=build_queue(settings, redis, backfill=True),
    )


def resolve(reference: str | None, manifest_id: int | None) -> ManifestRecord:
    """The manifest that REF or --manifest-id names. Raises `NotFoundError`."""
    if manifest_id is not None:
        record = load_manifest(manifest_id)
        if record is None:
            raise NotFoundError(f"Quay has no manifest with the id {manifest_id}")
        return record
    if reference is None:
        raise NotFoundError("name a manifest: org/repo:tag, org/repo@sha256:.. or --manifest-id N")
    return find_manifest(reference)
