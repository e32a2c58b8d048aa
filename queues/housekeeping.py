"""What keeps the rescan queue moving without any one process: every worker does it, each pass.

RQ leaves this to a scheduler process whose lock lives 61 s, and to registries that fail a job whose
worker died; a job must be back within 30 s here. Each step is one atomic script on the server's
clock, so any number of workers may run it at once, and one that dies in the middle leaves nothing
half done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from rq.utils import now, utcformat

from data.errors import DataError
from data.secscan.status import Reason
from queues.rescanjob import is_rescan_id, readable
from queues.rescanqueue import (
    FAILURE_SECONDS,
    RANK_OF_REASON,
    RescanQueue,
    manifest_id_of,
    read_script,
)
from queues.rescanruns import HEARTBEAT_LIFE_SECONDS

log = structlog.get_logger()

RECOVERY_SECONDS = 5
# Between the pop and the start of a job lie a few milliseconds; a pop this old was lost.
LOST_POP_SECONDS = 5
# A job whose worker died this often in a row is poison: it takes workers down.
DEATHS_OF_POISON = 3
# No job waits longer than an hour for its next try; what says so was written by a wrong clock.
LONGEST_WAIT_SECONDS = 3700
DUE_BATCH = 500

REASON_OF_RANK = {str(rank.value): reason for reason, rank in RANK_OF_REASON.items()}


@dataclass(slots=True)
class Housekeeping:
    """The passes over one lane. `timeout` (seconds) is for jobs that are enqueued again.

    `give_up` tells the manifest's row that its job was set aside, and why.
    """

    queue: RescanQueue
    timeout: int
    give_up: Callable[[int, str], object]
    next_recovery: float = 0.0

    def run(self) -> None:
        """Due jobs at every call, the rest every RECOVERY_SECONDS."""
        self.enqueue_due()
        if time.monotonic() >= self.next_recovery:
            self.recover()
            self.next_recovery = time.monotonic() + RECOVERY_SECONDS

    def recover(self) -> None:
        self.recover_lost()
        self.settle_poison()
        self.enqueue_again()
        self.forget_ended()

    def enqueue_due(self) -> int:
        """Queues the scheduled jobs whose time has come; returns how many."""
        script = self.queue.connection.register_script(read_script("enqueue_due"))
        keys = [f"rq:scheduled:{self.queue.name}", self.queue.key]
        return int(script(keys=keys, args=[DUE_BATCH, utcformat(now())]))

    def recover_lost(self) -> None:
        """Gives back the jobs of dead workers; a job that killed three is set aside as poison."""
        script = self.queue.connection.register_script(read_script("recover"))
        name = self.queue.name
        given_back, set_aside = script(
            keys=[
                self.queue.key,
                self.queue.intermediate_queue_key,
                f"rq:wip:{name}",
                f"rq:failed:{name}",
                f"rq:scheduled:{name}",
                f"rescan:{name}:popped",
                self.poison_key,
            ],
            args=[
                HEARTBEAT_LIFE_SECONDS,
                LOST_POP_SECONDS,
                DEATHS_OF_POISON,
                FAILURE_SECONDS,
                LONGEST_WAIT_SECONDS,
                utcformat(now()),
            ],
        )
        for job_id in given_back:
            log.warning("job given back", job=readable(job_id), reason="its worker died")
        for job_id in set_aside:
            job = readable(job_id)
            manifest = manifest_id_of(job) if is_rescan_id(job) else None
            log.error(
                "job set aside as poison", job=job, manifest=manifest, deaths=DEATHS_OF_POISON
            )

    def settle_poison(self) -> None:
        """Says in the manifest's row what a person then reads; kept in Redis until it is said."""
        for member in self.queue.connection.smembers(self.poison_key):
            job_id = readable(member)
            try:
                if is_rescan_id(job_id):
                    self.give_up(manifest_id_of(job_id), job_id)
            except DataError as error:
                log.warning("poison not recorded, tried again", job=job_id, error=str(error))
            else:
                self.queue.connection.srem(self.poison_key, member)

    def enqueue_again(self) -> None:
        """Enqueues the manifests that were asked for while their job ran, once it has ended."""
        for job_id in self.queue.connection.hkeys(self.queue.again_key):
            self.enqueue_once_more(readable(job_id))

    def enqueue_once_more(self, job_id: str) -> None:
        """Keeps the promise of `Enqueued.RUNNING` to one job; nothing when nobody asked.

        The script takes the mark away in the step that queues the job, so a crash between the two
        commands here loses nothing.
        """
        rank = self.queue.connection.hget(self.queue.again_key, job_id)
        if rank is None or not is_rescan_id(job_id):
            return
        reason = REASON_OF_RANK.get(readable(rank), Reason.SWEEP)
        main = RescanQueue(self.queue.main_lane, connection=self.queue.connection)
        main.enqueue_rescan(manifest_id_of(job_id), reason, timeout=self.timeout)

    def forget_ended(self) -> None:
        """Drops the ids of results that have expired, and of workers that are gone."""
        moment, name = time.time(), self.queue.name
        self.queue.connection.zremrangebyscore(f"rq:finished:{name}", 0, moment)
        self.queue.connection.zremrangebyscore(f"rq:failed:{name}", 0, moment)
        self.forget_dead_workers()

    def forget_dead_workers(self) -> None:
        """As RQ's `clean_worker_registry`, which a name that is no text ends, and us with it."""
        redis, key = self.queue.connection, f"rq:workers:{self.queue.name}"
        names = list(redis.smembers(key))
        with redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.exists(name)
            known = pipeline.execute()
        gone = [name for name, exists in zip(names, known, strict=True) if not exists]
        if gone:
            redis.srem(key, *gone)
            redis.srem("rq:workers", *gone)

    @property
    def poison_key(self) -> str:
        return f"rescan:{self.queue.name}:poison"
