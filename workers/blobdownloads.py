"""Downloads the blobs that items ask for, and the configs that nobody asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from data.blob_records import NewPlacement, find_blobs
from data.completion import CompletedManifest
from data.errors import DataError
from data.placement import BlobPlacer, BlobToPlace, StoredBlob
from data.proxycache import DEFAULT_KEEP_SECONDS, ProxiedRepository, load_proxied_repository
from data.settings import Settings
from data.upstream import Upstream, UpstreamClient
from queues.blobwork import ask_for_config
from queues.workqueue import WorkQueue
from workers.failures import decide
from workers.iteminhand import ItemInHand
from workers.reporter import Reporter

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class BlobDownloads:
    """One for all threads of the process."""

    settings: Settings
    items: WorkQueue
    placer: BlobPlacer
    open_upstream: Callable[[Upstream], UpstreamClient]
    reporter: Reporter
    clients: dict[Upstream, UpstreamClient] = field(default_factory=dict)
    clients_lock: threading.Lock = field(default_factory=threading.Lock)

    def download(self, hand: ItemInHand) -> None:
        """Stores the bytes unless they are there; their placement is recorded by who settles."""
        with hand.attempting():
            if hand.error is not None or hand.work is None or hand.repository is None:
                return
            digest = hand.work.digest
            if not hand.blobs:
                log.info("blob is gone", digest=digest, repository=hand.repository.name)
            elif self.placer.is_placed(hand.blobs):
                log.debug("blob was placed already", digest=digest)
            else:
                hand.stored = self.placer.store(
                    self.blob_to_place(digest, hand.repository),
                    self.client_of(hand.repository.upstream),
                )

    def record(self, hands: Iterable[ItemInHand]) -> None:
        """Records the placements of the blobs that were stored."""
        self.placer.record(stored_blobs(hands))

    def release(self, hands: Iterable[ItemInHand]) -> None:
        """Lets go of the blobs that were stored."""
        self.placer.release(stored_blobs(hands))

    def tell_recorded(self, hand: ItemInHand) -> None:
        """Logs and counts a blob whose placement is recorded, if there was any to record."""
        if hand.stored is not None and hand.repository is not None:
            seconds = time.monotonic() - hand.began
            self.tell_placed(hand.repository, hand.stored.placement, seconds)

    def place_config(self, completed: CompletedManifest, digest: str) -> None:
        """Fetches a missing config blob, which Quay never queues and needs when it indexes again.

        Clair doesn't need it, so the rescan is on its way already, and a failure here is no reason
        to do the item again: the config gets an item, and so the retries, of its own.
        """
        began = time.monotonic()
        try:
            repository = self.load_repository(completed.repository_id)
            blobs = find_blobs(digest)
            if repository is None or not blobs or self.placer.is_placed(blobs):
                return
            placement = self.placer.place(
                self.blob_to_place(digest, repository), self.client_of(repository.upstream)
            )
        except DataError as error:
            log.warning(
                "config not placed",
                manifest=completed.manifest_id,
                digest=digest,
                error=str(error),
            )
            self.reporter.blob_failed(
                f"config of manifest {completed.manifest_id}", str(error), given_up=False
            )
            ask_for_config(self.items, completed, available_after=decide(error).seconds)
        else:
            self.tell_placed(repository, placement, time.monotonic() - began)

    def tell_placed(
        self, repository: ProxiedRepository, placement: NewPlacement, seconds: float
    ) -> None:
        log.info(
            "blob placed",
            digest=placement.digest,
            repository=f"{repository.namespace}/{repository.name}",
            bytes=placement.size,
            seconds=round(seconds, 3),
        )
        self.reporter.blob_placed(repository.namespace, placement.size)

    def load_repository(self, repository_id: int) -> ProxiedRepository | None:
        """With the credentials of its upstream; None when it is gone or no proxy any more."""
        key = self.settings.database.secret_key
        plain = key.get_secret_value() if key is not None else None
        return load_proxied_repository(repository_id, plain)

    def blob_to_place(self, digest: str, repository: ProxiedRepository) -> BlobToPlace:
        keep = repository.expiration_seconds or self.settings.registry.push_temp_tag_expiration
        return BlobToPlace(
            digest=digest,
            repository_id=repository.repository_id,
            upstream_repository=repository.upstream_repository,
            keep_seconds=keep or DEFAULT_KEEP_SECONDS,
        )

    def client_of(self, upstream: Upstream) -> UpstreamClient:
        """One client an upstream, so that connections and tokens are kept."""
        with self.clients_lock:
            if upstream not in self.clients:
                self.clients[upstream] = self.open_upstream(upstream)
            return self.clients[upstream]


def stored_blobs(hands: Iterable[ItemInHand]) -> list[StoredBlob]:
    return [each.stored for each in hands if each.stored is not None]
