from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.integration.pipeline import Pipeline, pipeline


@pytest.fixture
def quay(database: str, redis: Redis, tmp_path: Path) -> Iterator[Pipeline]:
    """A Quay with its workers, on each engine in turn."""
    with pipeline(database, redis, tmp_path) as whole:
        yield whole
