"""Quay's switches: what this installation has turned on, and whether it may write at all."""

from __future__ import annotations

from enum import StrEnum

from data.settings.group import SettingsGroup, setting


class RegistryState(StrEnum):
    """REGISTRY_STATE."""

    NORMAL = "normal"
    READONLY = "readonly"  # nothing may be written, so every worker idles


class FeatureSettings(SettingsGroup):
    """FEATURE_* keys and the three states in which Quay's workers idle."""

    proxy_cache: bool = setting("FEATURE_PROXY_CACHE", False, "Organisations may be proxy caches.")
    proxy_cache_blob_download: bool = setting(
        "FEATURE_PROXY_CACHE_BLOB_DOWNLOAD",
        True,
        "The blob worker downloads what no client asked for.",
    )
    security_scanner: bool = setting(
        "FEATURE_SECURITY_SCANNER", False, "Images are scanned for vulnerabilities."
    )
    security_scanner_v2: bool = setting(
        "FEATURE_SECURITY_SCANNER_V2",
        False,
        "Quay's security worker is the one that visits only manifests that have a status row.",
    )
    notify_on_new_index: bool = setting(
        "FEATURE_SECURITY_SCANNER_NOTIFY_ON_NEW_INDEX",
        True,
        "A first index notifies of the vulnerabilities found.",
    )
    registry_state: RegistryState = setting(
        "REGISTRY_STATE", "normal", "normal or readonly; no worker writes when it is readonly."
    )
    account_recovery_mode: bool = setting(
        "ACCOUNT_RECOVERY_MODE", False, "Quay serves its administrators only; workers idle."
    )
    setup_complete: bool = setting(
        "SETUP_COMPLETE", False, "Quay has been set up; workers idle until it is."
    )
