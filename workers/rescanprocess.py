"""RQ's in-process worker, made to keep the rescan queue's promises.

In process, because a forked child that connects anew took 250 ms a job where this takes 6. What a
fork would have given comes from two threads' worth of care: a heartbeat that lets others take the
job back when this process dies, and a watchdog that kills the process when a job hangs where no
signal reaches it; `workers.supervisor` starts it again.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import structlog
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import StartedJobRegistry
from rq.worker import WorkerStatus

from data.faultpoints import FaultPoint, reach
from queues.housekeeping import HEARTBEAT_LIFE_SECONDS, HEARTBEAT_SECONDS, Housekeeping
from queues.rescanjob import RescanJob
from queues.rescanqueue import RescanQueue
from workers.process import Stop

log = structlog.get_logger()

POP_SECONDS = 1
# How long past its time limit a job may run on before the process is killed: the limit itself is
# a signal, which a call into C code doesn't hear.
WATCHDOG_GRACE_SECONDS = 5


class RescanProcess(SimpleWorker):
    """Works on one lane of the rescan queue until `stop`."""

    queue_class: type[Queue] = RescanQueue
    job_class = RescanJob

    def __init__(
        self,
        queue: RescanQueue,
        *,
        stop: Stop,
        housekeeping: Housekeeping,
        may_work: Callable[[], bool],
    ) -> None:
        super().__init__([queue], connection=queue.connection, serializer=queue.serializer)
        self.log_job_description = False
        self.log_result_lifespan = False
        self.stop = stop
        self.lane = queue
        self.housekeeping = housekeeping
        self.may_work = may_work

    def _install_signal_handlers(self) -> None:
        """The process's own stop serves: asked for between jobs, it never loses a popped one."""

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self.stop.request(signum, frame)

    def subscribe(self) -> None:
        """RQ's remote commands (kill a horse, stop a job) mean nothing in this process."""

    def unsubscribe(self) -> None:
        """See `subscribe`."""

    def check_for_suspension(self, burst: bool) -> None:
        """`python -m queues pause` is looked at before each pop, for our queue alone."""

    def run_maintenance_tasks(self) -> None:
        """The housekeeping of the pop loop takes the place of RQ's, which fails lost jobs."""

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """The next job; None when a stop is asked for or, in burst mode, nothing is queued."""
        del max_idle_time
        self.set_state(WorkerStatus.IDLE)
        while not self.stop.requested:
            try:
                self.heartbeat()
                self.housekeeping.run()
                if self.lane.connection.exists(self.lane.paused_key) or not self.may_work():
                    if timeout is None:
                        return None
                    self.stop.wait(POP_SECONDS)
                    continue
                return self.pop(None if timeout is None else POP_SECONDS)
            except DequeueTimeout:
                continue
            except RedisError as error:
                log.warning("queue not reachable", error=str(error))
                self.stop.wait(POP_SECONDS)
        return None

    def pop(self, timeout: int | None) -> tuple[Job, Queue] | None:
        """One atomic move from the queue to the intermediate queue, single queue as it is."""
        return RescanQueue.dequeue_any(
            [self.lane],
            timeout,
            connection=self.connection,
            job_class=self.job_class,
            serializer=self.serializer,
            death_penalty_class=self.death_penalty_class,
        )

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Runs the job under heartbeat and watchdog, unless it is no rescan or not ours to run."""
        if job.origin != self.lane.name or job.get_status(refresh=False) != JobStatus.QUEUED:
            # A second entry for the same id: the job moved to another lane, or has run.
            self.lane.intermediate_queue.remove(job.id)
            return
        refusal = job.refusal() if isinstance(job, RescanJob) else "it is no rescan job"
        if refusal is not None:
            self.refuse(job, refusal)
            return
        reach(FaultPoint.JOB_POPPED)
        execution = self.prepare_execution(job)
        reach(FaultPoint.JOB_REGISTERED)
        with self.beating(job, execution):
            self.perform_job(job, queue, execution)
        reach(FaultPoint.JOB_ENDED)
        self.set_state(WorkerStatus.IDLE)
        self.housekeeping.enqueue_once_more(job.id)

    def refuse(self, job: Job, refusal: str) -> None:
        """Puts a job of another kind among the failed ones, with the reason, without running it."""
        reason = f"refused: {refusal}"
        log.error("job refused", job=job.id, reason=refusal)
        with self.connection.pipeline() as pipeline:
            pipeline.hset(job.key, mapping={"status": JobStatus.FAILED.value, "exc_info": reason})
            job.failed_job_registry.add(job, ttl=7 * 86400, pipeline=pipeline)
            pipeline.lrem(self.lane.intermediate_queue_key, 1, job.id)
            pipeline.execute()

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        del job, working_time
        return HEARTBEAT_LIFE_SECONDS

    @contextmanager
    def beating(self, job: Job, execution: Execution) -> Iterator[None]:
        """Beats the job's heart every HEARTBEAT_SECONDS, and watches its time limit."""
        ended = threading.Event()
        limit = float(job.timeout or RescanQueue.DEFAULT_TIMEOUT) + WATCHDOG_GRACE_SECONDS
        heart = threading.Thread(
            target=self.beat, args=(job, execution, ended, limit), name="heartbeat", daemon=True
        )
        heart.start()
        try:
            yield
        finally:
            ended.set()
            heart.join()

    def beat(self, job: Job, execution: Execution, ended: threading.Event, limit: float) -> None:
        started = time.monotonic()
        while not ended.wait(HEARTBEAT_SECONDS):
            if time.monotonic() - started > limit:
                log.error("job hangs, worker ends itself", job=job.id, seconds=limit)
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                self.maintain_heartbeats(job, execution)
            except RedisError as error:
                log.warning("heartbeat missed", job=job.id, error=str(error))

    def owns(self, execution: Execution) -> bool:
        """Whether nobody took this worker for dead and gave its job to another."""
        key = f"rq:wip:{self.lane.name}"
        if self.connection.zscore(key, execution.composite_key) is not None:
            return True
        log.warning("job was given to another worker meanwhile", job=execution.job_id)
        self.executions.pop(execution.id, None)
        return False

    def handle_job_success(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: StartedJobRegistry,
        execution: Execution,
    ) -> None:
        if self.owns(execution):
            super().handle_job_success(job, queue, started_job_registry, execution)

    def handle_job_retry(self, job: Job, queue: Queue, *args: Any, **kwargs: Any) -> None:
        execution: Execution = kwargs.get("execution") or args[-1]
        if self.owns(execution):
            super().handle_job_retry(job, queue, *args, **kwargs)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        if execution is None or self.owns(execution):
            super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)
