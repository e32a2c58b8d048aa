"""Builds, from settings, what the command line and the workers both need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis

from data.database import open_database
from data.errors import SettingsError
from data.manifest_records import ManifestRecord
from data.policy import Policy, PolicyDecision, decide_policy
from data.secscan.clair import ClairClient
from data.secscan.layers import LayerLinks, LayerLocation
from data.secscan.registry_links import RegistryLinks, load_instance_key
from data.secscan.signed_links import SignedLinks
from data.settings import Settings
from data.storage import Storage, open_storage
from queues.redisclient import never, open_redis
from queues.rescanqueue import RescanQueue, backfill_lane
from queues.workqueue import WorkQueue

# How long a presigned link lives: Clair fetches a layer within its 600 s.
PRESIGNED_SECONDS = 900


def build_database(settings: Settings) -> None:
    open_database(settings.database.uri.get_secret_value(), settings.database.connection_args)


def build_redis(settings: Settings, hurry: Callable[[], bool] = never) -> Redis:
    """`hurry` is true once the worker is to end: see `open_redis`."""
    return open_redis(settings.redis, hurry=hurry)


def build_queue(settings: Settings, connection: Redis, *, backfill: bool = False) -> RescanQueue:
    name = settings.rescan.queue_name
    return RescanQueue(backfill_lane(name) if backfill else name, connection=connection)


def build_storage(settings: Settings) -> Storage:
    storage = settings.storage
    return open_storage(storage.config, storage.preference, storage.default_locations)


def build_blob_queue(settings: Settings) -> WorkQueue:
    return WorkQueue(settings.registry.blob_queue_name)


def build_scanner(settings: Settings) -> ClairClient:
    scanner = settings.scanner
    if scanner.endpoint is None:
        raise SettingsError("SECURITY_SCANNER_V4_ENDPOINT", "is not set")
    psk = scanner.psk.get_secret_value() if scanner.psk else None
    # Under the job's default time limit of 660 s Clair gets the 600 s that Quay gives it.
    index_timeout = min(600.0, settings.rescan.job_timeout * 10 / 11)
    return ClairClient(scanner.endpoint, psk=psk, index_timeout=index_timeout)


def build_layer_links(settings: Settings, storage: Storage) -> LayerLinks:
    """Presigned where the storage can; else the registry's address; a layer server if one is set.

    Raises `SettingsError` when the instance's key is there and can't be read.
    """
    return StorageLinks(storage=storage, fallback=build_fallback_links(settings))


def build_fallback_links(settings: Settings) -> LayerLinks | None:
    rescan, registry = settings.rescan, settings.registry
    if rescan.layer_server_url is not None and rescan.layer_server_secret is not None:
        return SignedLinks(
            base_url=rescan.layer_server_url,
            secret=rescan.layer_server_secret.get_secret_value().encode(),
        )
    if registry.service_key_path.exists():
        return RegistryLinks(
            scheme=registry.preferred_url_scheme,
            hostname=registry.server_hostname,
            key=load_instance_key(registry.service_key_path, registry.service_key_id_path),
            issuer=registry.service_key_service,
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageLinks:
    """Links to layers where they lie; `fallback` for engines that can't presign."""

    storage: Storage
    fallback: LayerLinks | None

    def locate(self, namespace: str, repository: str, digest: str) -> LayerLocation:
        """Raises `BlobNotStored` when no location holds the layer's bytes."""
        uri = self.storage.presign(digest, expires_s=PRESIGNED_SECONDS)
        if uri is not None:
            return LayerLocation(digest=digest, uri=uri)
        if self.fallback is None:
            raise SettingsError(
                "INSTANCE_SERVICE_KEY_LOCATION",
                "is needed, because this storage can't presign and Clair must fetch the layers "
                "from the registry; generate the instance's key or let Quay do it",
            )
        return self.fallback.locate(namespace, repository, digest)


def build_policy(settings: Settings) -> Callable[[ManifestRecord], Policy]:
    return lambda record: (
        decide_for(settings, record.namespace, record.repository, proxied=record.proxied).policy
    )


def decide_for(
    settings: Settings, namespace: str, repository: str, *, proxied: bool
) -> PolicyDecision:
    """Decides by RESCAN_POLICY, with one exception: Quay's V2 indexer visits only rows that exist.

    Under it a deleted row would never be indexed, so `cycle` is immediate there.
    """
    decision = decide_policy(
        settings.rescan.policy,
        namespace,
        repository,
        auto_reset=settings.rescan.auto_reset_security_status,
        proxied=proxied,
    )
    if decision.policy is Policy.CYCLE and settings.features.security_scanner_v2:
        rule = f"{decision.rule}, where cycle is immediate under FEATURE_SECURITY_SCANNER_V2"
        return PolicyDecision(Policy.IMMEDIATE, rule)
    return decision
