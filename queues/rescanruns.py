"""The runs of rescan jobs: how a run shows that it lives, and how it ends without a result.

A run stands in RQ's registry of started jobs until a time that its heartbeat moves on. All times
are the server's: a worker whose clock is wrong is neither taken for dead nor takes others for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.client import Pipeline
from rq.executions import Execution

from queues.rescanqueue import RescanQueue, read_script

# A run beats its heart every HEARTBEAT_SECONDS and is taken for dead HEARTBEAT_LIFE_SECONDS after
# the last beat; with a recovery pass every 5 s its job is back within 30 s.
HEARTBEAT_SECONDS = 5
HEARTBEAT_LIFE_SECONDS = 20


@dataclass(frozen=True, slots=True)
class RescanRuns:
    """The runs of the jobs of one lane."""

    queue: RescanQueue

    def beat(self, run: Execution, *, pipeline: Pipeline | None = None) -> bool:
        """The run lives. False, without a pipeline, if it was taken for dead before."""
        return bool(
            self.call(
                "beat", [self.key, run.key], [run.composite_key, HEARTBEAT_LIFE_SECONDS], pipeline
            )
        )

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
        return bool(self.call("send_later", keys, arguments, None))

    def call(
        self, script: str, keys: list[str], arguments: list[Any], pipeline: Pipeline | None
    ) -> Any:
        client: Redis = pipeline if pipeline is not None else self.queue.connection
        registered = self.queue.connection.register_script(read_script(script))
        return registered(keys=keys, args=arguments, client=client)

    @property
    def key(self) -> str:
        return f"rq:wip:{self.queue.name}"
