"""Starts the servers once and gives each test an empty place of its own in each engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.storage.servers import azurite, install_azurite, moto
from tests.data.storage.targets import (
    MotoAccount,
    S3Account,
    Target,
    azure_target,
    create_azure_container,
    local_target,
    open_moto_account,
    rclone_account,
    s3_target,
)
from tests.npm import NpmUnavailable


@pytest.fixture(scope="session")
def moto_account() -> Iterator[MotoAccount]:
    with moto() as url:
        yield open_moto_account(url)


@pytest.fixture(scope="session")
def account_at_rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Account]:
    with rclone_account(tmp_path_factory.mktemp("rclone")) as account:
        yield account


@pytest.fixture(scope="session")
def azurite_url() -> Iterator[str]:
    with azurite() as url:
        create_azure_container(url)
        yield url


LEFT_OUT = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where Azurite can't be had, leave out the tests that need it; in CI they fail instead."""
    needing = [item for item in items if needs_azurite(item)]
    if not needing or os.environ.get("CI") or config.option.collectonly:
        return
    try:
        install_azurite()
    except NpmUnavailable as error:
        config.stash[LEFT_OUT] = (
            f"left out {len(needing)} tests of Azure storage: Azurite can't be installed from the "
            f"npm registry ({error}); run again when the registry can be reached"
        )
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


def needs_azurite(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return "azurite_url" in item.fixturenames or parameters.get("target") == "azure"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if LEFT_OUT in config.stash:
        terminalreporter.write_line(config.stash[LEFT_OUT], yellow=True)


@pytest.fixture(params=["local", "s3", "rclone", "azure"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """An engine to run a test on; the test fails if it leaves anything unfinished behind."""
    if request.param == "local":
        chosen = local_target(tmp_path)
    elif request.param == "s3":
        chosen = s3_target(request.getfixturevalue("moto_account"))
    elif request.param == "rclone":
        chosen = s3_target(request.getfixturevalue("account_at_rclone"), "rclone")
    else:
        chosen = azure_target(request.getfixturevalue("azurite_url"))
    yield chosen
    assert chosen.unfinished() == []
