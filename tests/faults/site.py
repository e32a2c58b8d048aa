"""A Quay whose workers are real processes, which a test starts, kills and reads the logs of."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from redis import Redis

from data.faultpoints import VARIABLE, FaultPoint
from data.proxycache import PulledManifest
from data.secscan.status import IndexStatus, Reason
from queues.rescanqueue import Enqueued, RescanQueue
from tests.integration.pipeline import Pipeline, pipeline
from tests.programs import Program
from workers.demo.images import Image
from workers.demo.sampleimages import alpine_image

TICK_SECONDS = 0.01
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@dataclass(slots=True)
class Worker:
    """One started `python -m workers.<name>` and all its children."""

    process: Program | subprocess.Popen[bytes]
    log: Path
    died: Path  # made by the process that hits its fault point, at that moment

    @property
    def pid(self) -> int:
        return self.process.pid

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The lines of its log so far, all or those of one event."""
        whole, _, _ = self.log.read_text(errors="replace").rpartition("\n")
        lines = whole.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in events if name in (None, event["event"])]

    def says(self, name: str) -> bool:
        return bool(self.events(name))

    @property
    def died_at(self) -> float:
        """A file's time is up to a tick of the kernel behind the clock that the log goes by."""
        return self.died.stat().st_mtime + TICK_SECONDS

    def lift_file_limit(self) -> None:
        """The file size limit that it was started with is gone, for it and its children."""
        for pid in [self.pid, *children_of(self.pid)]:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, NO_LIMIT)

    def kill(self) -> None:
        """SIGKILL; its children die with it."""
        self.process.kill()
        self.process.wait()


@dataclass(slots=True)
class Site:
    """A pipeline of `tests.integration`, and the processes that work on it."""

    quay: Pipeline
    directory: Path
    redis: Redis
    workers: list[Worker] = field(default_factory=list)

    def start(
        self,
        program: str,
        *,
        fault: FaultPoint | None = None,
        largest_file: int | None = None,  # bytes
        new_python: Mapping[str, str] | None = None,
        **config: Any,
    ) -> Worker:
        """Starts `python -m <program>` with the site's config.yaml and `config` on top of it.

        With `new_python`, environment variables that Python reads as it starts, it isn't forked.
        """
        name = f"{len(self.workers):02}"
        path = self.directory / f"config-{name}.yaml"
        path.write_text(yaml.safe_dump(self.quay.config | config))
        log, died = self.directory / f"log-{name}.json", self.directory / f"died-{name}"
        arguments = ["--config", str(path)]
        variables = {"JSONLOG": "true"}
        if fault is not None:
            variables[VARIABLE] = f"{fault.value}@{died}"
        process: Program | subprocess.Popen[bytes]
        if new_python is None:
            process = Program(
                program, *arguments, log=log, environment=variables, largest_file=largest_file
            )
        else:
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    [sys.executable, "-m", program, *arguments],
                    stderr=stream,
                    env={**os.environ, **variables, **new_python},
                    start_new_session=True,
                )
        worker = Worker(process, log, died)
        self.workers.append(worker)
        return worker

    def pull(self, name: str, *, place: bool = True) -> tuple[Image, PulledManifest]:
        """Pulls an image that shares nothing with another; its row says -2, as Quay leaves it.

        With `place` the registry has placed every blob already, in the client's requests.
        """
        image = image_of_its_own(name)
        self.quay.publish(image)
        pulled = self.quay.pull("proxy", image)
        self.quay.security_worker_looks_too_early(pulled.manifest_id)
        if place:
            for digest in image.blobs:
                self.quay.fetch_blob_in_request("proxy", image, digest)
        return image, pulled

    def enqueue(
        self, manifest_id: int, *, queue: str = "rescan", reason: Reason = Reason.EVENT
    ) -> Enqueued:
        lane = RescanQueue(queue, connection=self.redis)
        return lane.enqueue_rescan(manifest_id, reason, timeout=660)

    def pids_of_rescan_workers(self, queue: str = "rescan") -> list[int]:
        """Of the processes that take jobs of this lane, as they registered themselves."""
        keys = self.redis.smembers(f"rq:workers:{queue}")
        pids = [self.redis.hget(key, "pid") for key in keys]
        return [int(pid) for pid in pids if pid is not None]

    def is_completed(self, manifest_id: int) -> bool:
        return self.quay.status(manifest_id) is IndexStatus.COMPLETED

    def wrong_files(self) -> list[Path]:
        """Files below a blob's path whose bytes are not the blob."""
        blobs = self.quay.storage_path / "sha256"
        return [
            file
            for file in blobs.glob("??/*")
            if hashlib.sha256(file.read_bytes()).hexdigest() != file.name
        ]


def children_of(pid: int) -> list[int]:
    """All descendants of a process, the nearest first."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(each) for each in children] + [
        grandchild for each in children for grandchild in children_of(int(each))
    ]


def image_of_its_own(name: str) -> Image:
    payload = 2000 + int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 50_000
    return alpine_image(f"library/{name}", payload=payload)


@contextmanager
def site(database_uri: str, redis: Redis, directory: Path) -> Iterator[Site]:
    """On a database with Quay's tables that is already bound; every process is gone at the end."""
    directory.mkdir(exist_ok=True)
    with pipeline(database_uri, redis, directory) as quay:
        running = Site(quay, directory, redis)
        try:
            yield running
        finally:
            for worker in running.workers:
                worker.kill()
