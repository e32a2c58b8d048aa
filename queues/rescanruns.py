"""The runs of rescan jobs: how a run shows that it lives, and how it ends without a result.

A run stands in RQ's registry of started jobs until a time that its heartbeat moves on. All times
are the server's: a worker whose clock is wrong is neither taken for dead nor takes others for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import uuid4

from redis.client import Pipeline
from rq.executions import Execution
from rq.results import Result
from rq.utils import now, utcformat

from queues.rescanqueue import (
    RESULT_SECONDS,
    RescanQueue,
    ScriptCall,
    run_script,
    run_scripts,
)

# A run beats its heart every HEARTBEAT_SECONDS and is taken for dead HEARTBEAT_LIFE_SECONDS after
# the last beat; with a recovery pass every 5 s its job is back within 30 s.
HEARTBEAT_SECONDS = 5
HEARTBEAT_LIFE_SECONDS = 20


class RunEnd(Enum):
    """What became of a run that was to end with a result."""

    GIVEN_AWAY = 0  # it was taken for dead, and another worker has the job
    ENDED = 1
    ASKED_AGAIN = 2  # it ended; its manifest was asked for once more while it ran


class Held(Enum):
    """Why no job is taken though some may be queued."""

    BACK = "back"  # the queue is paused, or the scanner can't be asked


@dataclass(frozen=True, slots=True)
class Taken:
    """What was popped: a job that runs, or an entry that leads to none (`run` is None)."""

    job_id: bytes
    fields: dict[bytes, bytes]  # of the job's hash, before its run was started
    run: Execution | None


@dataclass(frozen=True, slots=True)
class RescanRuns:
    """The runs of the jobs of one lane."""

    queue: RescanQueue

    def take(self, worker_name: str, circuit_key: str, popped: bytes = b"") -> Taken | Held | None:
        """Pops the next job and starts a run of it; None when none is queued. One Redis command.

        `popped` is the id of a job that was popped already: it is taken in any case.
        """
        call, run = self.taking(worker_name, circuit_key, popped)
        return self.read_taken(self.call(call), run, worker_name)

    def taking(self, worker_name: str, circuit_key: str, popped: bytes) -> tuple[ScriptCall, str]:
        run = uuid4().hex
        keys = [
            self.queue.paused_key,
            circuit_key,
            self.queue.key,
            self.queue.intermediate_queue_key,
            self.key,
            f"rq:worker:{worker_name}",
            f"rq:worker:{worker_name}:executions",
        ]
        lane, life, moment = self.queue.name, HEARTBEAT_LIFE_SECONDS, utcformat(now())
        arguments = [lane, run, worker_name, life, moment, popped]
        return ScriptCall("take_job", keys, arguments), run

    def read_taken(self, answer: Any, run: str, worker_name: str) -> Taken | Held | None:
        if answer is None:
            return None
        if answer == 0:
            return Held.BACK
        job_id, started, flat = answer
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if not started:
            return Taken(job_id, fields, None)
        execution = Execution(run, job_id.decode(), self.queue.connection, worker_name=worker_name)
        return Taken(job_id, fields, execution)

    def drop(self, run: Execution, pipeline: Pipeline) -> None:
        """Forgets a run that came to nothing."""
        pipeline.zrem(self.key, run.composite_key)
        pipeline.delete(run.key, f"rq:executions:{run.job_id}")
        pipeline.srem(run.worker_executions_key, run.composite_key)

    def end(self, run: Execution, result: Result, seconds: float) -> RunEnd:
        """Ends the run with a result, which is kept for RESULT_SECONDS. One Redis command."""
        return RunEnd(self.call(self.ending(run, result, seconds)))

    def end_and_take(
        self, run: Execution, result: Result, seconds: float, circuit_key: str
    ) -> tuple[RunEnd, Taken | Held | None]:
        """`end`, then `take` of the next job by the same worker, in one round trip."""
        call, next_run = self.taking(run.worker_name, circuit_key, b"")
        calls = (self.ending(run, result, seconds), call)
        ended, taken = run_scripts(self.queue.connection, calls)
        if isinstance(ended, Exception):
            raise ended
        if isinstance(taken, Exception):  # no matter of the run that has ended; `take` will meet it
            return RunEnd(ended), None
        return RunEnd(ended), self.read_taken(taken, next_run, run.worker_name)

    def ending(self, run: Execution, result: Result, seconds: float) -> ScriptCall:
        keys = [
            self.key,
            run.key,
            f"rq:executions:{run.job_id}",
            f"rq:job:{run.job_id}",
            f"rq:results:{run.job_id}",
            f"rq:finished:{self.queue.name}",
            f"rq:worker:{run.worker_name}",
            run.worker_executions_key,
            self.queue.again_key,
        ]
        fields = [part for pair in result.serialize().items() for part in pair]
        arguments = [run.job_id, run.id, RESULT_SECONDS, utcformat(now()), seconds, *fields]
        return ScriptCall("end_run", keys, arguments)

    def beat(self, run: Execution) -> bool:
        """The run lives. False if it was taken for dead before."""
        arguments = [run.composite_key, HEARTBEAT_LIFE_SECONDS]
        return bool(self.call(ScriptCall("beat", [self.key, run.key], arguments)))

    def is_ours(self, run: Execution) -> bool:
        """Whether nobody took this run for dead and gave its job to another worker."""
        return self.queue.connection.zscore(self.key, run.composite_key) is not None

    def let_go(self, run: Execution) -> None:
        """The run is about to die: the next recovery pass gives its job back."""
        self.queue.connection.zadd(self.key, {run.composite_key: 0}, xx=True)

    def send_later(self, run: Execution, seconds: float, meta: dict[str, Any]) -> bool:
        """Ends the run; its job runs again in so many seconds. False if it was given to another."""
        keys = [
            self.key,
            f"rq:scheduled:{self.queue.name}",
            f"rq:job:{run.job_id}",
            run.key,
        ]
        arguments = [run.composite_key, run.job_id, seconds, json.dumps(meta)]
        return bool(self.call(ScriptCall("send_later", keys, arguments)))

    def call(self, call: ScriptCall) -> Any:
        return run_script(self.queue.connection, call.name, call.keys, call.arguments)

    @property
    def key(self) -> str:
        return f"rq:wip:{self.queue.name}"
