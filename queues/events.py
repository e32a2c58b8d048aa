"""What happened last, as an operator is told it: one short JSON text an event, in Redis."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from enum import StrEnum

LONGEST_DETAIL = 400  # characters


class EventKind(StrEnum):
    """What happened; the page shows the value's words."""

    COMPLETE = "complete"  # a manifest's last blob was placed, its rescan is queued
    RESCANNED = "rescanned"  # a rescan job ended; the detail begins with its outcome
    AGAIN_LATER = "again later"  # it runs again; the detail says why
    JOB_FAILED = "job failed"  # it ended with an error that isn't Clair's word on the manifest
    BLOB_FAILED = "blob failed"  # a download failed and is tried again
    BLOB_GIVEN_UP = "blob given up"  # no retry is left
    SWEPT = "swept"  # a whole sweep has ended
    ACTION = "by hand"  # a person did something on the page or by the API


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. `at` is in unix seconds; manifest 0: it isn't about one."""

    kind: EventKind
    manifest_id: int = 0
    digest: str = ""
    repository: str = ""  # org/repo
    detail: str = ""
    at: float = field(default_factory=time.time)

    def encode(self) -> str:
        return json.dumps(
            {
                "at": round(self.at, 3),
                "kind": self.kind.value,
                "manifest": self.manifest_id,
                "digest": self.digest,
                "repository": self.repository,
                "detail": self.detail[:LONGEST_DETAIL],
            }
        )


def decode_event(text: bytes | str) -> Event | None:
    """The event; None for a text that no program of ours wrote."""
    try:
        match json.loads(text):
            case {
                "at": int() | float() as at,
                "kind": str(kind),
                "manifest": int(manifest_id),
                "digest": str(digest),
                "repository": str(repository),
                "detail": str(detail),
            }:
                return Event(
                    kind=EventKind(kind),
                    manifest_id=manifest_id,
                    digest=digest,
                    repository=repository,
                    detail=detail[:LONGEST_DETAIL],
                    at=float(at),
                )
    except (ValueError, RecursionError):
        pass
    return None
