"""The one place that builds collaborators from settings. Nothing else reads a setting twice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from redis import Redis

from data.database import open_database
from data.errors import SettingsError
from data.manifest_records import ManifestRecord
from data.metrics import NamespaceLabels
from data.placement import BlobPlacer
from data.policy import Policy, decide_policy
from data.secscan.clair import ClairClient
from data.secscan.indexer import Indexer
from data.secscan.layers import LayerLinks, LayerLocation
from data.secscan.notifications import RegistryAddress
from data.secscan.registry_links import RegistryLinks, load_instance_key
from data.secscan.reports import Severity
from data.secscan.rescan import UNOBSERVED, IndexObserver
from data.secscan.signed_links import SignedLinks
from data.settings import Settings
from data.storage import Storage, open_storage
from data.upstream import Upstream, UpstreamClient
from queues.bloblock import RedisBlobLock
from queues.metricstore import MetricStore
from queues.redisclient import open_redis
from queues.rescanqueue import RescanQueue, backfill_lane
from queues.scannergate import RedisScannerGate
from queues.workqueue import WorkQueue
from workers.announcer import Announcer
from workers.pushgateway import pushing
from workers.reporter import Reporter

# How long a presigned link lives: Clair fetches a layer within its 600 s.
PRESIGNED_SECONDS = 900
# How long a connection for metrics or for the page waits for Redis.
QUICK_SECONDS = 1.0


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


def build_database(settings: Settings) -> None:
    open_database(settings.database.uri.get_secret_value(), settings.database.connection_args)


def build_redis(settings: Settings) -> Redis:
    return open_redis(settings.redis)


def build_quick_redis(settings: Settings) -> Redis:
    """For what must not wait: metrics, and the answers of the ops server."""
    quick = {"socket_timeout": QUICK_SECONDS, "socket_connect_timeout": QUICK_SECONDS}
    return open_redis(settings.redis.model_copy(update=quick), patient=False)


def build_reporter(settings: Settings) -> Reporter:
    store = MetricStore(build_quick_redis(settings), settings.rescan.queue_name)
    return Reporter(store, NamespaceLabels(settings.registry.tracked_namespaces))


def pushing_metrics(
    settings: Settings, registry: CollectorRegistry, process_name: str
) -> AbstractContextManager[None]:
    """Pushes the registry where PROMETHEUS_PUSHGATEWAY_URL says, while the block lasts."""
    return pushing(
        registry,
        url=settings.registry.prometheus_pushgateway_url,
        job=settings.registry.prometheus_namespace,
        process_name=process_name,
    )


def build_queue(settings: Settings, connection: Redis, *, backfill: bool = False) -> RescanQueue:
    name = settings.rescan.queue_name
    return RescanQueue(backfill_lane(name) if backfill else name, connection=connection)


def build_storage(settings: Settings) -> Storage:
    storage = settings.storage
    return open_storage(storage.config, storage.preference, storage.default_locations)


def build_blob_queue(settings: Settings) -> WorkQueue:
    return WorkQueue(settings.registry.blob_queue_name)


def build_blob_placer(settings: Settings, storage: Storage) -> BlobPlacer:
    user_events = settings.user_events_redis
    connection = open_redis(user_events, patient=False) if user_events else None
    return BlobPlacer(
        storage=storage,
        lock=RedisBlobLock(connection),
        maximum_size=settings.registry.maximum_layer_size,
    )


def build_upstream_client(settings: Settings, upstream: Upstream) -> UpstreamClient:
    return UpstreamClient(upstream, allowed_hosts=frozenset(settings.registry.ssrf_allowed_hosts))


def build_scanner(settings: Settings) -> ClairClient:
    scanner = settings.scanner
    if scanner.endpoint is None:
        raise SettingsError("SECURITY_SCANNER_V4_ENDPOINT", "is not set")
    psk = scanner.psk.get_secret_value() if scanner.psk else None
    return ClairClient(scanner.endpoint, psk=psk)


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


def build_policy(settings: Settings) -> Callable[[ManifestRecord], Policy]:
    """Decides by RESCAN_POLICY, with one exception: Quay's V2 indexer visits only rows that exist.

    Under it a deleted row would never be indexed, so `cycle` is immediate there.
    """

    def decide(record: ManifestRecord) -> Policy:
        decision = decide_policy(
            settings.rescan.policy,
            record.namespace,
            record.repository,
            auto_reset=settings.rescan.auto_reset_security_status,
            proxied=record.proxied,
        )
        if decision.policy is Policy.CYCLE and settings.features.security_scanner_v2:
            return Policy.IMMEDIATE
        return decision.policy

    return decide


def build_announcement(
    settings: Settings, scanner: ClairClient
) -> Callable[[ManifestRecord], object]:
    """What happens after a first index: Quay's notifications, where Quay would send them."""
    if not settings.features.notify_on_new_index:
        return ignore
    announcer = Announcer(
        scanner=scanner,
        notifications=WorkQueue(settings.registry.notification_queue_name),
        minimum=Severity(settings.scanner.notification_minimum_severity.value),
        address=RegistryAddress(
            scheme=settings.registry.preferred_url_scheme,
            hostname=settings.registry.server_hostname,
        ),
    )
    return announcer.announce


def ignore(record: ManifestRecord) -> None:
    """FEATURE_SECURITY_SCANNER_NOTIFY_ON_NEW_INDEX is false."""


def build_indexer(
    settings: Settings,
    connection: Redis,
    storage: Storage,
    *,
    backfill: bool = False,
    observer: IndexObserver | None = None,
) -> Indexer:
    gate = RedisScannerGate(
        connection=connection,
        name=settings.rescan.queue_name,
        limit=settings.rescan.maximum_concurrent_indexes,
        indexes_per_day=settings.rescan.maximum_indexes_per_day,
        backfill=backfill,
    )
    scanner = build_scanner(settings)
    return Indexer(
        scanner=scanner,
        links=build_layer_links(settings, storage),
        gate=gate,
        decide_policy=build_policy(settings),
        on_first_index=build_announcement(settings, scanner),
        max_layer_size=settings.scanner.maximum_layer_size,
        max_failures=settings.rescan.maximum_retries,
        observer=observer or UNOBSERVED,
    )
