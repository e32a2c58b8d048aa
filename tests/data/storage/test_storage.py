"""Several locations: where to write, and where a blob is found."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from data.errors import BlobNotStored, SettingsError, StorageUnavailable
from data.storage import BlobStore, Storage, open_storage

DIGEST = "sha256:" + "ab" * 32
S3 = {"storage_path": "r", "s3_bucket": "b", "s3_access_key": "k", "s3_secret_key": "s"}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Three directories, of which `near` is preferred over `far`, and `archive` isn't named."""
    config = {
        name: ("LocalStorage", {"storage_path": str(tmp_path / name)})
        for name in ("archive", "far", "near")
    }
    return open_storage(config, ["near", "far"])


def put(store: BlobStore) -> None:
    with store.open_write(DIGEST) as writer:
        writer.write(b"layer")
        writer.commit()


def found(storage: Storage, *locations: str) -> str | None:
    store = storage.find(DIGEST, locations)
    return store.location if store else None


def test_blobs_are_written_to_the_first_preferred_location(storage: Storage) -> None:
    assert storage.preferred.location == "near"


def test_without_a_preference_the_first_location_is_preferred(tmp_path: Path) -> None:
    local = ("LocalStorage", {"storage_path": str(tmp_path)})
    assert open_storage({"one": local, "two": local}, [], []).preferred.location == "one"


def test_blob_is_found_in_the_first_preferred_location_that_has_it(storage: Storage) -> None:
    put(storage.stores["archive"])
    assert found(storage, "archive", "near", "far") == "archive"
    put(storage.stores["far"])
    assert found(storage, "archive", "near", "far") == "far"
    put(storage.stores["near"])
    assert found(storage, "archive", "far", "near") == "near"


def test_blob_is_looked_for_only_where_it_is_placed(storage: Storage) -> None:
    put(storage.stores["near"])
    assert found(storage, "far", "archive") is None
    assert found(storage) is None


def test_location_that_no_setting_names_is_passed_over(storage: Storage) -> None:
    put(storage.stores["far"])
    assert found(storage, "given-up", "far") == "far"
    assert found(storage, "given-up") is None


def test_store_that_is_down_hides_no_other_and_is_not_taken_for_empty(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        storage = open_storage(
            {
                "down": ("S3Storage", S3 | {"endpoint_url": endpoint}),
                "up": ("LocalStorage", {"storage_path": str(tmp_path)}),
            }
        )
        with pytest.raises(StorageUnavailable, match="location down"):
            storage.find(DIGEST, ["down", "up"])
        put(storage.stores["up"])
        assert found(storage, "down", "up") == "up"


def test_link_is_made_where_the_blob_lies(storage: Storage) -> None:
    with pytest.raises(BlobNotStored, match=DIGEST):
        storage.presign(DIGEST, expires_s=60)
    put(storage.stores["archive"])
    assert storage.presign(DIGEST, expires_s=60) is None
    with pytest.raises(BlobNotStored):
        storage.presign(DIGEST, expires_s=60, locations=["near", "far"])


@pytest.mark.parametrize(
    "key", ["DISTRIBUTED_STORAGE_PREFERENCE", "DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS"]
)
def test_location_that_does_not_exist_is_refused(tmp_path: Path, key: str) -> None:
    config = {"here": ("LocalStorage", {"storage_path": str(tmp_path)})}
    preferred = key == "DISTRIBUTED_STORAGE_PREFERENCE"
    with pytest.raises(SettingsError, match=f"^{key}: there is no location.*here"):
        open_storage(config, *((["there"], []) if preferred else ([], ["there"])))


def test_no_location_at_all_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^DISTRIBUTED_STORAGE_CONFIG: names no location"):
        open_storage({}, [], [])
