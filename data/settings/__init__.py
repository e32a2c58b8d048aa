"""Quay's config.yaml and our own keys in it, as one typed, frozen object.

`read_settings` is the only thing here that touches a file. What it returns is for
`workers/wiring.py`, which hands plain values on; nothing else keeps a settings object.

    connections.py   database, storage, scanner, the registry itself
    features.py      Quay's switches
    redis.py         a Redis or Valkey server
    rescan.py        our own keys
    reading.py       file, environment, and the words of every error
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from data.connection_args import driver_arguments
from data.errors import SettingsError
from data.settings.connections import (
    DatabaseSettings,
    RegistrySettings,
    ScannerSettings,
    Severity,
    StorageSettings,
)
from data.settings.features import FeatureSettings, RegistryState
from data.settings.group import SettingsGroup
from data.settings.reading import (
    conf_directory,
    read_config,
    read_group,
    refuse_unknown_keys,
)
from data.settings.redis import RedisSettings, read_rescan_redis, read_user_events_redis
from data.settings.rescan import ListenAddress, RescanSettings, WorkerType

__all__ = [
    "DatabaseSettings",
    "FeatureSettings",
    "ListenAddress",
    "RedisSettings",
    "RegistrySettings",
    "RegistryState",
    "RescanSettings",
    "ScannerSettings",
    "SettingDoc",
    "Settings",
    "Severity",
    "StorageSettings",
    "WorkerType",
    "conf_directory",
    "read_settings",
    "setting_docs",
]

CONFIG_FILE = Path("stack", "config.yaml")
# The files among the options of libpq and, in its mapping `ssl` or with ssl_, of PyMySQL.
CERTIFICATE_ARGS = frozenset(
    {
        *("sslrootcert", "sslcert", "sslkey", "sslcrl"),
        *("ca", "cert", "key", "ssl_ca", "ssl_cert", "ssl_key"),
    }
)


class Settings(BaseModel):
    """Everything that the workers are told, by group."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)

    database: DatabaseSettings
    storage: StorageSettings
    features: FeatureSettings = FeatureSettings()
    scanner: ScannerSettings = ScannerSettings()
    registry: RegistrySettings = RegistrySettings()
    rescan: RescanSettings = RescanSettings()
    redis: RedisSettings = Field(
        default=RedisSettings(),
        alias="RESCAN_REDIS",
        description="Redis or Valkey of the rescan queue: a URL, or redis-py's options, Sentinel "
        "and TLS included. Default: USER_EVENTS_REDIS.",
    )
    user_events_redis: RedisSettings | None = Field(
        default=RedisSettings(),
        alias="USER_EVENTS_REDIS",
        description="Quay's Redis, where its lock on a blob lies.",
    )


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One key of config.yaml: its default as one would write it, its meaning in one line."""

    key: str
    default: Any
    meaning: str
    required: bool


def read_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Reads config.yaml at `path`, by default Quay's own (`$QUAYCONF/stack/config.yaml`).

    Raises SettingsError, whose one sentence names the key or the file and the mend, and never
    shows a value that may be secret.
    """
    environ = os.environ if environ is None else environ
    conf = conf_directory(path, environ)
    return build_settings(read_config(path or conf / CONFIG_FILE, environ), conf)


def build_settings(config: Mapping[str, Any], conf: Path) -> Settings:
    """Settings from the keys of config.yaml; `conf` is Quay's configuration directory."""
    refuse_unknown_keys(config, frozenset(doc.key for doc in setting_docs()))
    scanner = read_group(ScannerSettings, config)
    return Settings(
        database=read_database(config, conf),
        storage=complete_storage(read_group(StorageSettings, config)),
        features=read_group(FeatureSettings, config),
        scanner=scanner,
        registry=read_group(RegistrySettings, key_paths(config, conf)),
        rescan=read_rescan(config, scanner),
        redis=read_rescan_redis(config),
        user_events_redis=read_user_events_redis(config),
    )


def read_rescan(config: Mapping[str, Any], scanner: ScannerSettings) -> RescanSettings:
    """Our own keys; the retries are the scanner's unless they are set."""
    retries = config.get("RESCAN_MAX_RETRIES")
    filled = {
        **config,
        "RESCAN_MAX_RETRIES": scanner.maximum_scan_retries if retries is None else retries,
    }
    rescan = read_group(RescanSettings, filled)
    check_layer_server(rescan)
    return rescan


def key_paths(config: Mapping[str, Any], conf: Path) -> dict[str, Any]:
    """`config` with the places of the instance key made absolute.

    By default the files lie in Quay's configuration directory; a relative path is relative to the
    directory above it, from which Quay runs.
    """
    files = {
        "INSTANCE_SERVICE_KEY_LOCATION": "quay.pem",
        "INSTANCE_SERVICE_KEY_KID_LOCATION": "quay.kid",
    }
    paths = dict(config)
    for key, file in files.items():
        value = conf / file if config.get(key) is None else config[key]
        paths[key] = conf.parent / value if isinstance(value, str | Path) else value
    return paths


def read_database(config: Mapping[str, Any], conf: Path) -> DatabaseSettings:
    """Raises `SettingsError` also for an option that the database's driver doesn't know."""
    database = read_group(DatabaseSettings, certificate_paths(config, conf))
    scheme = database.uri.get_secret_value().partition(":")[0]
    driver_arguments(scheme.partition("+")[0], database.connection_args)
    return database


def certificate_paths(config: Mapping[str, Any], conf: Path) -> dict[str, Any]:
    """`config` with the certificates in DB_CONNECTION_ARGS made absolute.

    Quay's configuration tool writes `conf/stack/database.pem`, relative to the directory from which
    Quay runs. What isn't there is left as it is, and so is `system`, libpq's own authorities.
    """
    arguments = config.get("DB_CONNECTION_ARGS")
    if not isinstance(arguments, Mapping):
        return dict(config)

    def absolute(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: absolute(str(key), each) for key, each in value.items()}
        if name in CERTIFICATE_ARGS and isinstance(value, str) and (conf.parent / value).is_file():
            return str(conf.parent / value)
        return value

    return {**config, "DB_CONNECTION_ARGS": absolute("", arguments)}


def complete_storage(storage: StorageSettings) -> StorageSettings:
    """Every location named exists; without a preference all are preferred, as in Quay."""
    lists = {
        "DISTRIBUTED_STORAGE_PREFERENCE": storage.preference,
        "DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS": storage.default_locations,
    }
    for key, names in lists.items():
        for name in names:
            if name not in storage.config:
                raise SettingsError(
                    key, f"names {name[:80]!r}, which DISTRIBUTED_STORAGE_CONFIG doesn't define"
                )
    return storage.model_copy(update={"preference": storage.preference or tuple(storage.config)})


def check_layer_server(rescan: RescanSettings) -> None:
    if rescan.layer_server_url and not rescan.layer_server_secret:
        raise SettingsError(
            "RESCAN_LAYER_SERVER_SECRET", "is missing; RESCAN_LAYER_SERVER_URL needs it"
        )


def setting_docs() -> tuple[SettingDoc, ...]:
    """Every key that is read, in the order of the groups."""
    docs: list[SettingDoc] = []
    for field in Settings.model_fields.values():
        if field.alias is not None:
            docs.append(SettingDoc(field.alias, None, field.description or "", required=False))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, SettingsGroup):
            docs.extend(group_docs(field.annotation))
    return tuple(docs)


def group_docs(group: type[SettingsGroup]) -> list[SettingDoc]:
    return [
        SettingDoc(
            field.alias or name,
            None if field.is_required() else field.default,
            field.description or "",
            required=field.is_required(),
        )
        for name, field in group.model_fields.items()
    ]
