"""How each cost grows when its work grows tenfold: points in, plots and the steepest step out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from math import log10
from pathlib import Path


class Curve(Enum):
    """What grows, along which axis: (file name, title, axis, unit of the cost)."""

    LAST_BLOB = ("last_blob", "Last blob to index call", "manifests in the tables", "ms")
    SHARING = ("sharing", "Completion check", "manifests that share the blob", "ms")
    BLOBS = ("blobs", "Completion check, 1,000 sharing manifests", "blobs a manifest", "ms")
    JOBS = ("jobs", "A rescan job", "jobs queued behind it", "ms")
    ENQUEUE = ("enqueue", "An enqueue", "jobs queued already", "ms")
    STATUS = ("status", "Reading the depth", "jobs queued", "ms")
    DOWNLOAD = ("download", "Downloading one blob", "MiB", "ms")
    SMALL_BLOBS = ("small_blobs", "Placing small blobs", "blobs", "ms")
    LANES = ("lanes", "A new pull behind a backfill", "backfill jobs queued", "ms")
    REPOSITORIES = ("repositories", "One digest in many repositories", "repositories", "ms")
    SWEEP = ("sweep", "A sweep, 100 manifests stuck", "manifests in the tables", "ms")
    START = ("start", "A worker's start", "manifests in the tables", "ms")

    def __init__(self, file: str, title: str, axis: str, unit: str) -> None:
        self.file = file
        self.title = title
        self.axis = axis
        self.unit = unit


@dataclass(slots=True)
class Growth:
    """The points of all curves of one run."""

    points: dict[Curve, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, curve: Curve, work: int, cost: float) -> None:
        """`cost` (of the curve's unit) was measured with so much work."""
        self.points[curve][work] = cost

    def steepest(self, curve: Curve) -> float | None:
        """The largest exponent between neighbours: 0 constant, 1 linear; None for one point."""
        exponents = [
            log10(second / first) / log10(more / less)
            for (less, first), (more, second) in pairwise(sorted(self.points[curve].items()))
        ]
        return max(exponents, default=None)

    def draw(self, folder: Path) -> list[Path]:
        """A PNG a curve of two points or more; their paths."""
        drawn = [curve for curve, points in self.points.items() if len(points) > 1]
        folder.mkdir(parents=True, exist_ok=True)
        return [self.draw_curve(curve, folder) for curve in drawn]

    def draw_curve(self, curve: Curve, folder: Path) -> Path:
        # It takes a second to import, and only a run that draws needs it.
        from matplotlib.figure import Figure

        points = sorted(self.points[curve].items())
        works, costs = [work for work, _ in points], [cost for _, cost in points]
        linear = [costs[0] * work / works[0] for work in works]
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.loglog(works, costs, "o-", label="measured")
        axes.loglog(works, linear, "--", color="gray", label="linear")
        axes.set(title=curve.title, xlabel=curve.axis, ylabel=curve.unit)
        axes.legend()
        path = folder / f"{curve.file}.png"
        figure.savefig(path, dpi=100)
        return path
