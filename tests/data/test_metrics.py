"""Names, labels and what a process counts."""

from __future__ import annotations

import pytest

from data.metrics import (
    COUNTER_LABELS,
    GAUGES,
    SERIES_FROM_THE_START,
    STATUS_LABELS,
    Metrics,
    NamespaceLabels,
    metric_names,
)
from data.secscan.rescan import Outcome
from data.secscan.status import IndexStatus, Reason


def test_names_are_those_that_operators_were_promised() -> None:
    assert metric_names() == {
        "quay_rescan_queue_depth",
        "quay_rescan_oldest_queued_seconds",
        "quay_rescan_jobs_total",
        "quay_rescan_last_blob_to_index_seconds",
        "quay_rescan_index_seconds",
        "quay_proxy_cache_security_resets_total",
        "quay_proxy_cache_blob_downloads_total",
        "quay_proxy_cache_blob_bytes_total",
        "quay_rescan_stuck_manifests",
        "quay_rescan_scanner_up",
        "quay_rescan_workers",
        "quay_manifest_security_status_rows",
    }


def test_labels_are_those_that_operators_were_promised() -> None:
    assert COUNTER_LABELS["quay_rescan_jobs"] == ("outcome", "reason")
    assert COUNTER_LABELS["quay_proxy_cache_blob_downloads"] == ("outcome",)
    assert {each.name: each.labels for each in GAUGES}["quay_rescan_queue_depth"] == ("state",)


def test_counters_have_the_labels_that_are_named_for_them() -> None:
    for family in Metrics().registry.collect():
        if family.type == "counter":
            assert family.name in COUNTER_LABELS


def test_every_end_of_a_job_is_there_from_the_start() -> None:
    series = SERIES_FROM_THE_START["quay_rescan_jobs_total"]
    ends = {(each["outcome"], each["reason"]) for each in series}
    assert len(ends) == (len(Outcome) - 1) * len(Reason)
    assert not any(outcome == "claimed_elsewhere" for outcome, _ in ends)


def test_every_status_of_quay_has_a_label() -> None:
    assert set(STATUS_LABELS) == set(IndexStatus)
    assert STATUS_LABELS[IndexStatus.MANIFEST_UNSUPPORTED] == "manifest_unsupported"


@pytest.mark.parametrize(
    ("namespace", "label"), [("team", "blue"), ("other-team", "other"), ("blue", "other")]
)
def test_only_tracked_namespaces_are_named(namespace: str, label: str) -> None:
    assert NamespaceLabels({"team": "blue"}).label(namespace) == label


def test_two_processes_of_one_program_count_apart() -> None:
    mine, other = Metrics(), Metrics()
    mine.resets.labels(namespace="other").inc()
    series = ("quay_proxy_cache_security_resets_total", (("namespace", "other"),))
    assert mine.totals()[series] == 1
    assert series not in other.totals()


def test_when_a_series_began_is_no_count() -> None:
    mine = Metrics()
    mine.resets.labels(namespace="other").inc()
    assert not any(name.endswith("_created") for name, _ in mine.totals())
