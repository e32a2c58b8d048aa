"""Starts the servers once and gives each test an empty place of its own in each engine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.storage.servers import azurite, install_azurite, moto
from tests.data.storage.targets import (
    MotoAccount,
    Target,
    azure_target,
    create_azure_container,
    local_target,
    open_moto_account,
    s3_target,
)


@pytest.fixture(scope="session")
def moto_account() -> Iterator[MotoAccount]:
    with moto() as url:
        yield open_moto_account(url)


@pytest.fixture(scope="session")
def azurite_url() -> Iterator[str]:
    try:
        install_azurite()
    except (subprocess.SubprocessError, OSError) as error:
        reason = (
            f"Azure storage left out: Azurite can't be installed from the npm registry: {error}"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with azurite() as url:
        create_azure_container(url)
        yield url


@pytest.fixture(params=["local", "s3", "azure"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """An engine to run a test on; the test fails if it leaves anything unfinished behind."""
    if request.param == "local":
        chosen = local_target(tmp_path)
    elif request.param == "s3":
        chosen = s3_target(request.getfixturevalue("moto_account"))
    else:
        chosen = azure_target(request.getfixturevalue("azurite_url"))
    yield chosen
    assert chosen.unfinished() == []
