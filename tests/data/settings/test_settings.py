"""What the keys of config.yaml mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data.errors import SettingsError
from data.policy import Policy
from data.settings import (
    RegistryState,
    RescanSettings,
    ScannerSettings,
    Severity,
    WorkerType,
    read_settings,
    setting_docs,
)
from tests.data.settings.conftest import MINIMUM, STORAGE, Read, write_config

FILE = "conf/stack/database.pem"


def test_quay_s_defaults(read: Read) -> None:
    settings = read()
    assert settings.database.uri.get_secret_value() == MINIMUM["DB_URI"]
    assert settings.storage.config == {
        "default": ("LocalStorage", {"storage_path": "/datastorage/registry"})
    }
    features = settings.features
    assert (features.proxy_cache, features.proxy_cache_blob_download) == (False, True)
    assert (features.security_scanner, features.setup_complete) == (False, False)
    assert features.registry_state is RegistryState.NORMAL
    assert settings.registry.maximum_layer_size == 20 * 10**9
    assert settings.registry.service_key_path == Path("/quay-registry/conf/quay.pem")
    assert settings.scanner.notification_minimum_severity is Severity.HIGH
    assert (settings.redis.host, settings.redis.port) == ("localhost", 6379)


def test_a_null_is_as_good_as_no_key(read: Read) -> None:
    keys = {doc.key: None for doc in setting_docs() if not doc.required}
    pushed_nowhere = read().registry.model_copy(update={"prometheus_pushgateway_url": None})
    assert read(**keys) == read().model_copy(update={"registry": pushed_nowhere})


def test_keys_of_quay_that_are_not_ours_are_ignored(read: Read) -> None:
    assert read(SECRET_KEY="x", SUPER_USERS=["admin"], lower="x") == read()


def test_option_that_the_driver_does_not_know_is_named(read: Read) -> None:
    with pytest.raises(SettingsError, match="sslmod is no option of psycopg") as caught:
        read(DB_CONNECTION_ARGS={"sslmod": "verify-full", "threadlocals": True})
    assert caught.value.key == "DB_CONNECTION_ARGS"


@pytest.mark.parametrize(
    ("uri", "arguments", "found"),
    [
        (
            "postgresql://quay@db/quay",
            {"sslmode": "verify-full", "sslrootcert": FILE, "sslcert": "conf/stack/none.pem"},
            {"sslmode": "verify-full", "sslrootcert": "{}", "sslcert": "conf/stack/none.pem"},
        ),
        (
            "mysql+pymysql://quay@db/quay",
            {"ssl": {"ca": FILE, "x": 1}},
            {"ssl": {"ca": "{}", "x": 1}},
        ),
        ("mysql+pymysql://quay@db/quay", {"ssl_ca": FILE}, {"ssl_ca": "{}"}),
    ],
)
def test_certificates_of_the_database_lie_where_quay_finds_them(
    tmp_path: Path, uri: str, arguments: dict[str, Any], found: dict[str, Any]
) -> None:
    """Relative to the directory from which Quay runs, the one above its conf."""
    stack = tmp_path / "conf" / "stack"
    stack.mkdir(parents=True)
    (stack / "database.pem").touch()
    write_config(stack, {**MINIMUM, "DB_URI": uri, "DB_CONNECTION_ARGS": arguments})
    settings = read_settings(environ={"QUAYCONF": str(tmp_path / "conf")})
    expected = json.loads(json.dumps(found).replace("{}", str(stack / "database.pem")))
    assert settings.database.connection_args == expected


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://quay@db/quay",
        "postgresql+psycopg2://quay:p%40w@db:5432/quay",
        "mysql://quay@db/quay",
        "mysql+pymysql://quay@[::1]:3306/quay",
        "sqlite:////var/lib/quay.db",
        "sqlite:///quay.db",
        "sqlite:///:memory:",
    ],
)
def test_database_uris_that_quay_takes(read: Read, uri: str) -> None:
    assert read(DB_URI=uri).database.uri.get_secret_value() == uri


def test_a_key_of_digits_is_text(read: Read) -> None:
    key = read(DATABASE_SECRET_KEY=12345678901234567890).database.secret_key
    assert key is not None
    assert key.get_secret_value() == "12345678901234567890"


@pytest.mark.parametrize(
    ("size", "bytes_"),
    [
        ("20G", 20 * 10**9),
        ("20 GB", 20 * 10**9),
        ("20Gi", 20 * 2**30),
        ("1.5M", 1_500_000),
        ("500k", 500_000),
        (4096, 4096),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_maximum_layer_size_as_bitmath_reads_it(read: Read, size: object, bytes_: int) -> None:
    assert read(MAXIMUM_LAYER_SIZE=size).registry.maximum_layer_size == bytes_


@pytest.mark.parametrize(
    ("size", "bytes_"), [("8G", 8 * 2**30), ("100M", 100 * 2**20), ("1T", 2**40), ("7B", 7)]
)
def test_scanner_s_layer_size_is_binary(read: Read, size: str, bytes_: int) -> None:
    read_size = read(SECURITY_SCANNER_V4_INDEX_MAX_LAYER_SIZE=size).scanner.maximum_layer_size
    assert read_size == bytes_
    assert read(SECURITY_SCANNER_V4_INDEX_MAX_LAYER_SIZE="").scanner.maximum_layer_size is None


@pytest.mark.parametrize(
    ("tracked", "labels"),
    [
        (["a", "b"], {"a": "a", "b": "b"}),
        ("a", {"a": "a"}),
        ({"big": ["a", "b"], "small": "c"}, {"a": "big", "b": "big", "c": "small"}),
    ],
)
def test_tracked_namespaces_in_all_their_forms(
    read: Read, tracked: object, labels: dict[str, str]
) -> None:
    assert read(TRACKED_NAMESPACES=tracked).registry.tracked_namespaces == labels


def test_relative_key_files_are_relative_to_where_quay_runs(tmp_path: Path) -> None:
    path = write_config(
        tmp_path, {**MINIMUM, "INSTANCE_SERVICE_KEY_LOCATION": "conf/stack/own.pem"}
    )
    registry = read_settings(path, {"QUAYCONF": "/quay-registry/conf"}).registry
    assert registry.service_key_path == Path("/quay-registry/conf/stack/own.pem")
    assert registry.service_key_id_path == Path("/quay-registry/conf/quay.kid")


def test_all_locations_are_preferred_unless_some_are(read: Read) -> None:
    locations = {"eu": STORAGE["default"], "us": STORAGE["default"]}
    assert read(DISTRIBUTED_STORAGE_CONFIG=locations).storage.preference == ("eu", "us")
    keys = {"DISTRIBUTED_STORAGE_CONFIG": locations, "DISTRIBUTED_STORAGE_PREFERENCE": ["us"]}
    assert read(**keys).storage.preference == ("us",)
    environ = {"QUAY_DISTRIBUTED_STORAGE_PREFERENCE": "us eu"}
    assert read(environ, **keys).storage.preference == ("us", "eu")


def test_retries_follow_the_scanner_s_unless_set(read: Read) -> None:
    assert read(SECURITY_SCANNER_MAX_SCAN_RETRIES=2).rescan.maximum_retries == 2
    keys = {"SECURITY_SCANNER_MAX_SCAN_RETRIES": 2, "RESCAN_MAX_RETRIES": 9}
    assert read(**keys).rescan.maximum_retries == 9


def test_our_own_keys(read: Read) -> None:
    rescan = read(
        PROXY_CACHE_AUTO_RESET_SECURITY_STATUS=False,
        RESCAN_POLICY={"default": False, "organizations": {"a-*": "cycle"}},
        RESCAN_OPS_LISTEN="[::1]:80",
        RESCAN_WORKERS=["rescan", "security"],
        RESCAN_OPS_TOKEN="t",
    ).rescan
    assert not rescan.auto_reset_security_status
    assert rescan.policy.default is Policy.OFF
    assert rescan.policy.organizations == {"a-*": Policy.CYCLE}
    assert (rescan.ops_listen.host, rescan.ops_listen.port) == ("::1", 80)
    assert rescan.workers == (WorkerType.RESCAN, WorkerType.SECURITY)
    assert rescan.ops_token is not None
    assert rescan.ops_token.get_secret_value() == "t"


def test_settings_are_frozen(read: Read) -> None:
    settings = read()
    for group, field in ((settings, "rescan"), (settings.rescan, "queue_name")):
        with pytest.raises(ValidationError):
            setattr(group, field, "x")


def test_groups_are_built_by_field_name() -> None:
    assert ScannerSettings(psk="x", indexing_interval=1).indexing_interval == 1
    assert RescanSettings(blob_downloads=2).blob_downloads == 2
