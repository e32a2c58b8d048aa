"""The status protocol: every cell of the table in `data.secscan.status`, from its docstring."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from data.models import utcnow
from data.secscan import status
from data.secscan.status import (
    CLAIM_LIFETIME,
    Claim,
    ClaimDecision,
    FinishDecision,
    IndexStatus,
    Reason,
    StatusRow,
    decide_claim,
    decide_finish,
    read_claim,
    read_metadata,
)

NOW = utcnow()
OURS = Claim("rescan-1", "token")
REASONS = [Reason.EVENT, Reason.SWEEP, Reason.MANUAL, Reason.FORCED, Reason.CYCLE]


def row(
    index_status: IndexStatus, claim: Claim | None = None, age: timedelta = timedelta(0)
) -> StatusRow:
    return StatusRow(id=1, status=index_status, last_indexed=NOW - age, claim=claim)


DEAD = CLAIM_LIFETIME + timedelta(seconds=1)
ROWS: dict[str, list[StatusRow | None]] = {
    "none": [None],
    "-2 unsupported": [row(IndexStatus.MANIFEST_UNSUPPORTED)],
    "-1 failed": [row(IndexStatus.FAILED)],
    "-4 retries exhausted": [row(IndexStatus.SCAN_RETRIES_EXHAUSTED)],
    "0 pending": [row(IndexStatus.PENDING)],
    "-3 layer too large": [row(IndexStatus.MANIFEST_LAYER_TOO_LARGE)],
    "2 completed": [row(IndexStatus.COMPLETED)],
    "1 ours, same job": [
        row(IndexStatus.IN_PROGRESS, OURS),
        row(IndexStatus.IN_PROGRESS, Claim("rescan-1", "other token")),
        row(IndexStatus.IN_PROGRESS, Claim("rescan-1", "other token"), DEAD),
    ],
    "1 ours, other job live": [row(IndexStatus.IN_PROGRESS, Claim("securityworker-9", "t"))],
    "1 Quay's, live": [row(IndexStatus.IN_PROGRESS)],
    "1 anybody's, dead": [
        row(IndexStatus.IN_PROGRESS, None, DEAD),
        row(IndexStatus.IN_PROGRESS, None, -DEAD),
        row(IndexStatus.IN_PROGRESS, Claim("securityworker-9", "t"), DEAD),
    ],
}


def table() -> list[tuple[str, list[str]]]:
    """(row, [event, sweep, manual, forced, cycle, success, failure]) from the docstring."""
    lines = re.findall(r"^ {4,5}(none .+|-?\d .+)$", status.__doc__ or "", re.MULTILINE)
    assert len(lines) == len(ROWS)
    return [split_cells(line) for line in lines]


def split_cells(line: str) -> tuple[str, list[str]]:
    name = next(each for each in ROWS if line.startswith(each))
    cells = re.findall(
        r"token: write|claim|settled|done|refresh|wait|write|leave", line.removeprefix(name)
    )
    assert len(cells) == 7, line
    return name, cells


@pytest.mark.parametrize(("name", "cells"), table())
def test_claims_as_the_table_says(name: str, cells: list[str]) -> None:
    for reason, cell in zip(REASONS, cells[:5], strict=True):
        for each in ROWS[name]:
            assert decide_claim(each, reason, "rescan-1", NOW) is ClaimDecision(cell), reason


@pytest.mark.parametrize(("name", "cells"), table())
def test_finishes_as_the_table_says(name: str, cells: list[str]) -> None:
    for success, cell in ((True, cells[5]), (False, cells[6])):
        for each in ROWS[name]:
            decision = decide_finish(each, OURS, NOW, success=success)
            if cell == "token: write":
                own = each is not None and each.claim == OURS
                expected = FinishDecision.WRITE if own else FinishDecision.SUPERSEDED
                assert decision is expected
            else:
                assert (decision is FinishDecision.WRITE) == (cell == "write")


def test_a_later_attempt_of_the_same_job_is_not_written_over() -> None:
    later = row(IndexStatus.IN_PROGRESS, Claim("rescan-1", "later"))
    assert decide_finish(later, OURS, NOW, success=True) is FinishDecision.SUPERSEDED


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '"text"', "null"])
def test_metadata_that_is_no_object_reads_as_empty(text: str) -> None:
    assert read_metadata(text) == {}


@pytest.mark.parametrize(
    "metadata",
    [{}, {"rescan": None}, {"rescan": {"job": 1, "attempt": "a"}}, {"rescan": {"job": "a"}}],
)
def test_a_claim_that_is_not_ours_reads_as_none(metadata: dict[str, object]) -> None:
    assert read_claim(metadata) is None


def test_we_never_write_pending_or_exhausted() -> None:
    source = "\n".join(
        Path(f"data/secscan/{name}.py").read_text() for name in ("status_records", "indexer")
    )
    written = re.findall(r"IndexStatus\.(\w+)", source)
    assert "PENDING" not in written
    assert "SCAN_RETRIES_EXHAUSTED" not in written
