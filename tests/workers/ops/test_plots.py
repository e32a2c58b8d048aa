"""From samples to lines: scales, gaps, quantiles and words."""

from __future__ import annotations

from typing import Any

import pytest

from data.metrics import LATENCY_BUCKETS
from workers.ops.history import Latency, depths, latencies, quantile
from workers.ops.plots import duration, nice_step, plot_depth, plot_latency

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0082, "8 ms"),
        (0.9999, "1 s"),
        (1.5, "1.5 s"),
        (9.99, "10 s"),
        (119, "119 s"),
        (240, "4 min"),
        (7300, "2 h"),
        (300_000, "3 d"),
    ],
)
def test_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("highest", "step"), [(0, 1), (3, 1), (8, 2), (17, 5), (40, 10), (81, 50), (1_000_000, 500_000)]
)
def test_steps_are_round(highest: float, step: int) -> None:
    assert nice_step(highest) == step


def test_samples_that_are_close_are_joined_and_a_gap_is_left() -> None:
    points = [(NOW - 3000, 1.0), (NOW - 2985, 2.0), (NOW - 600, 3.0), (NOW - 585, 4.0), (NOW, 5.0)]
    plot = plot_depth(NOW, [("queued", "line-1", points)])
    (line,) = plot.lines
    assert line.path.count("M") == 2
    assert len(line.dots) == 1
    assert line.last == "5"


def test_what_is_older_than_an_hour_is_left_out() -> None:
    plot = plot_depth(NOW, [("queued", "line-1", [(NOW - 4000, 9.0)])])
    assert plot.empty
    assert plot.summary == "Nothing in the last hour."


def test_summary_says_what_the_lines_show() -> None:
    points = [(NOW - 30, 7.0), (NOW - 15, 3.0)]
    plot = plot_depth(NOW, [("queued", "line-1", points)])
    assert plot.summary == "queued: 3 now; at most 7 (queued) in the last hour."


@pytest.mark.parametrize("value", [0.0, 0.002, 0.5, 59.0, 90_000.0])
def test_every_latency_has_a_place_on_the_scale(value: float) -> None:
    plot = plot_latency(NOW, [("half", "line-1", [(NOW - 15, value), (NOW, value)])])
    heights = [float(each.split()[1]) for each in plot.lines[0].path.removeprefix("M").split(" L")]
    assert all(10 <= height <= 176 for height in heights)
    assert len(plot.up) >= 2


def cumulative(values: list[float]) -> list[float]:
    return [float(sum(v <= edge for v in values)) for edge in [*LATENCY_BUCKETS, float("inf")]]


def test_quantile_lies_in_the_bucket_of_its_observation() -> None:
    counts = cumulative([0.02] * 90 + [4.0] * 10)
    assert 0.01 <= quantile(counts, 0.5) <= 0.025
    assert 2.5 <= quantile(counts, 0.95) <= 5
    assert quantile(cumulative([99_999.0]), 0.5) == LATENCY_BUCKETS[-1]


def test_latency_of_a_minute_is_what_was_added_in_it() -> None:
    slow, fast = [4.0] * 10, [0.02] * 10
    totals = [cumulative(slow)] * 4 + [cumulative(slow + fast)] * 5
    samples = [{"at": NOW + 15 * n, "latency": each} for n, each in enumerate(totals)]
    (latency,) = latencies(samples)
    assert latency.p95 < 0.025


def test_totals_that_redis_lost_begin_anew() -> None:
    samples = [
        {"at": NOW, "latency": cumulative([4.0] * 10)},
        {"at": NOW + 15, "latency": cumulative([0.02])},
    ]
    (latency,) = latencies(samples)
    assert isinstance(latency, Latency)
    assert latency.median < 0.025


@pytest.mark.parametrize("sample", [{}, {"at": "x", "latency": "y"}, {"latency": [1, 2]}])
def test_sample_that_nobody_of_ours_wrote_does_no_harm(sample: dict[str, Any]) -> None:
    assert depths([sample])[0].queued == 0
    assert latencies([sample, sample]) == []
