"""What the audience sees: blobs as they are placed, and each step of each manifest as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from workers.demo.pulls import Pulled

# The events that are shown, and the step that a manifest has reached with them.
STEPS = {
    "rescan enqueued": "enqueued",
    "reset": "reset",
    "index call": "scanner reads it",
    "rescanned": "",  # its outcome
}
# Said of events that need no words of their own.
PROBLEMS = ("blob not placed, tried again", "blob given up, left to the sweep")


@dataclass(slots=True)
class Timeline:
    """One line an event, on a terminal with a live view below; nothing at all when `quiet`."""

    pulled: Sequence[Pulled]
    console: Console
    quiet: bool
    started: float  # unix seconds
    steps: dict[int, str] = field(default_factory=dict)
    live: Live | None = None

    def __enter__(self) -> Timeline:
        if not self.quiet and self.console.is_terminal:
            # Gone at the end: the table that follows tells more.
            self.live = Live(
                get_renderable=self.render,
                console=self.console,
                refresh_per_second=20,
                transient=True,
            )
            self.live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.live is not None:
            self.live.__exit__(*exception)

    def show(self, event: dict[str, Any]) -> bool:
        """Whether there was anything to show."""
        about = self.describe(event)
        if about is None:
            return False
        if not self.quiet:
            seconds = datetime.fromisoformat(event["timestamp"]).timestamp() - self.started
            what = str(event["event"])
            line = Text.assemble((f"{seconds:7.3f} s  ", "dim"), (f"{what:15}  ", "bold"), about)
            self.console.print(line, soft_wrap=not self.console.is_terminal)
        return True

    def describe(self, event: dict[str, Any]) -> str | None:
        """What happened to what; None for what tells the audience nothing."""
        what = event.get("event")
        if what == "blob placed":
            return f"{event['digest'][7:19]}            {event['bytes']:>14,} bytes"
        if what in PROBLEMS:
            return f"{event['error']}"
        if what not in STEPS:
            return None
        manifest_id = int(event.get("manifest") or event["manifest_id"])
        detail = str(event["outcome"] if what == "rescanned" else event["digest"][7:19])
        self.steps[manifest_id] = STEPS[str(what)] or self.steps_after(manifest_id, detail)
        return f"{self.name_of(manifest_id):22}  {detail}"

    def steps_after(self, manifest_id: int, outcome: str) -> str:
        """A second look finds everything up to date; the audience has seen how it ended."""
        before = self.steps.get(manifest_id, "")
        return before if outcome == "up_to_date" and before == "completed" else outcome

    def name_of(self, manifest_id: int) -> str:
        names = (each.name for each in self.pulled if each.manifest_id == manifest_id)
        return next(names, f"manifest {manifest_id}")

    def render(self) -> Padding:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("manifest", "layers", "", "step"):
            table.add_column(heading, no_wrap=True)
        for each in self.pulled:
            layers = set(each.layers)
            placed = len(layers & set(each.placed_ns))
            table.add_row(
                each.name,
                f"{placed}/{len(layers)}",
                ProgressBar(total=max(1, len(layers)), completed=placed, width=18),
                self.steps.get(each.manifest_id, "waiting" if layers else "has no layers"),
            )
        return Padding(table, (1, 0, 0, 0))
