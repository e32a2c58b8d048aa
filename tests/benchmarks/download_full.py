"""`python -m tests.benchmarks.download_full`: downloads at length, in a quarter of an hour.

What download.py measures, with five rounds of 4 GiB and 10,000 small blobs; besides, small blobs
from a registry that answers after 50 ms, and one curl that keeps its connection for all of them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from statistics import median

import structlog

from tests.benchmarks.download import (
    ROUNDS,
    Downloads,
    into_s3,
    large_rounds,
    organization,
    slices,
    small_rounds,
)
from tests.benchmarks.fastregistry import running_registry
from tests.benchmarks.site import Site, running_site

LARGE_MIB = 4096
SMALL = 10_000
CURLED = 300  # small blobs a round that curl gets: it is the slower
FAR_SECONDS = 0.05
FAR_SMALL = 300


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        running_site() as site,
        running_registry(large_mib=[LARGE_MIB], small=SMALL) as registry,
        organization(site, registry, "near") as local,
        into_s3(local) as s3,
    ):
        local.add_manifests()
        storages = {"local": local, "S3": s3}
        measure_large(storages, registry.large[LARGE_MIB])
        for name, downloads in storages.items():
            with downloads.worker() as pid:
                measure_small(name, downloads)
                growth = downloads.memory_growth(pid, registry.large[LARGE_MIB])
                say(f"large, {name}: resident memory grows by", growth, "MiB")
        with local.worker():
            measure_far(site, local)


def measure_large(storages: Mapping[str, Downloads], digest: str) -> None:
    ratios: dict[str, list[float]] = {name: [] for name in storages}
    for curl, ours in large_rounds(list(storages.values()), digest):
        say("large: curl | tee | sha256sum", LARGE_MIB / curl.seconds, "MiB a second")
        for name, took in zip(storages, ours, strict=True):
            say(f"large, {name}: ours", LARGE_MIB / took.seconds, "MiB a second")
            ratios[name].append(curl.seconds / took.seconds)
    for name in storages:
        say(f"large, {name}: median of the ratios", median(ratios[name]))


def measure_small(name: str, downloads: Downloads) -> None:
    ratios, kept_ratios = [], []
    for digests, ours, curl in small_rounds(downloads, SMALL // ROUNDS, CURLED):
        kept = downloads.curl.fetch_all(digests).a_second
        say(f"small, {name}: ours", ours, "a second")
        say(f"small, {name}: curl | tee | sha256sum for each", curl.a_second, "a second")
        say(f"small, {name}: one curl, then one sha256sum", kept, "a second")
        ratios.append(ours / curl.a_second)
        kept_ratios.append(ours / kept)
    say(f"small, {name}: median of the ratios", median(ratios))
    say(f"small, {name}: median of the ratios to one curl", median(kept_ratios))


def measure_far(site: Site, near: Downloads) -> None:
    with (
        running_registry(small=ROUNDS * FAR_SMALL, delay=FAR_SECONDS) as registry,
        organization(site, registry, "far") as far,
    ):
        near.forget(registry.small)
        ratios = []
        for digests in slices(registry.small, FAR_SMALL):
            ours = far.work_off(digests)
            kept = far.curl.fetch_all(digests[: FAR_SMALL // 3]).a_second
            say("small, 50 ms away: ours", ours, "a second")
            say("small, 50 ms away: one curl, then one sha256sum", kept, "a second")
            ratios.append(ours / kept)
        say("small, 50 ms away: median of the ratios", median(ratios))


def say(what: str, value: float, unit: str = "") -> None:
    sys.stdout.write(f"{what:50} {value:10,.2f} {unit}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
