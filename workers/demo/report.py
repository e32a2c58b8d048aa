"""What became of each manifest: as a table of 80 columns, or as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from data.secscan.status import IndexStatus
from queues.rescanqueue import QueueDepth
from workers.demo.environment import Environment
from workers.demo.pulls import Pulled
from workers.demo.quaydatabase import status_of

WORDS = {
    IndexStatus.MANIFEST_UNSUPPORTED: "unsupported",
    IndexStatus.COMPLETED: "COMPLETED",
    IndexStatus.IN_PROGRESS: "in progress",
    IndexStatus.FAILED: "failed",
}


CAPTION = (
    "The time is from the placement of the last layer to the index call's arrival. For the "
    "ordinary client, whose blobs the registry placed before, it includes the wait until the "
    "blob worker looks at its queue."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One manifest. Statuses are Quay's numbers; None where nothing of the kind happened."""

    name: str
    digest: str
    before: int | None
    after: int | None
    outcome: str | None
    last_blob_to_index_ms: float | None
    packages: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`ok` only if every manifest ended as it must, and nothing is left to do."""

    ok: bool
    rows: Sequence[Row]
    queue: QueueDepth

    def as_json(self) -> str:
        document: dict[str, Any] = {
            "ok": self.ok,
            "manifests": [asdict(row) for row in self.rows],
            "queue": asdict(self.queue),
        }
        return json.dumps(document, indent=2)

    def print(self, console: Console) -> None:
        table = Table(
            title="What became of each manifest",
            title_justify="left",
            caption=CAPTION,
            caption_justify="left",
        )
        table.add_column("manifest", no_wrap=True)
        table.add_column("before")
        table.add_column("after")
        table.add_column("last blob to\nindex call", justify="right")
        table.add_column("packages", justify="right")
        for row in self.rows:
            table.add_row(
                row.name,
                word(row.before),
                word(row.after),
                "-" if row.last_blob_to_index_ms is None else f"{row.last_blob_to_index_ms:.1f} ms",
                "-" if row.packages is None else str(row.packages),
                style="bold" if row.after == IndexStatus.COMPLETED else None,
            )
        console.print(table)
        console.print(
            f"Queue: {self.queue.queued} queued, {self.queue.started} started, "
            f"{self.queue.scheduled} scheduled, {self.queue.failed} failed"
        )
        verdict = (
            "Every manifest ended as it must."
            if self.ok
            else "Not every manifest ended as it must!"
        )
        console.print(verdict, style="green" if self.ok else "red")


def build_report(
    environment: Environment, pulled: Sequence[Pulled], outcomes: Mapping[int, str], *, done: bool
) -> Report:
    """What is there when the pipeline has nothing on its way, or (not `done`) nothing moves."""
    rows = [build_row(environment, each, outcomes.get(each.manifest_id)) for each in pulled]
    as_expected = all(row.after == each.expected for row, each in zip(rows, pulled, strict=True))
    depth = environment.rescans.depth()
    return Report(ok=as_expected and done and depth.failed == 0, rows=rows, queue=depth)


def build_row(environment: Environment, pulled: Pulled, outcome: str | None) -> Row:
    requests = environment.scanner.requests.of(pulled.digest)
    request = requests[0] if requests else None
    last_placed = max(pulled.placed_ns.values(), default=None)
    milliseconds = (
        round((request.arrived_ns - last_placed) / 1e6, 1)
        if request is not None and last_placed is not None
        else None
    )
    return Row(
        name=pulled.name,
        digest=pulled.digest,
        before=pulled.before,
        after=status_of(pulled.manifest_id),
        outcome=outcome,
        last_blob_to_index_ms=milliseconds,
        packages=request.packages if request is not None else None,
    )


def word(status: int | None) -> str:
    return "no row" if status is None else WORDS.get(IndexStatus(status), str(status))
