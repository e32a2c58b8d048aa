"""The RQ job of a rescan: JSON only, and nothing but what a rescan has.

RQ unpickles by default, in every process that forgets to say otherwise: its registries and command
line make queues of their own. So importing this module takes pickle out of RQ for the whole
process. A job's hash also names functions that RQ would import and call (callbacks) and addresses
that it would post to (webhooks). Whoever can write to Redis could plant them; a rescan has none, so
they are never read.
"""

from __future__ import annotations

from typing import Any

import rq.serializers
from redis import Redis
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

# Under this name RQ finds the job. It is wire format: renaming it strands every queued job.
RESCAN_FUNCTION = "workers.rescanworker.rescan_manifest"

RESCAN_FIELDS = frozenset(
    {
        b"created_at",
        b"data",
        b"description",
        b"ended_at",
        b"enqueued_at",
        b"exc_info",
        b"failure_ttl",
        b"last_heartbeat",
        b"meta",
        b"number_of_retries",
        b"origin",
        b"result_ttl",
        b"started_at",
        b"status",
        b"timeout",
        b"worker_name",
    }
)


def forbid_pickle() -> None:
    """Makes JSON the serializer that RQ falls back to, and the one that it calls pickle."""
    replaced: Any = rq.serializers
    replaced.DefaultSerializer = JSONSerializer
    replaced.PickleSerializer = JSONSerializer
    replaced.SERIALIZER_ALIASES["pickle"] = JSONSerializer


forbid_pickle()


class RescanJob(Job):
    """A job of the rescan queue, as read back from Redis."""

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - RQ's name for it
        connection: Redis | None = None,
        serializer: Any = None,
    ) -> None:
        del serializer  # a rescan is JSON, whatever the caller believes
        super().__init__(id, connection=connection, serializer=JSONSerializer)

    def restore(self, raw_data: dict[bytes, bytes]) -> Any:
        """Reads the fields of a rescan and no others: no callbacks, webhooks or dependencies."""
        known = {name: value for name, value in raw_data.items() if name in RESCAN_FIELDS}
        return super().restore(known)

    @classmethod
    def fetch_quietly(cls, job_id: str, connection: Redis) -> RescanJob | None:
        """The job, or None when it isn't there any more."""
        try:
            return cls.fetch(job_id, connection=connection)  # type: ignore[return-value]
        except NoSuchJobError:
            return None

    def refusal(self) -> str | None:
        """Why this is no rescan of ours, in words; None for one that may run."""
        try:
            call = (self.func_name, self.instance, tuple(self.args), dict(self.kwargs))
        except Exception as error:  # noqa: BLE001 - RQ raises whatever the bytes provoke
            return f"its data is no JSON call: {type(error).__name__}"
        match call:
            case (name, None, (int(), str(), bool()), {}) if name == RESCAN_FUNCTION:
                return None
            case (name, _, _, _) if name != RESCAN_FUNCTION:
                return f"it asks for {name!r}, and this queue runs only {RESCAN_FUNCTION}"
        return "its arguments are not (manifest id, reason, force)"
