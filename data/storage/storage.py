"""All locations of DISTRIBUTED_STORAGE_CONFIG together: where to write, and where a blob lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data.errors import BlobNotStored, SettingsError, StorageUnavailable
from data.storage.blobstore import BlobStore
from data.storage.engines import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Every store by the name of its location, and the order in which this Quay prefers them.

    As Quay does, blobs are written to the first preferred location and read from the first
    preferred one that has them. DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS is where Quay's replication
    workers copy them afterwards; nothing is written there here.
    """

    stores: Mapping[str, BlobStore]
    preference: tuple[str, ...]

    @property
    def preferred(self) -> BlobStore:
        """The store to write to."""
        return self.stores[self.preference[0]]

    def find(self, digest: str, locations: Iterable[str]) -> BlobStore | None:
        """The first store, in order of preference, of `locations` that holds the blob right now.

        Locations that no setting names are passed over. Raises StorageUnavailable when no store
        that answered has the blob and another didn't answer: then nobody knows.
        """
        silent: StorageUnavailable | None = None
        for store in self.in_order(locations):
            try:
                if store.exists(digest):
                    return store
            except StorageUnavailable as error:
                silent = silent or error
        if silent is not None:
            raise silent
        return None

    def presign(
        self, digest: str, *, expires_s: int, locations: Iterable[str] | None = None
    ) -> str | None:
        """A link to the blob where it lies (`locations`: where to look, everywhere by default).

        None when the store that holds it has no such links. Raises BlobNotStored when none does.
        """
        store = self.find(digest, self.stores if locations is None else locations)
        if store is None:
            raise BlobNotStored(
                f"{digest} is in no location of DISTRIBUTED_STORAGE_CONFIG that it should be in; "
                "it is fetched again when it is pulled next"
            )
        return store.presign(digest, expires_s)

    def in_order(self, locations: Iterable[str]) -> list[BlobStore]:
        """The stores of `locations`, preferred ones first."""
        wanted = set(locations)
        names = dict.fromkeys((*self.preference, *self.stores))
        return [self.stores[name] for name in names if name in wanted]


def open_storage(
    config: Mapping[str, tuple[str, Mapping[str, object]]],
    preference: Sequence[str] = (),
    default_locations: Sequence[str] = (),
) -> Storage:
    """Open every location of DISTRIBUTED_STORAGE_CONFIG; nothing is asked of the stores yet.

    `config` maps a location's name to its engine's name and parameters; `preference` and
    `default_locations` are the settings DISTRIBUTED_STORAGE_PREFERENCE (empty: the order of
    `config`, as in Quay) and DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS. Raises SettingsError for an
    engine, a parameter or a location's name that can't be used.
    """
    if not config:
        raise SettingsError(
            "DISTRIBUTED_STORAGE_CONFIG", "names no location; it needs at least one"
        )
    check_locations("DISTRIBUTED_STORAGE_PREFERENCE", preference, config)
    check_locations("DISTRIBUTED_STORAGE_DEFAULT_LOCATIONS", default_locations, config)
    stores = {
        location: open_store(location, engine, parameters)
        for location, (engine, parameters) in config.items()
    }
    return Storage(stores=stores, preference=tuple(preference) or tuple(stores))


def check_locations(key: str, names: Sequence[str], config: Mapping[str, object]) -> None:
    unknown = [name for name in names if name not in config]
    if unknown:
        raise SettingsError(
            key,
            f"{', '.join(unknown)} is no location of DISTRIBUTED_STORAGE_CONFIG, "
            f"which has {', '.join(config)}",
        )
