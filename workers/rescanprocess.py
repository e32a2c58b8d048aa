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
from rq import Queue, Retry, SimpleWorker, worker_registration
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import StartedJobRegistry
from rq.utils import now, utcformat
from rq.worker import WorkerStatus

from data.faultpoints import FaultPoint, reach
from queues.housekeeping import Housekeeping
from queues.rescanjob import RescanJob
from queues.rescanqueue import FAILURE_SECONDS, RescanQueue
from queues.rescanruns import HEARTBEAT_LIFE_SECONDS, HEARTBEAT_SECONDS, RescanRuns
from workers.process import Stop

log = structlog.get_logger()

POP_SECONDS = 1
# A worker's record in Redis lives this long after its last sign of life, one a second when it is
# idle and one every HEARTBEAT_SECONDS in a job. RQ's own 480 s would show the dead as workers.
WORKER_LIFE_SECONDS = 60
# How long past its time limit a job may run on before the process is killed: the limit itself is
# a signal, which a call into C code doesn't hear.
WATCHDOG_GRACE_SECONDS = 3


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
        self.runs = RescanRuns(queue)
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
                self.heartbeat(WORKER_LIFE_SECONDS)
                self.register_again()
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

    def register_again(self) -> None:
        """A Redis that lost everything has forgotten this worker, which shows in the counts."""
        if self.connection.hexists(self.key, "birth"):
            return
        with self.connection.pipeline() as pipeline:
            pipeline.hset(self.key, mapping=self.serialize())
            worker_registration.register(self, pipeline)
            pipeline.expire(self.key, WORKER_LIFE_SECONDS)
            pipeline.execute()

    def pop(self, timeout: int | None) -> tuple[Job, Queue] | None:
        """One atomic move from the queue to the intermediate queue, single queue as it is.

        What isn't even a job is refused here, and the next one popped.
        """
        while True:
            try:
                return RescanQueue.dequeue_any(
                    [self.lane],
                    timeout,
                    connection=self.connection,
                    job_class=self.job_class,
                    serializer=self.serializer,
                    death_penalty_class=self.death_penalty_class,
                )
            except (RedisError, DequeueTimeout):
                raise
            except Exception as error:  # noqa: BLE001 - RQ raises whatever the bytes provoke
                self.refuse(getattr(error, "job_id", None), f"unreadable ({error})")

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Runs the job under heartbeat and watchdog, unless it is no rescan or not ours to run."""
        if job.origin != self.lane.name or job.get_status(refresh=False) != JobStatus.QUEUED:
            # A second entry for the same id: the job moved to another lane, or has run.
            self.lane.intermediate_queue.remove(job.id)
            return
        refusal = job.refusal() if isinstance(job, RescanJob) else "it is no rescan job"
        if refusal is not None:
            self.refuse(job.id, refusal)
            return
        reach(FaultPoint.JOB_POPPED)
        job.timeout = self.housekeeping.timeout  # not what somebody wrote to Redis
        execution = self.prepare_execution(job)
        reach(FaultPoint.JOB_REGISTERED)
        with self.beating(execution):
            self.perform_job(job, queue, execution)
        reach(FaultPoint.JOB_ENDED)
        self.set_state(WorkerStatus.IDLE)
        self.housekeeping.enqueue_once_more(job.id)

    def refuse(self, job_id: str | None, refusal: str) -> None:
        """Puts a job of another kind among the failed ones, with the reason, without running it.

        An id that can't even be read (None) is left to the recovery pass, which drops it.
        """
        log.error("job refused", job=job_id, reason=refusal)
        if job_id is None:
            return
        record: dict[Any, Any] = {
            "status": JobStatus.FAILED.value,
            "exc_info": f"refused: {refusal}",
            "ended_at": utcformat(now()),
            "failure_ttl": FAILURE_SECONDS,
        }
        with self.connection.pipeline() as pipeline:
            pipeline.hset(f"rq:job:{job_id}", mapping=record)
            pipeline.zadd(f"rq:failed:{self.lane.name}", {job_id: time.time() + FAILURE_SECONDS})
            pipeline.lrem(self.lane.intermediate_queue_key, 1, job_id)
            pipeline.execute()

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        del job, working_time
        return HEARTBEAT_LIFE_SECONDS

    def prepare_execution(self, job: Job) -> Execution:
        """Registers the run as RQ does, and its heartbeat by the server's clock, in one step."""
        with self.connection.pipeline() as pipeline:
            execution = Execution.create(
                job, HEARTBEAT_LIFE_SECONDS, pipeline=pipeline, worker_name=self.name
            )
            self.runs.beat(execution, pipeline=pipeline)
            self.set_state(WorkerStatus.BUSY, pipeline=pipeline)
            pipeline.execute()
        self.executions[execution.id] = execution
        return execution

    @contextmanager
    def beating(self, execution: Execution) -> Iterator[None]:
        """Beats the run's heart every HEARTBEAT_SECONDS, and watches its time limit."""
        ended = threading.Event()
        heart = threading.Thread(
            target=self.beat, args=(execution, ended), name="heartbeat", daemon=True
        )
        heart.start()
        try:
            yield
        finally:
            ended.set()
            heart.join()

    def beat(self, execution: Execution, ended: threading.Event) -> None:
        limit = self.housekeeping.timeout + WATCHDOG_GRACE_SECONDS
        end = time.monotonic() + limit
        while not ended.wait(max(0.0, min(HEARTBEAT_SECONDS, end - time.monotonic()))):
            try:
                if time.monotonic() >= end:
                    self.runs.let_go(execution)
                else:
                    self.runs.beat(execution)
                    self.heartbeat(WORKER_LIFE_SECONDS)
            except RedisError as error:
                log.warning("heartbeat missed", job=execution.job_id, error=str(error))
            if time.monotonic() >= end:
                log.error("job hangs, worker ends itself", job=execution.job_id, seconds=limit)
                os.kill(os.getpid(), signal.SIGKILL)

    def owns(self, execution: Execution) -> bool:
        """Whether nobody took this worker for dead and gave its job to another."""
        if self.runs.is_ours(execution):
            return True
        self.forget(execution)
        return False

    def forget(self, execution: Execution) -> None:
        log.warning("job was given to another worker meanwhile", job=execution.job_id)
        self.executions.pop(execution.id, None)

    def handle_job_success(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: StartedJobRegistry,
        execution: Execution,
    ) -> None:
        if self.owns(execution):
            super().handle_job_success(job, queue, started_job_registry, execution)

    def handle_job_retry(
        self,
        job: Job,
        queue: Queue,
        retry: Retry,
        started_job_registry: StartedJobRegistry,
        execution: Execution,
    ) -> None:
        """RQ's own takes two steps; a worker that dies between them strands the job's id."""
        del queue, started_job_registry
        seconds = Retry.get_interval(0, retry.intervals)
        if self.runs.send_later(execution, seconds, job.meta):
            self.executions.pop(execution.id, None)
        else:
            self.forget(execution)

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
