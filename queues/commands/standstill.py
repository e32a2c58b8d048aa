"""Why nothing moves: what whoever waits for jobs has to be told."""

from __future__ import annotations

from queues.commands.context import Context


def standstill(context: Context) -> list[str]:
    """One sentence for each thing that keeps all jobs waiting; nothing while they move."""
    lines = []
    depth = context.queue.depth()
    if depth.paused:
        lines.append("Paused: no worker takes a job until `python -m queues resume`.")
    if depth.workers == 0:
        lines.append("No rescan worker gives a sign of life: start workers.rescanworker.")
    return lines
