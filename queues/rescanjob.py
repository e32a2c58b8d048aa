"""The RQ job of a rescan: JSON only, and nothing but what a rescan has.

RQ unpickles by default, in every process that forgets to say otherwise: its registries and command
line make queues of their own. So importing this module takes pickle out of RQ for the whole
process. A job's hash also names functions that RQ would import and call (callbacks) and addresses
that it would post to (webhooks). Whoever can write to Redis could plant them; a rescan has none, so
they are never read.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import rq.serializers
from redis import Redis
from redis.exceptions import RedisError
from rq.executions import Execution
from rq.job import Job
from rq.results import Result
from rq.serializers import JSONSerializer

from queues.errors import InvalidWork

# Under this name RQ finds the job. It is wire format: renaming it strands every queued job.
RESCAN_FUNCTION = "workers.rescanworker.rescan_manifest"

RESCAN_ID = re.compile(r"rescan-[1-9][0-9]{0,17}", re.ASCII)
# The JSON of a rescan is some 100 bytes, a traceback a few thousand.
LARGEST_FIELD = 1024 * 1024

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


def readable(job_id: bytes | str) -> str:
    """The id as text, whatever bytes somebody put there."""
    return job_id if isinstance(job_id, str) else job_id.decode(errors="replace")


def is_rescan_id(job_id: str) -> bool:
    return RESCAN_ID.fullmatch(job_id) is not None


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
        self.run: Execution | None = None  # in the process that runs it

    def restore(self, raw_data: dict[bytes, bytes]) -> None:
        """Reads the fields of a rescan and no others: no callbacks, webhooks or dependencies."""
        known = {name: value for name, value in raw_data.items() if name in RESCAN_FIELDS}
        for name in (b"data", b"exc_info"):
            if name in known:
                known[name] = unpack(known[name])
        super().restore(known)
        if self._unreadable_meta is not None or not isinstance(self.meta, dict):
            self.meta, self._unreadable_meta = {}, None  # it is ours, and nothing hangs on it

    @classmethod
    def read(cls, job_id: bytes, fields: dict[bytes, bytes], connection: Redis) -> RescanJob:
        """The job with this record. Raises whatever RQ makes of bytes that are no job's."""
        job = cls(job_id.decode(), connection=connection)
        job.restore(fields)
        return job

    @classmethod
    def fetch_quietly(cls, job_id: str, connection: Redis) -> RescanJob | None:
        """The job, or None when it isn't there any more or no program of ours wrote it."""
        try:
            return cls.fetch(job_id, connection=connection)  # type: ignore[return-value]
        except RedisError:
            raise
        except Exception:  # noqa: BLE001 - RQ raises whatever the bytes provoke
            return None

    @property
    def returned(self) -> Any:
        """What the job's function returned in this process."""
        return self._result

    def latest_result(self, timeout: int = 0) -> Result | None:
        """The last run's result; None where there is none, or no program of ours wrote it."""
        try:
            return super().latest_result(timeout)
        except RedisError:
            raise
        except Exception:  # noqa: BLE001 - RQ raises whatever the bytes provoke
            return None

    def failure_reason(self) -> str:
        """The last line of why the job failed; empty when it didn't."""
        text = self._exc_info or ""  # what our own scripts wrote
        if not text:
            result = self.latest_result()
            text = (result.exc_string if result is not None else None) or ""
        lines = text.strip().splitlines()
        return lines[-1] if lines else ""

    def refusal(self) -> str | None:
        """Why this is no rescan of ours, in words; None for one that may run."""
        try:
            call = (self.func_name, self.instance, tuple(self.args), dict(self.kwargs))
        except Exception as error:  # noqa: BLE001 - RQ raises whatever the bytes provoke
            return f"its data is no JSON call: {type(error).__name__}"
        match call:
            case (
                name,
                None,
                (int(manifest_id), str()) | (int(manifest_id), str(), bool()),
                {},
            ) if name == RESCAN_FUNCTION:
                return None if self.id == f"rescan-{manifest_id}" else "its id is another's"
            case (name, _, _, _) if name != RESCAN_FUNCTION:
                return f"it asks for {name!r}, and this queue runs only {RESCAN_FUNCTION}"
        return "its arguments are not (manifest id, reason) or (manifest id, reason, force)"


def unpack(field: bytes) -> bytes:
    """A field as RQ packs it, unpacked; one that isn't packed is taken as it is, as RQ does.

    RQ itself would unpack whatever it finds, to any size. Raises `InvalidWork` for more than
    LARGEST_FIELD bytes, and for what is packed twice, which RQ would unpack again.
    """
    reader = zlib.decompressobj()
    try:
        content = reader.decompress(field, LARGEST_FIELD)
    except zlib.error:
        return field
    if reader.unconsumed_tail or is_packed(content):
        raise InvalidWork(f"a field of the job is packed twice or above {LARGEST_FIELD} bytes")
    return content


def is_packed(content: bytes) -> bool:
    try:
        return bool(zlib.decompressobj().decompress(content, 1))
    except zlib.error:
        return False
