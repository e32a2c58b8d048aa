"""Placing a blob beside a real Quay: its lock, its links, its credentials, its other worker."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr
from redis import Redis
from redis_lock import Lock

from data.field_encryption import convert_secret_key, encrypt_field
from data.models import (
    ImageStoragePlacement,
    ProxyCacheConfig,
    UploadedBlob,
    User,
    utcnow,
)
from data.secscan.status import IndexStatus
from queues import bloblock
from queues.renewals import Renewals
from tests.integration.pipeline import Pipeline
from tests.servers import wait_until
from workers import reservations
from workers.demo import registryfaults
from workers.demo.registrylogin import Access, Authentication
from workers.demo.sampleimages import debian_image, images_sharing_last_layer
from workers.reservations import Reservation

IMAGE = debian_image("library/app")


def test_quays_lock_is_held_around_a_placement(quay: Pipeline) -> None:
    """While somebody else holds BLOB_DELETE_<digest>, nothing is placed; then it is."""
    quay.publish(IMAGE)
    quay.pull("proxy", IMAGE)
    digest = IMAGE.layer_digests[0]
    lock = Lock(quay.queue.connection, f"BLOB_DELETE_{digest}", expire=30)
    lock.acquire()
    worker = threading.Thread(target=quay.run_blob_worker, kwargs={"items": 1})
    worker.start()
    wait_until(lambda: waiting(quay), 20, "the blob worker waits for the lock")
    assert ImageStoragePlacement.select().count() == 0
    lock.release()
    worker.join(20)
    assert quay.is_placed(digest)


def waiting(quay: Pipeline) -> bool:
    """Whether a client waits for the lock's release (BLPOP), as python-redis-lock does."""
    clients = quay.queue.connection.client_list()
    return any(client["cmd"] == "blpop" for client in clients)


def test_lock_is_renewed_while_the_bytes_are_stored(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large blob takes longer to put on disk than the lock of a dead worker may last."""
    monkeypatch.setattr(bloblock, "RENEWALS", Renewals(0.02))
    key = "lock:BLOB_DELETE_sha256:1"
    lock = bloblock.RedisBlobLock(redis)
    held = lock.acquire("sha256:1")
    assert held is not None
    redis.pexpire(key, 2000)
    wait_until(lambda: redis.pttl(key) > 2000, 20, "the lock lasts longer again")
    lock.release([held])
    assert not redis.exists(key)


def test_lock_that_somebody_else_keeps_is_done_without(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bloblock, "EXPIRY_SECONDS", 1)
    theirs = Lock(redis, "BLOB_DELETE_sha256:1", expire=30)
    theirs.acquire()
    assert bloblock.RedisBlobLock(redis).acquire("sha256:1") is None
    assert theirs.get_owner_id() == theirs.id, "theirs isn't ours to release"


def test_without_the_lock_it_goes_on_as_quay_does(quay: Pipeline) -> None:
    quay.blob_worker.downloads.placer = replace(
        quay.blob_worker.downloads.placer, lock=bloblock.RedisBlobLock(None)
    )
    quay.publish(IMAGE)
    quay.pull("proxy", IMAGE)
    quay.run_blob_worker()
    assert quay.is_placed(IMAGE.layer_digests[0])


def test_new_blob_is_kept_for_the_organisations_expiry(quay: Pipeline) -> None:
    ProxyCacheConfig.update(expiration_s=7200).execute()
    quay.publish(IMAGE)
    quay.pull("proxy", IMAGE)
    quay.run_blob_worker(items=1)
    (link,) = list(UploadedBlob.select())
    assert abs(link.expires_at - utcnow() - timedelta(seconds=7200)) < timedelta(seconds=60)


def test_organisation_without_an_expiry_has_quays_default(quay: Pipeline) -> None:
    ProxyCacheConfig.update(expiration_s=0).execute()
    quay.publish(IMAGE)
    quay.pull("proxy", IMAGE)
    quay.run_blob_worker(items=1)
    (link,) = list(UploadedBlob.select())
    assert abs(link.expires_at - utcnow() - timedelta(seconds=3600)) < timedelta(seconds=60)


def test_encrypted_credentials_open_the_upstream(quay: Pipeline) -> None:
    """The columns are Quay's: AES-CCM under DATABASE_SECRET_KEY."""
    quay.publish(IMAGE)
    quay.pull("proxy", IMAGE)
    quay.upstream.doorkeeper.access = Access(
        authentication=Authentication.TOKEN, login=("robot", "secret")
    )
    key = convert_secret_key("a key of the tests")
    ProxyCacheConfig.update(
        upstream_registry_username=encrypt_field("robot", key),
        upstream_registry_password=encrypt_field("secret", key),
    ).execute()
    secret = SecretStr("a key of the tests")
    database = quay.settings.database.model_copy(update={"secret_key": secret})
    quay.blob_worker.downloads.settings = quay.settings.model_copy(update={"database": database})
    quay.run_blob_worker()
    assert quay.is_placed(IMAGE.layer_digests[0])


def test_organisation_that_is_no_proxy_any_more_still_completes(quay: Pipeline) -> None:
    """The item outlived the proxy; its blob was placed by the registry meanwhile."""
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    for digest in IMAGE.blobs:
        quay.fetch_blob_in_request("proxy", IMAGE, digest)
    owner = User.get(User.username == "proxy")
    ProxyCacheConfig.delete().where(ProxyCacheConfig.organization_id == owner.id).execute()  # type: ignore[misc]
    quay.run()
    assert quay.items() == []
    assert quay.status(pulled.manifest_id) is None, "its policy is none of ours any more"


def test_no_rescan_waits_for_the_config_of_another_manifest(quay: Pipeline) -> None:
    """One layer completes two manifests; the upstream takes its time over the config of one."""
    first, second = images_sharing_last_layer("library/one", "library/other")
    for image in (first, second):
        quay.publish(image)
        pulled = quay.pull("proxy", image)
        for digest in image.layer_digests[:-1]:
            quay.fetch_blob_in_request("proxy", image, digest)
    held = registryfaults.Held()
    quay.upstream.troubles.add(held, reference=first.config_digest)
    worker = threading.Thread(target=quay.run_blob_worker)
    worker.start()
    assert held.arrived.wait(20)
    queued = quay.queue.depth().queued
    held.released.set()
    worker.join(20)
    assert queued == 2, f"manifest {pulled.manifest_id} waited"


def test_ours_and_quays_blob_worker_share_the_queue(quay: Pipeline) -> None:
    """Quay's worker takes an item, places its blob, and deletes the item; ours takes the rest."""
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    theirs = quay.blob_worker.items.claim()
    assert theirs is not None
    quay.run_blob_worker()
    assert len(quay.items()) == 1, "what Quay's worker has in hand is left to it"
    quay.fetch_blob_in_request("proxy", IMAGE, theirs.queue_name.split("/")[-2])
    quay.blob_worker.items.complete(theirs)
    quay.run()
    assert quay.status(pulled.manifest_id) is None, "no event of ours tells of it: the sweep will"
    assert quay.status(pulled.manifest_id) is not IndexStatus.FAILED


def test_item_in_hand_stays_reserved(quay: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reservation is short; a download is not."""
    monkeypatch.setattr(reservations, "RENEWALS", Renewals(0.02))
    quay.publish(IMAGE)
    quay.pull("proxy", IMAGE)
    items = quay.blob_worker.items
    item = items.claim(reservation_seconds=2)
    assert item is not None
    reservation = Reservation(items, item)
    wait_until(lambda: reservation.item.state_id != item.state_id, 20, "it is renewed")
    reservation.end()
    (row,) = [each for each in quay.items() if each.id == item.id]
    assert row.processing_expires is not None
    assert row.processing_expires > utcnow() + timedelta(seconds=10)
    items.complete(item)
    assert item.id in {each.id for each in quay.items()}, "as it was claimed, it is nobody's now"
    items.complete(reservation.item)
    assert item.id not in {each.id for each in quay.items()}
