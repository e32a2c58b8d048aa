"""The benchmarks run, and give the figures that they promise; how large those are is no test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from data.completion import find_manifests_completed_by
from data.models import QueueItem
from tests.benchmarks import completion, download, enqueue, last_blob_to_index, start
from tests.benchmarks.__main__ import GOALS, NOT_MEASURED
from tests.benchmarks.site import Site, running_site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site() as running:
        yield running


def test_last_blob_to_index(site: Site) -> None:
    figures = last_blob_to_index.measure(site, rounds=3, cycle_rounds=0)
    assert 0 < (figures["p50_ms"] or 0) <= (figures["p99_ms"] or 0)
    assert figures["cycle_p50_ms"] is None


def test_completion_agrees_with_its_references(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "SHARING", 5)
    figures = completion.measure(site, rounds=1)
    assert figures["statements"] == 1
    shared = site.store(b"shared by all")
    ours = sorted(each.manifest_id for each in find_manifests_completed_by(shared))
    assert ours == sorted(completion.check_per_blob(shared))
    assert ours == sorted(completion.check_per_manifest(shared))


def test_enqueue(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enqueue, "ONE_BY_ONE", 20)
    monkeypatch.setattr(enqueue, "BULK", 1000)
    figures = enqueue.measure(site, rounds=1, large=1000)
    assert all(value is not None and value > 0 for value in figures.values())


def test_download(site: Site) -> None:
    sizes = download.Sizes(large_mib=4, memory_mib=8, placed=20, curled=2)
    figures = download.measure_sizes(site, sizes)
    assert (figures["ratio_large"] or 0) > 0
    assert (figures["ratio_small"] or 0) > 0
    assert figures["rss_growth_mib"] is not None
    assert not QueueItem.select().exists(), "nothing is left over for the next benchmark"


def test_start(site: Site) -> None:
    figures = start.measure(site, rounds=1)
    assert all(value is not None and value > 0 for value in figures.values())


def test_goals_are_of_figures_that_exist() -> None:
    parts = {part for part, _ in GOALS}
    assert parts == {"last_blob_to_index", "completion", "jobs", "enqueue", "download", "start"}
    assert not parts & set(NOT_MEASURED)
