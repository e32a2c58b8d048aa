"""What the audience sees: blobs as they are placed, and each step of each manifest as it comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from workers.demo.pulls import Pulled

# What the workers' events are called here, and the step that a manifest has reached with them.
STEPS = {
    "rescan enqueued": "enqueued",
    "reset": "reset",
    "index call": "index call",
    "rescanned": "ended",
}
LINES = 12


@dataclass(slots=True)
class Timeline:
    """A live view on a terminal, one line an event elsewhere, nothing at all when `quiet`."""

    pulled: Sequence[Pulled]
    console: Console
    quiet: bool
    started: float
    steps: dict[int, str] = field(default_factory=dict)
    lines: deque[Text] = field(default_factory=lambda: deque(maxlen=LINES))
    live: Live | None = None

    def __enter__(self) -> Timeline:
        if not self.quiet and self.console.is_terminal:
            self.live = Live(self.render(), console=self.console, refresh_per_second=20)
            self.live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.live is not None:
            self.live.update(self.render())
            self.live.__exit__(*exception)

    def show(self, event: dict[str, Any]) -> None:
        line = self.describe(event)
        if line is None or self.quiet:
            return
        if self.live is None:
            self.console.print(line)
        else:
            self.lines.append(line)
            self.live.update(self.render())

    def describe(self, event: dict[str, Any]) -> Text | None:
        """The event in a line of 80 columns; None for one that tells the audience nothing."""
        seconds = datetime.fromisoformat(event["timestamp"]).timestamp() - self.started
        what = str(event.get("event"))
        if what == "blob placed":
            about = f"{event['digest'][7:19]}  {event['bytes']:,} bytes"
        elif what in STEPS:
            self.steps[int(event.get("manifest") or event["manifest_id"])] = STEPS[what]
            about = f"{event['repository']}  {event['digest'][7:19]}"
            if what == "rescanned":
                about += f"  {event['outcome']}"
        else:
            return None
        return Text.assemble((f"{seconds:7.3f} s  ", "dim"), (f"{what:16}", "bold"), about)

    def render(self) -> Group:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("manifest", "blobs", "", "step"):
            table.add_column(heading, style=None, no_wrap=True)
        for each in self.pulled:
            layers = set(each.layers)
            placed = len(layers & set(each.placed_ns))
            table.add_row(
                each.name,
                f"{placed}/{len(layers)}",
                ProgressBar(total=max(1, len(layers)), completed=placed, width=18),
                self.steps.get(each.manifest_id, "waiting" if layers else "has no layers"),
            )
        return Group(table, Text(""), *self.lines)
