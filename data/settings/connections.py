"""What the workers connect to: Quay's database, its storage, the scanner, and where Quay itself is.

The defaults are those of Quay's own config.py, so that a key left out means the same to both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from data.settings.group import SettingsGroup, required_setting, setting
from data.settings.values import (
    BinarySize,
    CountOrNone,
    DatabaseUri,
    DecimalSize,
    HttpUrl,
    Seconds,
    Secret,
    Text,
)


class Severity(StrEnum):
    """Quay's words for how bad a vulnerability is, from the least to the worst."""

    UNKNOWN = "Unknown"
    NEGLIGIBLE = "Negligible"
    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"
    CRITICAL = "Critical"


def check_connection_args(value: Any) -> Any:
    """What they are is the driver's to know: `data.connection_args`."""
    if not isinstance(value, Mapping):
        raise ValueError("should be a mapping of driver options")
    return dict(value)


def check_storage_config(value: Any) -> Any:
    """`{location: [engine, parameters]}`, at least one location."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError("should map location names to [engine, parameters]")
    for location, entry in value.items():
        well_formed = (
            isinstance(location, str)
            and isinstance(entry, Sequence)
            and len(entry) == 2
            and isinstance(entry[0], str)
            and isinstance(entry[1], Mapping)
        )
        if not well_formed:
            raise ValueError(f"the location {location!r} should be [engine, parameters]")
    return {name: (entry[0], dict(entry[1])) for name, entry in value.items()}


def default_severity(value: Any) -> Any:
    """Quay takes an empty value for High."""
    return value or Severity.HIGH


def bucket_by_namespace(value: Any) -> dict[str, str]:
    """The label of each tracked namespace, from any of the three forms that Quay takes."""
    if isinstance(value, str):
        return {value: value}
    if isinstance(value, Mapping):
        grouped = {bucket: [v] if isinstance(v, str) else v for bucket, v in value.items()}
    elif isinstance(value, list):
        grouped = {name: [name] for name in value if isinstance(name, str)}
        if len(grouped) != len(value):
            raise ValueError("should be a list of organisation names")
    else:
        raise ValueError("should be a list of organisation names")
    labels: dict[str, str] = {}
    for bucket, names in grouped.items():
        if not isinstance(bucket, str) or not isinstance(names, list):
            raise ValueError("should map each label to a list of organisation names")
        labels.update({str(name): bucket for name in names})
    return labels


ConnectionArgs = Annotated[dict[str, Any], BeforeValidator(check_connection_args)]
StorageConfig = Annotated[
    dict[str, tuple[str, dict[str, Any]]], BeforeValidator(check_storage_config)
]
NamespaceLabels = Annotated[dict[str, str], BeforeValidator(bucket_by_namespace)]


class DatabaseSettings(SettingsGroup):
    """Quay's database, and the key of its encrypted columns."""

    uri: DatabaseUri = required_setting("DB_URI", "Quay's database, as a URL.")
    connection_args: ConnectionArgs = setting(
        "DB_CONNECTION_ARGS",
        {},
        "Further options of the database driver, TLS among them.",
        secret=True,
    )
    secret_key: Secret | None = setting(
        "DATABASE_SECRET_KEY", None, "Key of the encrypted columns (upstream credentials)."
    )


class StorageSettings(SettingsGroup):
    """Where the bytes of blobs lie."""

    config: StorageConfig = required_setting(
        "DISTRIBUTED_STORAGE_CONFIG",
        "Storage locations: {name: [engine, parameters]}.",
        secret=True,
    )
    preference: tuple[str, ...] = setting(
        "DISTRIBUTED_STORAGE_PREFERENCE",
        (),
        "Locations in the order of preference; the first is written to. Default: all of them.",
    )
    default_locations: tuple[str, ...] = setting(
        "DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS",
        (),
        "Locations that Quay replicates every blob to.",
    )


class ScannerSettings(SettingsGroup):
    """Clair v4, and how Quay uses it."""

    endpoint: HttpUrl | None = setting("SECURITY_SCANNER_V4_ENDPOINT", None, "Clair's base URL.")
    psk: Secret | None = setting(
        "SECURITY_SCANNER_V4_PSK", None, "Base64 key that signs the requests to Clair."
    )
    maximum_layer_size: BinarySize = setting(
        "SECURITY_SCANNER_V4_INDEX_MAX_LAYER_SIZE",
        None,
        "An image with a larger layer is not indexed (8G is 8 x 2^30 bytes). Default: no limit.",
    )
    reindex_threshold: Seconds = setting(
        "SECURITY_SCANNER_V4_REINDEX_THRESHOLD",
        300,
        "Seconds before the security worker indexes a failed or outdated manifest again.",
    )
    maximum_scan_retries: CountOrNone = setting(
        "SECURITY_SCANNER_MAX_SCAN_RETRIES", 5, "Failed tries before a manifest is given up."
    )
    indexing_interval: Seconds = setting(
        "SECURITY_SCANNER_INDEXING_INTERVAL", 30, "Seconds between two cycles of securityworker."
    )
    batch_size: CountOrNone = setting(
        "SECURITY_SCANNER_V4_BATCH_SIZE",
        0,
        "Manifests that securityworker looks at in one go; 0 leaves it to the worker.",
    )
    notification_minimum_severity: Annotated[Severity, BeforeValidator(default_severity)] = setting(
        "NOTIFICATION_MIN_SEVERITY_ON_NEW_INDEX",
        "High",
        "The least severity that a first index notifies of.",
    )


class RegistrySettings(SettingsGroup):
    """The Quay that these workers run beside: its address, its key, its limits and queues."""

    preferred_url_scheme: Literal["http", "https"] = setting(
        "PREFERRED_URL_SCHEME", "http", "http or https: how Clair reaches the registry."
    )
    server_hostname: Text = setting(
        "SERVER_HOSTNAME", "localhost:5000", "The registry's host name, with its port if any."
    )
    service_key_service: Text = setting(
        "INSTANCE_SERVICE_KEY_SERVICE", "quay", "Issuer of the registry tokens given to Clair."
    )
    service_key_path: Path = setting(
        "INSTANCE_SERVICE_KEY_LOCATION",
        "conf/quay.pem",
        "The instance's private key; by default the one in Quay's conf directory.",
    )
    service_key_id_path: Path = setting(
        "INSTANCE_SERVICE_KEY_KID_LOCATION",
        "conf/quay.kid",
        "File with the id of that key; by default the one in Quay's conf directory.",
    )
    maximum_layer_size: DecimalSize = setting(
        "MAXIMUM_LAYER_SIZE", "20G", "Largest blob that is placed (20G is 20 x 10^9 bytes)."
    )
    push_temp_tag_expiration: Seconds = setting(
        "PUSH_TEMP_TAG_EXPIRATION_SEC",
        3600,
        "Seconds that a new blob is kept from garbage collection, unless its organisation says.",
    )
    blob_queue_name: Text = setting(
        "PROXY_CACHE_BLOB_QUEUE_NAME", "proxycacheblob", "Quay's queue of blobs to download."
    )
    notification_queue_name: Text = setting(
        "NOTIFICATION_QUEUE_NAME", "notification", "Quay's queue of notifications to send."
    )
    ssrf_allowed_hosts: tuple[str, ...] = setting(
        "SSRF_ALLOWED_HOSTS", (), "Upstream hosts that may have a private address."
    )
    tracked_namespaces: NamespaceLabels = setting(
        "TRACKED_NAMESPACES", [], 'Organisations that metrics name; all others are "other".'
    )
    prometheus_pushgateway_url: HttpUrl | None = setting(
        "PROMETHEUS_PUSHGATEWAY_URL",
        "http://localhost:9091",
        "Where metrics are pushed every 30 s; null pushes none.",
    )
    prometheus_namespace: Text = setting(
        "PROMETHEUS_NAMESPACE", "quay", "Job name under which metrics are pushed."
    )
