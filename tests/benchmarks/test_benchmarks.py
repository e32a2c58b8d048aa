"""The benchmarks run, and give the figures that they promise; how large those are is no test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data.completion import find_manifests_completed_by
from data.models import QueueItem, database_proxy
from tests.benchmarks import (
    completion,
    completion_engines,
    download,
    enqueue,
    jobs,
    lanes,
    last_blob_to_index,
    start,
    sweep,
)
from tests.benchmarks.__main__ import GOALS
from tests.benchmarks.growth import Curve, Growth
from tests.benchmarks.largetables import LargeTables, build_large_tables
from tests.benchmarks.site import Site, running_site

pytestmark = pytest.mark.xdist_group("benchmarks")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site() as running:
        running.write_complete_image()
        yield running


@pytest.fixture
def growth() -> Growth:
    return Growth()


@pytest.fixture(scope="module")
def tables(site: Site) -> LargeTables:
    return build_large_tables(site, manifests=3000, waiting=2000)


def test_last_blob_to_index(site: Site, growth: Growth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_blob_to_index, "WARM_UP", 1)
    figures = last_blob_to_index.measure(site, growth, rounds=3, cycle=False)
    assert 0 < (figures["p50_ms"] or 0) <= (figures["p99_ms"] or 0)
    assert figures["cycle_p50_ms"] is None
    assert figures.keys() == GOALS["last_blob_to_index"].keys()


def test_completion_agrees_with_its_references(
    site: Site, growth: Growth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "SHARING", 5)
    figures = completion.measure(site, growth, rounds=1, quick=True)
    assert figures["statements"] == 1
    assert figures.keys() == GOALS["completion"].keys()
    shared = completion.fill(site, 5, 4)
    ours = sorted(each.manifest_id for each in find_manifests_completed_by(shared))
    assert len(ours) == 5
    assert ours == sorted(completion.check_per_blob(shared))
    assert ours == sorted(completion.check_per_manifest(shared))


def test_completion_in_large_tables(tables: LargeTables, growth: Growth) -> None:
    figures = completion.measure_large(tables, growth)
    assert (figures["p99_ms_large"] or 0) > 0
    assert sorted(growth.points[Curve.SHARING]) == [1, 10, 1000, 2000]


def test_completion_on_other_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in (("MANIFESTS", 5), ("SHARING", 5), ("LOOKS", 5)):
        monkeypatch.setattr(completion_engines, name, small)
    bound = database_proxy.obj
    try:
        measured = completion_engines.measure(rounds=1)
    finally:
        database_proxy.initialize(bound)
    assert [each.statements for each in measured] == [1] * len(measured)
    assert completion_engines.table_of(measured).row_count >= 1


def test_jobs(site: Site, growth: Growth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "JOBS", 10)
    monkeypatch.setattr(jobs, "SIXTEEN", 3)
    monkeypatch.setattr(jobs, "SIXTEEN_SECONDS", 0.1)
    monkeypatch.setattr(jobs, "TWO_JOBS", 10)
    figures = jobs.measure(site, growth, rounds=1, quick=False)
    assert figures.keys() == GOALS["jobs"].keys()
    assert (figures["two_workers"] or 0) > 0
    assert 0 < (figures["scanner_busy_16"] or 0) <= 1


def test_enqueue(site: Site, growth: Growth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enqueue, "ONE_BY_ONE", 20)
    monkeypatch.setattr(enqueue, "BULK", 1000)
    figures = enqueue.measure(site, growth, rounds=1, large=1000)
    assert figures.keys() == GOALS["enqueue"].keys()
    assert all(value is not None and value > 0 for value in figures.values())


def test_download(site: Site, growth: Growth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ROUNDS", 1)
    sizes = download.Sizes(large_mib=4, memory_mib=8, placed=40, curled=2)
    figures = download.measure_sizes(site, growth, sizes)
    assert figures.keys() == GOALS["download"].keys()
    for storage in ("", "_s3"):
        assert (figures[f"ratio_large{storage}"] or 0) > 0
        assert (figures[f"ratio_small{storage}"] or 0) > 0
        assert figures[f"rss_growth_mib{storage}"] is not None
    assert not QueueItem.select().exists(), "nothing is left over for the next benchmark"


def test_lanes(
    site: Site, tables: LargeTables, growth: Growth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "PULLS", 3)
    monkeypatch.setattr(lanes, "REPOSITORIES", (5,))
    figures = lanes.measure(site, tables, growth)
    assert figures.keys() == GOALS["lanes"].keys()
    assert (figures["p99_ms_behind_100k"] or 0) > 0
    assert (figures["index_calls_for_1000_repositories"] or 0) >= 1


def test_sweep(site: Site, tables: LargeTables, growth: Growth) -> None:
    sweep.measure_large(site, growth, tables)
    assert growth.points[Curve.SWEEP].keys() == {tables.manifests}


def test_start(site: Site, growth: Growth) -> None:
    figures = start.measure(site, growth, rounds=1)
    assert figures.keys() == GOALS["start"].keys()
    assert all(value is not None and value > 0 for value in figures.values())


def test_growth_tells_constant_from_linear_and_is_drawn(tmp_path: Path) -> None:
    growth = Growth()
    for work in (10, 100, 1000):
        growth.add(Curve.STATUS, work, 0.5)
        growth.add(Curve.SHARING, work, work * 0.1)
    growth.add(Curve.START, 10, 1.0)
    assert growth.steepest(Curve.STATUS) == pytest.approx(0)
    assert growth.steepest(Curve.SHARING) == pytest.approx(1)
    assert growth.steepest(Curve.START) is None
    drawn = growth.draw(tmp_path / "plots")
    assert sorted(path.name for path in drawn) == ["sharing.png", "status.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
