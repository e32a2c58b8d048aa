"""Where config.yaml lies, and what becomes of a file that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.errors import SettingsError
from data.settings import read_settings
from tests.data.settings.conftest import MINIMUM, Read, write_config


def test_the_file_of_quayconf_is_read_by_default(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    write_config(tmp_path / "stack", {**MINIMUM, "RESCAN_BLOB_DOWNLOADS": 7})
    settings = read_settings(environ={"QUAYCONF": str(tmp_path)})
    assert settings.rescan.blob_downloads == 7
    assert settings.registry.service_key_path == tmp_path / "quay.pem"


def test_without_quayconf_the_conf_directory_at_hand_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf" / "stack").mkdir(parents=True)
    write_config(tmp_path / "conf" / "stack", {**MINIMUM, "RESCAN_BLOB_DOWNLOADS": 7})
    monkeypatch.chdir(tmp_path)
    assert read_settings(environ={}).rescan.blob_downloads == 7


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(SettingsError, match=r"No such file.*--config") as caught:
        read_settings(path, {})
    assert caught.value.key == str(path)


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="can't be read"):
        read_settings(tmp_path / name, {})


def test_the_override_variable_has_the_last_word(read: Read) -> None:
    override = json.dumps({"FEATURE_PROXY_CACHE": True, "RESCAN_SWEEP_INTERVAL": 5})
    settings = read({"QUAY_OVERRIDE_CONFIG": override}, RESCAN_SWEEP_INTERVAL=9)
    assert settings.features.proxy_cache
    assert settings.rescan.sweep_interval == 5


@pytest.mark.parametrize(("value", "on"), [("true", True), ("True", True), ("false", False)])
def test_a_feature_variable_has_the_last_word(read: Read, value: str, on: bool) -> None:
    settings = read({"QUAY_FEATURE_PROXY_CACHE": value}, FEATURE_PROXY_CACHE=not on)
    assert settings.features.proxy_cache is on


def test_a_broken_feature_variable_is_named(read: Read) -> None:
    with pytest.raises(SettingsError, match="FEATURE_PROXY_CACHE: should be true or false"):
        read({"QUAY_FEATURE_PROXY_CACHE": "perhaps"})


@pytest.mark.parametrize("override", ["{", "[]", "[" * 100_000])
def test_a_broken_override_variable_is_named(read: Read, override: str) -> None:
    with pytest.raises(SettingsError, match="isn't a JSON object") as caught:
        read({"QUAY_OVERRIDE_CONFIG": override})
    assert caught.value.key == "QUAY_OVERRIDE_CONFIG"


@pytest.mark.parametrize(
    "text",
    [
        "DB_URI: [hunter2",
        "DB_URI: *hunter2",
        "DB_URI: !hunter2 x",
        "- hunter2",
        "hunter2",
        "",
        "DB_URI: !!int ''",
        "DB_URI: !!bool hunter2",
        "DB_URI: !!timestamp hunter2",
        "? [a]\n: b",
        "a: " + "[" * 50_000,
        "DB_URI: 2026-99-99",
        "DB_URI: \x00hunter2",
        "DB_URI: !!python/object/apply:os.system [hunter2]",
    ],
)
def test_a_file_that_is_no_config_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    path = write_config(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_settings(path, {})
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)
