"""Where Clair may fetch a layer from, and with which headers.

Clair reads the layers itself, so it is told of each one's address and the headers that open it.
Which kind of address fits depends on the storage engine and on the keys that the instance has:

    PresignedLinks                 the engine can presign (S3, GCS, Azure)
    data.secscan.registry_links    it can't, the instance has a key: the registry's own address
    data.secscan.signed_links      it can't, and there is no key: a layer server of ours

All of them expire a minute or so after they were made, so `locate` is called when the index request
is about to be sent, never before a wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

ACCEPT: Mapping[str, tuple[str, ...]] = MappingProxyType({"Accept": ("application/gzip",)})
"""What Quay has Clair send with every layer request; zstd and plain layers come all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLocation:
    """One layer as an index request names it.

    The address and the headers may carry a signature or a token, so neither is in the repr.
    """

    digest: str
    uri: str = field(repr=False)
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: ACCEPT, repr=False)


class LayerLinks(Protocol):
    """Makes addresses for one kind of storage."""

    def locate(self, namespace: str, repository: str, digest: str) -> LayerLocation:
        """Where Clair may fetch the blob `digest` of `namespace/repository`, for a while from now.

        Raises a `data.errors.StorageError` where the store has to be asked and can't answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class PresignedLinks:
    """Addresses that the store itself signs. They need no header of ours.

    `presign` takes a digest and returns the URL; it is told nothing of the repository, because a
    blob lies in the store once, whoever shares it.
    """

    presign: Callable[[str], str] = field(repr=False)

    def locate(self, namespace: str, repository: str, digest: str) -> LayerLocation:  # noqa: ARG002
        return LayerLocation(digest=digest, uri=self.presign(digest))


def foreign_location(digest: str, url: str) -> LayerLocation:
    """A foreign layer: it lies where its manifest says (`urls`); no header of ours goes there."""
    return LayerLocation(digest=digest, uri=url)
