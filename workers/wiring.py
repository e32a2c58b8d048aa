"""The one place that builds the workers' collaborators from settings.

What the command line needs as well is built in `queues.wiring`, and handed on from here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from data.manifest_records import ManifestRecord
from data.metrics import NamespaceLabels
from data.placement import BlobPlacer
from data.secscan.clair import ClairClient
from data.secscan.indexer import Indexer
from data.secscan.notifications import RegistryAddress
from data.secscan.reports import Severity
from data.secscan.rescan import UNOBSERVED, IndexObserver
from data.settings import Settings
from data.storage import Storage
from data.upstream import Upstream, UpstreamClient
from queues.bloblock import RedisBlobLock
from queues.metricstore import MetricStore
from queues.redisclient import open_redis
from queues.scannergate import RedisScannerGate
from queues.wiring import (
    build_blob_queue,
    build_database,
    build_layer_links,
    build_policy,
    build_queue,
    build_redis,
    build_scanner,
    build_storage,
)
from queues.workqueue import WorkQueue
from workers.announcer import Announcer
from workers.pushgateway import pushing
from workers.reporter import Reporter

__all__ = [
    "build_blob_placer",
    "build_blob_queue",
    "build_database",
    "build_indexer",
    "build_layer_links",
    "build_policy",
    "build_queue",
    "build_quick_redis",
    "build_redis",
    "build_reporter",
    "build_scanner",
    "build_storage",
    "build_upstream_client",
    "pushing_metrics",
]

# How long a connection for metrics or for the page waits for Redis.
QUICK_SECONDS = 1.0


def build_quick_redis(settings: Settings) -> Redis:
    """For what must not wait: metrics, and the answers of the ops server."""
    quick = {"socket_timeout": QUICK_SECONDS, "socket_connect_timeout": QUICK_SECONDS}
    redis = open_redis(settings.redis.model_copy(update=quick), patient=False)
    redis.set_retry(Retry(NoBackoff(), 1))  # a connection that was closed meanwhile, no more
    return redis


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


def build_announcement(
    settings: Settings, scanner: ClairClient
) -> Callable[[ManifestRecord], Callable[[], object] | None]:
    """What belongs to a first index: Quay's notifications, where Quay would send them."""
    if not settings.features.notify_on_new_index:
        return announce_nothing
    announcer = Announcer(
        scanner=scanner,
        notifications=WorkQueue(settings.registry.notification_queue_name),
        minimum=Severity(settings.scanner.notification_minimum_severity.value),
        address=RegistryAddress(
            scheme=settings.registry.preferred_url_scheme,
            hostname=settings.registry.server_hostname,
        ),
    )
    return announcer.prepare


def announce_nothing(record: ManifestRecord) -> None:
    """FEATURE_SECURITY_SCANNER_NOTIFY_ON_NEW_INDEX is false."""
    del record


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
