"""RQ's in-process worker, made to keep the rescan queue's promises.

In process, because a forked child that connects anew took 250 ms a job where this takes 4. What a
fork would have given comes from two threads' worth of care: a heartbeat that lets others take the
job back when this process dies, and a watchdog that kills the process when a job hangs where no
signal reaches it; `workers.supervisor` starts it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, Retry, SimpleWorker, worker_registration
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import StartedJobRegistry
from rq.results import Result
from rq.utils import now, utcformat
from rq.worker import WorkerStatus

from data.faultpoints import FaultPoint, reach
from queues.housekeeping import Housekeeping
from queues.rescanjob import RescanJob
from queues.rescanqueue import FAILURE_SECONDS, RescanQueue
from queues.rescanruns import Held, RescanRuns, RunEnd, Taken
from workers.process import Stop
from workers.watchdog import Watchdog

log = structlog.get_logger()

POP_SECONDS = 1
# How often a worker shows that it lives and does its share of the housekeeping.
ROUND_SECONDS = 1.0
# A worker's record in Redis lives this long after its last sign of life, one a second between jobs
# and one every HEARTBEAT_SECONDS in a job. RQ's own 480 s would show the dead as workers.
WORKER_LIFE_SECONDS = 60


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
        circuit_key: str,
        may_work: Callable[[], bool],
        after_job: Callable[[], object],
    ) -> None:
        super().__init__([queue], connection=queue.connection, serializer=queue.serializer)
        self.log_job_description = False
        self.log_result_lifespan = False
        self.stop = stop
        self.lane = queue
        self.runs = RescanRuns(queue)
        self.watchdog = Watchdog(self.runs, self.show_life)
        self.housekeeping = housekeeping
        # `may_work` is asked while this key is there.
        self.circuit_key = circuit_key
        self.may_work = may_work
        # Outside of the job's time limit: what it has to say must not make it fail.
        self.after_job = after_job
        self.next_round = 0.0
        self.idle = False
        self.asked_again = False
        # A job whose run was started as the one before it ended: nothing comes in between.
        self.taken_ahead: Taken | Held | None = None

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
        while self.taken_ahead is not None or not self.stop.requested:
            try:
                if self.taken_ahead is None and time.monotonic() >= self.next_round:
                    self.go_round()
                taken, self.taken_ahead = self.taken_ahead, None
                if taken is None:
                    taken = self.runs.take(self.name, self.circuit_key)
                if taken is None:
                    taken = self.take_idle(timeout)
                    if taken is None and timeout is None:
                        break
                if taken is Held.BACK and self.is_held_back():
                    self.after_job()
                    if timeout is None:
                        return None
                    self.stop.wait(POP_SECONDS)
                job = self.read(taken) if isinstance(taken, Taken) else None
                if job is not None:
                    return job, self.lane
            except DequeueTimeout:
                continue
            except RedisError as error:
                log.warning("queue not reachable", error=str(error))
                self.stop.wait(POP_SECONDS)
        self.after_job()
        return None

    def go_round(self) -> None:
        """What has to be done every ROUND_SECONDS, however many jobs there are."""
        self.heartbeat(WORKER_LIFE_SECONDS)
        self.register_again()
        self.housekeeping.run()
        self.after_job()
        self.next_round = time.monotonic() + ROUND_SECONDS

    def is_held_back(self) -> bool:
        """Whether the queue is paused, or the scanner can't be asked; a look when it seems so."""
        return bool(self.lane.connection.exists(self.lane.paused_key)) or not self.may_work()

    def take_idle(self, timeout: int | None) -> Taken | Held | None:
        """Nothing is queued: what can wait is done now, then the next job is waited for."""
        self.after_job()
        self.housekeeping.run()
        if not self.idle:
            self.set_state(WorkerStatus.IDLE)
            self.idle = True
        if timeout is None:
            return self.runs.take(self.name, self.circuit_key)
        _, job_id = RescanQueue.lmove(self.connection, self.lane.key, POP_SECONDS)
        reach(FaultPoint.JOB_POPPED)
        return self.runs.take(self.name, self.circuit_key, job_id)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """RQ's, in one round trip. RQ's own after each job is left to the next `go_round`."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
        elif timeout is not None:
            with self.connection.pipeline(transaction=False) as one_trip:
                super().heartbeat(timeout, one_trip)
                one_trip.execute()

    def register_again(self) -> None:
        """A Redis that lost everything has forgotten this worker, which shows in the counts."""
        if self.connection.hexists(self.key, "birth"):
            return
        with self.connection.pipeline() as pipeline:
            pipeline.hset(self.key, mapping=self.serialize())
            worker_registration.register(self, pipeline)
            pipeline.expire(self.key, WORKER_LIFE_SECONDS)
            pipeline.execute()

    def read(self, taken: Taken) -> RescanJob | None:
        """The job that was taken. What isn't even a job is refused here, and the next one taken."""
        if taken.run is None and not is_queued_in(taken.fields, self.lane.name):
            return None  # a second entry for the same id: the job moved to another lane, or has run
        try:
            job = RescanJob.read(taken.job_id, taken.fields, self.connection)
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001 - RQ raises whatever the bytes provoke
            self.refuse(text_of(taken.job_id), f"unreadable ({error})", taken.run)
            return None
        job.run = taken.run
        return job

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Runs the job under heartbeat and watchdog, unless it is no rescan."""
        assert isinstance(job, RescanJob)
        refusal, execution = job.refusal(), job.run
        if refusal is not None or execution is None:
            self.refuse(job.id, refusal or "its id is no rescan's", execution)
            return
        job.timeout = self.housekeeping.timeout  # not what somebody wrote to Redis
        self.executions[execution.id] = execution
        self.idle = False
        reach(FaultPoint.JOB_REGISTERED)
        self.asked_again = True  # unless its end says otherwise
        with self.watchdog.watch(execution, self.housekeeping.timeout):
            self.perform_job(job, queue, execution)
        reach(FaultPoint.JOB_ENDED)
        if self.asked_again:
            self.housekeeping.enqueue_once_more(job.id)

    def refuse(self, job_id: str | None, refusal: str, run: Execution | None) -> None:
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
            if run is not None:
                self.runs.drop(run, pipeline)
            pipeline.lrem(self.lane.intermediate_queue_key, 1, job_id)
            pipeline.execute()

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """`RescanRuns.take` has said all of it to Redis already."""
        del remove_from_intermediate_queue
        job.started_at = now()

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        del queue, heartbeat_ttl
        job.ended_at = now()

    def show_life(self) -> None:
        self.heartbeat(WORKER_LIFE_SECONDS)

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
        """In one step; RQ's own looks for dependent jobs and writes the whole job again."""
        del queue, started_job_registry
        assert job.started_at is not None
        assert job.ended_at is not None
        result = Result(
            job.id,
            Result.Type.SUCCESSFUL,
            self.connection,
            return_value=job.returned if isinstance(job, RescanJob) else None,
            worker_name=self.name,
            serializer=self.serializer,
            execution_id=execution.id,
            execution_started_at=job.started_at,
            execution_ended_at=job.ended_at,
        )
        seconds = (job.ended_at - job.started_at).total_seconds()
        if self.stop.requested or time.monotonic() >= self.next_round:
            end = self.runs.end(execution, result, seconds)
        else:
            end, self.taken_ahead = self.runs.end_and_take(
                execution, result, seconds, self.circuit_key
            )
        self.asked_again = end is RunEnd.ASKED_AGAIN
        if end is RunEnd.GIVEN_AWAY:
            self.forget(execution)
        else:
            self.executions.pop(execution.id, None)

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


def is_queued_in(fields: dict[bytes, bytes], lane: str) -> bool:
    return fields.get(b"status") == b"queued" and fields.get(b"origin") == lane.encode()


def text_of(job_id: bytes) -> str | None:
    try:
        return job_id.decode()
    except UnicodeDecodeError:
        return None
