"""`python -m tests.benchmarks.download_full`: downloads at length, in a quarter of an hour.

Beside what download.py measures: five rounds of 4 GiB, small blobs from a registry that answers
after 50 ms, one curl that keeps its connection for all of them, and an S3 server (moto's, whose own
speed is the limit there).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import structlog

from data.models import ImageStorageLocation
from tests.benchmarks.download import ROUNDS, Downloads, organization, slices
from tests.benchmarks.fastregistry import running_registry
from tests.benchmarks.site import Site, running_site
from tests.data.storage.servers import moto
from tests.data.storage.targets import open_moto_account, s3_target

LARGE_MIB = 4096
SMALL = 10_000
CURLED = 300  # small blobs a round that curl gets: it is the slower
FAR_SECONDS = 0.05
FAR_SMALL = 300
S3_SMALL = 500


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        running_site() as site,
        running_registry(large_mib=[LARGE_MIB], small=SMALL) as registry,
        organization(site, registry, "near") as near,
    ):
        near.add_manifests()
        measure_large(near)
        with site.worker("proxycacheblobworker") as pid:
            measure_small(near)
            growth = near.memory_growth(pid, registry.large[LARGE_MIB])
            say("large, local storage: resident memory grows by", growth, "MiB")
            measure_far(site, near)
        with s3_worker(site) as pid:
            measure_s3(near, pid)


def measure_large(near: Downloads) -> None:
    digest, ratios = near.registry.large[LARGE_MIB], []
    for _ in range(ROUNDS):
        curl, ours = near.curl([digest]).seconds, near.place(digest).seconds
        say("large: curl | tee | sha256sum", LARGE_MIB / curl, "MiB a second")
        say("large: ours", LARGE_MIB / ours, "MiB a second")
        ratios.append(curl / ours)
    say("large: median of the ratios", median(ratios))


def measure_small(near: Downloads) -> None:
    ratios, kept_ratios = [], []
    for digests in slices(near.registry.small, SMALL // ROUNDS):
        ours = near.work_off(digests)
        curl, kept = near.curl(digests[:CURLED]).a_second, near.curl_kept(digests).a_second
        say("small: ours", ours, "a second")
        say("small: curl | tee | sha256sum for each", curl, "a second")
        say("small: one curl, then one sha256sum", kept, "a second")
        ratios.append(ours / curl)
        kept_ratios.append(ours / kept)
    say("small: median of the ratios", median(ratios))
    say("small: median of the ratios to one curl", median(kept_ratios))


def measure_far(site: Site, near: Downloads) -> None:
    with (
        running_registry(small=ROUNDS * FAR_SMALL, delay=FAR_SECONDS) as registry,
        organization(site, registry, "far") as far,
    ):
        near.forget(registry.small)
        ratios = []
        for digests in slices(registry.small, FAR_SMALL):
            ours, kept = far.work_off(digests), far.curl_kept(digests[: FAR_SMALL // 3]).a_second
            say("small, 50 ms away: ours", ours, "a second")
            say("small, 50 ms away: one curl, then one sha256sum", kept, "a second")
            ratios.append(ours / kept)
        say("small, 50 ms away: median of the ratios", median(ratios))


@contextmanager
def s3_worker(site: Site) -> Iterator[int]:
    """The blob worker on a bucket of moto's; its pid."""
    ImageStorageLocation.create(name="s3")
    with moto() as url:
        changes: dict[str, Any] = {
            "DISTRIBUTED_STORAGE_CONFIG": {"s3": list(s3_target(open_moto_account(url)).config)},
            "DISTRIBUTED_STORAGE_PREFERENCE": ["s3"],
        }
        with site.worker("proxycacheblobworker", changes=changes) as pid:
            yield pid


def measure_s3(near: Downloads, pid: int) -> None:
    near.forget(near.registry.small)
    for digests in slices(near.registry.small[: ROUNDS * S3_SMALL], S3_SMALL):
        say("small, S3: ours", near.work_off(digests), "a second")
    digest = near.registry.large[LARGE_MIB]
    growth = near.memory_growth(pid, digest)
    say("large, S3: resident memory grows by", growth, "MiB")


def say(what: str, value: float, unit: str = "") -> None:
    sys.stdout.write(f"{what:50} {value:10,.2f} {unit}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
