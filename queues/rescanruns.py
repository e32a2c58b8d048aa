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

from rq.executions import Execution
from rq.job import Job
from rq.results import Result
from rq.utils import now, utcformat

from queues.rescanqueue import RESULT_SECONDS, RescanQueue, read_script

# A run beats its heart every HEARTBEAT_SECONDS and is taken for dead HEARTBEAT_LIFE_SECONDS after
# the last beat; with a recovery pass every 5 s its job is back within 30 s.
HEARTBEAT_SECONDS = 5
HEARTBEAT_LIFE_SECONDS = 20


class RunEnd(Enum):
    """What became of a run that was to end with a result."""

    GIVEN_AWAY = 0  # it was taken for dead, and another worker has the job
    ENDED = 1
    ASKED_AGAIN = 2  # it ended; its manifest was asked for once more while it ran


@dataclass(frozen=True, slots=True)
class RescanRuns:
    """The runs of the jobs of one lane."""

    queue: RescanQueue

    def start(self, job: Job, worker_name: str) -> Execution:
        """Starts a run of a job that was popped. One Redis command."""
        run = Execution(uuid4().hex, job.id, self.queue.connection, worker_name=worker_name)
        keys = [
            self.key,
            run.key,
            f"rq:executions:{job.id}",
            job.key,
            self.queue.intermediate_queue_key,
            f"rq:worker:{worker_name}",
            run.worker_executions_key,
        ]
        arguments = [job.id, run.id, worker_name, HEARTBEAT_LIFE_SECONDS, utcformat(now())]
        self.call("start_run", keys, arguments)
        return run

    def end(self, run: Execution, result: Result, seconds: float) -> RunEnd:
        """Ends the run with a result, which is kept for RESULT_SECONDS. One Redis command."""
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
        return RunEnd(self.call("end_run", keys, arguments))

    def beat(self, run: Execution) -> bool:
        """The run lives. False if it was taken for dead before."""
        arguments = [run.composite_key, HEARTBEAT_LIFE_SECONDS]
        return bool(self.call("beat", [self.key, run.key], arguments))

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
        return bool(self.call("send_later", keys, arguments))

    def call(self, script: str, keys: list[str], arguments: list[Any]) -> Any:
        registered = self.queue.connection.register_script(read_script(script))
        return registered(keys=keys, args=arguments)

    @property
    def key(self) -> str:
        return f"rq:wip:{self.queue.name}"
