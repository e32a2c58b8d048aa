"""What is told of a manifest whose rescan failed: who tries again depends on what its row says."""

from __future__ import annotations

import pytest

from data.models import utcnow
from data.secscan.status import IndexStatus, StatusRow
from data.secscan.story import JobState, Standing, tell_job

GONE = JobState(status="failed", error="the bytes of a layer are gone")


@pytest.mark.parametrize(
    ("status", "who"),
    [
        (None, "the sweep tries again in an hour"),
        (IndexStatus.MANIFEST_UNSUPPORTED, "the sweep tries again in an hour"),
        (IndexStatus.FAILED, "Quay's security worker may try again"),
    ],
)
def test_failed_rescan_says_who_tries_again(status: IndexStatus | None, who: str) -> None:
    row = None if status is None else StatusRow(id=1, status=status, last_indexed=utcnow())
    told = tell_job(GONE, row)
    assert told is not None
    standing, sentence, next_step = told
    assert standing is Standing.FAILED
    assert "the bytes of a layer are gone" in sentence
    assert next_step == f"{who}, `retry` does at once"
