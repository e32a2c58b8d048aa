"""What keeps the rescan queue moving without any one process: every worker does it, each pass.

RQ leaves this to a scheduler process whose lock lives 61 s, and to registries that fail a job whose
worker died; a job must be back within 30 s here. Each step is one atomic script, so any number
of workers may run it at once, and one that dies in the middle leaves nothing half done.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import structlog
from rq.utils import as_text, now, utcformat
from rq.worker_registration import clean_worker_registry

from data.secscan.status import Reason
from queues.rescanqueue import (
    FAILURE_SECONDS,
    RANK_OF_REASON,
    Rank,
    RescanQueue,
    manifest_id_of,
    read_script,
)

log = structlog.get_logger()

# A worker beats its heart every HEARTBEAT_SECONDS while it runs a job and is taken for dead after
# HEARTBEAT_LIFE_SECONDS; with a recovery pass every RECOVERY_SECONDS a job is back within 25 s.
HEARTBEAT_SECONDS = 5
HEARTBEAT_LIFE_SECONDS = 20
RECOVERY_SECONDS = 5
# Between the pop and the start of a job lie a few milliseconds; a pop this old was lost.
LOST_POP_SECONDS = 5
# A job whose worker died this often is poison: it takes workers down.
DEATHS_OF_POISON = 3
DUE_BATCH = 500

REASON_OF_RANK = {rank: reason for reason, rank in RANK_OF_REASON.items()}


@dataclass(slots=True)
class Housekeeping:
    """The passes over one lane. `timeout` (seconds) is for jobs that are enqueued again."""

    queue: RescanQueue
    timeout: int
    next_recovery: float = 0.0
    popped_since: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Due jobs at every call, the rest every RECOVERY_SECONDS."""
        self.enqueue_due()
        if time.monotonic() >= self.next_recovery:
            self.recover()
            self.next_recovery = time.monotonic() + RECOVERY_SECONDS

    def recover(self) -> None:
        self.recover_started()
        self.recover_popped()
        self.enqueue_again()
        self.forget_ended()

    def enqueue_due(self) -> int:
        """Queues the scheduled jobs whose time has come; returns how many."""
        script = self.queue.connection.register_script(read_script("enqueue_due"))
        keys = [f"rq:scheduled:{self.queue.name}", self.queue.key]
        moved = script(keys=keys, args=[time.time(), DUE_BATCH, utcformat(now())])
        return int(moved)

    def recover_started(self) -> None:
        """Gives back the jobs of dead workers; a job that killed three is set aside as poison."""
        script = self.queue.connection.register_script(read_script("recover_started"))
        name, moment = self.queue.name, time.time()
        given_back, set_aside = script(
            keys=[f"rq:wip:{name}", self.queue.key, f"rq:failed:{name}"],
            args=[moment, DEATHS_OF_POISON, utcformat(now()), int(moment + FAILURE_SECONDS)],
        )
        for job_id in given_back:
            log.warning("job given back", job=job_id.decode(), reason="its worker died")
        for job_id in set_aside:
            log.error(
                "job set aside as poison",
                job=job_id.decode(),
                manifest=manifest_id_of(job_id.decode()),
                deaths=DEATHS_OF_POISON,
            )

    def recover_popped(self) -> None:
        """Gives back jobs that were popped but never started, seen twice LOST_POP_SECONDS apart."""
        key = self.queue.intermediate_queue_key
        waiting = {as_text(each) for each in self.queue.connection.lrange(key, 0, -1)}
        moment = time.monotonic()
        self.popped_since = {
            job_id: self.popped_since.get(job_id, moment) for job_id in sorted(waiting)
        }
        script = self.queue.connection.register_script(read_script("recover_popped"))
        for job_id, since in self.popped_since.items():
            if moment - since >= LOST_POP_SECONDS:
                back = script(keys=[key, self.queue.key], args=[job_id])
                log.warning("popped job given back", job=job_id, queued=bool(back))

    def enqueue_again(self) -> None:
        """Enqueues the manifests that were asked for while their job ran, once it has ended."""
        asked = self.queue.connection.hgetall(self.queue.again_key)
        for job_id in asked:
            self.enqueue_once_more(as_text(job_id))

    def enqueue_once_more(self, job_id: str) -> None:
        """Keeps the promise of `Enqueued.RUNNING` to one job; nothing when nobody asked.

        The script takes the mark away in the step that queues the job, so a crash between the two
        commands here loses nothing.
        """
        rank = self.queue.connection.hget(self.queue.again_key, job_id)
        if rank is None:
            return
        reason = REASON_OF_RANK.get(Rank(int(rank)), Reason.SWEEP)
        main = RescanQueue(self.queue.main_lane, connection=self.queue.connection)
        main.enqueue_rescan(manifest_id_of(job_id), reason, timeout=self.timeout)

    def forget_ended(self) -> None:
        """Drops the ids of results that have expired, and of workers that are gone."""
        moment, name = time.time(), self.queue.name
        self.queue.connection.zremrangebyscore(f"rq:finished:{name}", 0, moment)
        self.queue.connection.zremrangebyscore(f"rq:failed:{name}", 0, moment)
        clean_worker_registry(self.queue)
