"""A wrong value is an error that names the key and never shows the value."""

from __future__ import annotations

from typing import Any

import pytest

from data.errors import SettingsError
from tests.data.settings.conftest import Read

WRONG: list[tuple[str, Any, str]] = [
    ("DB_URI", None, "is missing"),
    ("DB_URI", "oracle://quay@db/quay", "should be a URL that begins with"),
    ("DB_URI", "postgresql://quay@db", "should name a database"),
    ("DB_URI", "postgresql://quay@db:port/quay", "isn't a URL"),
    ("DB_CONNECTION_ARGS", ["sslmode"], "should be a mapping of driver options"),
    ("DATABASE_SECRET_KEY", 1.5, "put it in quotes"),
    ("DISTRIBUTED_STORAGE_CONFIG", None, "is missing"),
    ("DISTRIBUTED_STORAGE_CONFIG", {}, r"\[engine, parameters\]"),
    ("DISTRIBUTED_STORAGE_CONFIG", {"a": ["LocalStorage"]}, "'a' should be"),
    ("DISTRIBUTED_STORAGE_PREFERENCE", ["moon"], "names 'moon'"),
    ("DISTRIBUTED_STORAGE_PREFERENCE", "default", "should be a list"),
    ("DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS", ["moon"], "names 'moon'"),
    ("FEATURE_PROXY_CACHE", "maybe", "should be true or false"),
    ("REGISTRY_STATE", "read-only", "should be 'normal' or 'readonly'"),
    ("SECURITY_SCANNER_V4_ENDPOINT", "clair:6060", "begins with http"),
    ("SECURITY_SCANNER_V4_ENDPOINT", "http://clair:0", "port from 1"),
    ("SECURITY_SCANNER_V4_INDEX_MAX_LAYER_SIZE", "large", 'such as "20G"'),
    ("SECURITY_SCANNER_INDEXING_INTERVAL", 0, "greater than or equal to 1"),
    ("NOTIFICATION_MIN_SEVERITY_ON_NEW_INDEX", "Bad", "'High' or 'Critical'"),
    ("PREFERRED_URL_SCHEME", "ftp", "should be 'http' or 'https'"),
    ("MAXIMUM_LAYER_SIZE", "0G", "more than nothing"),
    ("MAXIMUM_LAYER_SIZE", True, 'such as "20G"'),
    ("TRACKED_NAMESPACES", 5, "list of organisation names"),
    ("INSTANCE_SERVICE_KEY_LOCATION", 5, "path of a file"),
    ("SSRF_ALLOWED_HOSTS", "registry.example", "should be a list"),
    ("PROXY_CACHE_AUTO_RESET_SECURITY_STATUS", "perhaps", "should be true or false"),
    ("RESCAN_QUEUE_NAME", "re scan", "letters, digits"),
    ("RESCAN_QUEUE_NAME", "rescan:1", "letters, digits"),
    ("RESCAN_JOB_TIMEOUT", "soon", "should be a whole number"),
    ("RESCAN_JOB_TIMEOUT", True, "not true or false"),
    ("RESCAN_JOB_TIMEOUT", 0, "greater than or equal to 1"),
    ("RESCAN_JOB_TIMEOUT", 10**4000, "less than or equal|smaller"),
    ("RESCAN_MAX_RETRIES", -1, "greater than or equal to 0"),
    ("RESCAN_MAX_CONCURRENT_INDEXES", 0, "greater than or equal to 1"),
    ("RESCAN_BLOB_DOWNLOADS", 1.5, "should be a whole number"),
    ("RESCAN_SWEEP_INTERVAL", [], "should be a whole number"),
    ("RESCAN_POLICY", "off", "should be a mapping"),
    ("RESCAN_POLICY", {"default": "later"}, "default: should be 'immediate', 'cycle' or 'off'"),
    ("RESCAN_POLICY", {"organisations": {}}, "organisations is not an option"),
    ("RESCAN_OPS_LISTEN", "9101", "such as 127.0.0.1:9101"),
    ("RESCAN_OPS_LISTEN", "host:99999", "such as 127.0.0.1:9101"),
    ("RESCAN_WORKERS", "rescan", "should be a list of worker types"),
    ("RESCAN_WORKERS", [], "should be a list of worker types"),
    ("RESCAN_WORKERS", ["rescan", "rescan"], "once"),
    ("RESCAN_WORKERS", ["rescue"], "'blob', 'rescan'"),
    ("RESCAN_LAYER_SERVER_URL", "layers.example", "begins with http"),
    ("RESCAN_BLOB_DOWNLOAD", 4, "did you mean RESCAN_BLOB_DOWNLOADS"),
    ("rescan_policy", {}, "did you mean RESCAN_POLICY"),
    ("RESCAN_", 1, "see conf/config.sample.yaml"),
]


@pytest.mark.parametrize(("key", "value", "words"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_value_is_an_error_that_names_the_key(
    read: Read, key: str, value: object, words: str
) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        read(**{key: value})
    assert caught.value.key == key
    assert "pydantic" not in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_a_layer_server_needs_its_secret(read: Read) -> None:
    with pytest.raises(SettingsError, match="RESCAN_LAYER_SERVER_URL needs it"):
        read(RESCAN_LAYER_SERVER_URL="http://127.0.0.1:8080")


SECRETS: dict[str, Any] = {
    "DB_URI": "postgresql://quay:hunter2@db:port/quay",
    "DATABASE_SECRET_KEY": ["hunter2"],
    "DB_CONNECTION_ARGS": ["hunter2"],
    "DISTRIBUTED_STORAGE_CONFIG": {"default": ["S3Storage", ["hunter2"]]},
    "SECURITY_SCANNER_V4_PSK": {"hunter2": "hunter2"},
    "SECURITY_SCANNER_V4_ENDPOINT": "http://quay:hunter2@[clair",
    "RESCAN_OPS_TOKEN": ["hunter2"],
    "RESCAN_LAYER_SERVER_SECRET": ["hunter2"],
    "RESCAN_REDIS": "redis://:hunter2",
    "USER_EVENTS_REDIS": {"password": ["hunter2"]},
    "MAXIMUM_LAYER_SIZE": "hunter2",
    "RESCAN_JOB_TIMEOUT": "hunter2",
}


@pytest.mark.parametrize("key", SECRETS)
def test_no_error_shows_the_value(read: Read, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**{key: SECRETS[key]})
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in str(error)
        error = error.__cause__


def test_no_repr_shows_a_secret(read: Read) -> None:
    settings = read(
        DB_URI="postgresql://quay:hunter2@db/quay",
        DB_CONNECTION_ARGS={"password": "hunter2"},
        DATABASE_SECRET_KEY="hunter2",
        DISTRIBUTED_STORAGE_CONFIG={"default": ["S3Storage", {"s3_secret_key": "hunter2"}]},
        SECURITY_SCANNER_V4_PSK="hunter2",
        USER_EVENTS_REDIS={"host": "redis", "password": "hunter2"},
        RESCAN_REDIS="redis://:hunter2@redis",
        RESCAN_OPS_TOKEN="hunter2",
        RESCAN_LAYER_SERVER_SECRET="hunter2",
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)


def test_complaint_is_one_line_whatever_it_quotes(read: Read) -> None:
    with pytest.raises(SettingsError) as caught:
        read(DB_CONNECTION_ARGS={"ssl\nmode\x1b[1m": None})
    assert r"ssl\nmode\x1b[1m is no option of" in str(caught.value)
