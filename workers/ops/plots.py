"""Line plots of the last hour: from values to the coordinates that `plot.svg` draws.

The horizontal axis is always the hour before now, so that a gap is seen as a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 10, 24
HOUR = 3600.0
# Samples further apart than this are not joined by a line.
GAP_SECONDS = 150.0
TICKS_OF_LATENCY = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0)

Point = tuple[float, float]
"""Unix seconds and a value."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its name, the class that colours it, its path, and where it ends."""

    name: str
    style: str
    path: str
    dots: tuple[tuple[float, float], ...]  # points that no line joins
    last: str  # the last value, in words


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled position on an axis."""

    position: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What the template draws, and the same in words for whoever doesn't see it."""

    name: str
    title: str
    summary: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    empty: bool


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to heights. `lowest` of a logarithmic scale is above 0."""

    lowest: float
    highest: float
    logarithmic: bool

    def height(self, value: float) -> float:
        if self.logarithmic:
            value = math.log10(max(value, self.lowest) / self.lowest)
            whole = math.log10(self.highest / self.lowest)
        else:
            value, whole = value - self.lowest, self.highest - self.lowest
        share = min(max(value / whole, 0.0), 1.0)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)


def plot_depth(now: float, lines: Sequence[tuple[str, str, Sequence[Point]]]) -> Plot:
    """Counts of jobs on a linear scale that begins at 0."""
    highest = max((value for _, _, points in lines for _, value in points), default=0.0)
    step = nice_step(highest)
    top = max(step * math.ceil(highest / step), step)
    ticks = [step * n for n in range(round(top / step) + 1)]
    scale = Scale(0.0, float(top), logarithmic=False)
    return build_plot("depth", "Jobs in the queue", now, lines, scale, ticks, whole_number)


def plot_latency(now: float, lines: Sequence[tuple[str, str, Sequence[Point]]]) -> Plot:
    """Seconds on a logarithmic scale: milliseconds when idle, minutes behind a backlog."""
    values = [value for _, _, points in lines for _, value in points]
    lowest, highest = min(values, default=0.01), max(values, default=1.0)
    below = [tick for tick in TICKS_OF_LATENCY[:-1] if tick <= lowest]
    above = [tick for tick in TICKS_OF_LATENCY[1:] if tick >= highest]
    scale = Scale(
        below[-1] if below else TICKS_OF_LATENCY[0],
        above[0] if above else TICKS_OF_LATENCY[-1],
        logarithmic=True,
    )
    if scale.highest <= scale.lowest:
        scale = Scale(scale.lowest, scale.lowest * 10, logarithmic=True)
    ticks = [tick for tick in TICKS_OF_LATENCY if scale.lowest <= tick <= scale.highest]
    title = "Last blob to index call"
    return build_plot("latency", title, now, lines, scale, ticks, duration)


def build_plot(
    name: str,
    title: str,
    now: float,
    lines: Sequence[tuple[str, str, Sequence[Point]]],
    scale: Scale,
    ticks: Sequence[float],
    in_words: Callable[[float], str],
) -> Plot:
    drawn = tuple(
        draw_line(each, style, in_hour(points, now), now, scale, in_words)
        for each, style, points in lines
    )
    empty = not any(line.path or line.dots for line in drawn)
    values = [(v, each) for each, _, points in lines for _, v in in_hour(points, now)]
    most = max(values, default=None)
    summary = "; ".join(f"{line.name}: {line.last} now" for line in drawn if line.last)
    return Plot(
        name=name,
        title=title,
        summary="Nothing in the last hour."
        if empty or most is None
        else f"{summary}; at most {in_words(most[0])} ({most[1]}) in the last hour.",
        lines=drawn,
        across=tuple(
            Tick(across(now - 60 * minutes, now), "now" if not minutes else f"-{minutes} min")
            for minutes in (60, 45, 30, 15, 0)
        ),
        up=tuple(Tick(scale.height(tick), in_words(tick)) for tick in ticks),
        empty=empty,
    )


def in_hour(points: Sequence[Point], now: float) -> list[Point]:
    return [point for point in points if now - HOUR <= point[0] <= now + 60]


def draw_line(
    name: str,
    style: str,
    points: Sequence[Point],
    now: float,
    scale: Scale,
    in_words: Callable[[float], str],
) -> Line:
    runs = split_at_gaps(points)
    placed = [[(across(at, now), scale.height(value)) for at, value in run] for run in runs]
    path = " ".join("M" + " L".join(f"{x} {y}" for x, y in run) for run in placed if len(run) > 1)
    dots = tuple(run[0] for run in placed if len(run) == 1)
    return Line(name, style, path, dots, in_words(points[-1][1]) if points else "")


def split_at_gaps(points: Sequence[Point]) -> list[list[Point]]:
    runs: list[list[Point]] = []
    for point in points:
        if runs and point[0] - runs[-1][-1][0] <= GAP_SECONDS:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def across(at: float, now: float) -> float:
    share = min(max((at - (now - HOUR)) / HOUR, 0.0), 1.0)
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def nice_step(highest: float) -> int:
    """1, 2 or 5 times a power of ten, so that three to five steps reach the highest value."""
    rough = max(highest, 1.0) / 4
    power = 10.0 ** math.floor(math.log10(rough)) if rough >= 1 else 1.0
    return next(int(power * n) for n in (1, 2, 5, 10) if power * n >= rough)


def whole_number(value: float) -> str:
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """8 ms, 1.5 s, 12 s, 4 min, 2 h, 3 d."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    for unit, length, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < most:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
