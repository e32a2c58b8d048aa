"""The settings that this project adds to config.yaml. All of them are optional."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

from data.policy import PolicySettings
from data.settings.group import SettingsGroup, setting
from data.settings.values import Count, CountOrNone, HttpUrl, Seconds, Secret

# RQ job ids and Redis keys carry the queue's name; RQ takes these characters only.
QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class WorkerType(StrEnum):
    """The worker types that `python -m workers` can start."""

    BLOB = "blob"  # workers.proxycacheblobworker
    RESCAN = "rescan"  # workers.rescanworker
    SECURITY = "security"  # workers.securityworker
    SWEEP = "sweep"  # workers.sweepworker
    OPS = "ops"  # workers.opsserver


class ListenAddress(NamedTuple):
    """Where the ops server listens; port 0 takes any free one."""

    host: str
    port: int


def check_queue_name(value: Any) -> Any:
    if not isinstance(value, str) or not QUEUE_NAME.fullmatch(value):
        raise ValueError("should have 1 to 64 letters, digits, _ and - only")
    return value


def parse_listen_address(value: Any) -> Any:
    """`127.0.0.1:9101`, `[::1]:9101`."""
    if isinstance(value, ListenAddress):
        return value
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not (port.isascii() and port.isdigit() and int(port[:6]) < 65536):
        raise ValueError("should be an address and a port, such as 127.0.0.1:9101")
    return ListenAddress(host.strip("[]"), int(port))


def parse_workers(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("should be a list of worker types such as [blob, rescan, sweep, ops]")
    if len(set(map(str, value))) != len(value):
        raise ValueError("should name each worker type once")
    return tuple(value)


def check_policy(value: Any) -> Any:
    if not isinstance(value, Mapping | PolicySettings):
        raise ValueError("should be a mapping such as {default: immediate}")
    return value


class RescanSettings(SettingsGroup):
    """RESCAN_* and PROXY_CACHE_AUTO_RESET_SECURITY_STATUS."""

    auto_reset_security_status: bool = setting(
        "PROXY_CACHE_AUTO_RESET_SECURITY_STATUS",
        True,
        "Rescan proxied images by themselves; if false, only what a person asks for.",
    )
    queue_name: Annotated[str, BeforeValidator(check_queue_name)] = setting(
        "RESCAN_QUEUE_NAME", "rescan", "Name of the rescan queue in Redis."
    )
    job_timeout: Seconds = setting(
        "RESCAN_JOB_TIMEOUT", 660, "Seconds that one rescan may take; Clair alone may take 600."
    )
    maximum_retries: CountOrNone = setting(
        "RESCAN_MAX_RETRIES",
        5,
        "Retries of a rescan that failed. Default: SECURITY_SCANNER_MAX_SCAN_RETRIES.",
    )
    maximum_concurrent_indexes: Count = setting(
        "RESCAN_MAX_CONCURRENT_INDEXES",
        4,
        "Index requests that all workers together have open at Clair.",
    )
    maximum_indexes_per_day: Count = setting(
        "RESCAN_MAX_INDEXES_PER_DAY", 5, "Index requests for one manifest in 24 hours."
    )
    blob_downloads: Count = setting(
        "RESCAN_BLOB_DOWNLOADS", 4, "Blobs that one blob worker downloads at a time."
    )
    sweep_interval: Seconds = setting(
        "RESCAN_SWEEP_INTERVAL", 60, "Seconds between two sweeps for stuck manifests."
    )
    policy: Annotated[PolicySettings, BeforeValidator(check_policy)] = setting(
        "RESCAN_POLICY",
        {},
        "Which organisations and repositories are rescanned: immediate, cycle or off.",
    )
    ops_listen: Annotated[ListenAddress, BeforeValidator(parse_listen_address)] = setting(
        "RESCAN_OPS_LISTEN", "127.0.0.1:9101", "Address and port of the ops server."
    )
    ops_token: Secret | None = setting(
        "RESCAN_OPS_TOKEN", None, "Bearer token that POST /rescans asks for."
    )
    layer_server_url: HttpUrl | None = setting(
        "RESCAN_LAYER_SERVER_URL",
        None,
        "Base URL of a layer server of ours, in place of the registry, for storage that can't "
        "presign. For trying things out; a Quay needs none.",
    )
    layer_server_secret: Secret | None = setting(
        "RESCAN_LAYER_SERVER_SECRET", None, "Key that signs the links to the layer server."
    )
    workers: Annotated[tuple[WorkerType, ...], BeforeValidator(parse_workers)] = setting(
        "RESCAN_WORKERS",
        ["blob", "rescan", "sweep", "ops"],
        "Worker types that `python -m workers` starts: blob, rescan, security, sweep, ops.",
    )
