"""Descriptors of layers -> layers."""

from __future__ import annotations

from collections.abc import Iterable

from data.errors import ManifestError
from data.manifests.document import Descriptor
from data.manifests.manifest import Layer
from data.manifests.media_types import FOREIGN_LAYERS


def read_layers(descriptors: Iterable[Descriptor]) -> tuple[Layer, ...]:
    """The layers in the manifest's order, base layer first.

    Raises `ManifestError` for a foreign layer that doesn't say where it lies; Quay refuses it too.
    """
    return tuple(map(read_layer, descriptors))


def read_layer(descriptor: Descriptor) -> Layer:
    urls = tuple(descriptor.urls or ())
    if descriptor.media_type in FOREIGN_LAYERS:
        require_web_address(descriptor.digest, urls)
    return Layer(
        digest=descriptor.digest,
        size=descriptor.size,
        media_type=descriptor.media_type,
        urls=urls,
    )


def require_web_address(digest: str, urls: tuple[str, ...]) -> None:
    """Clair fetches a foreign layer from the first of its `urls`, as Quay tells it to."""
    if not urls:
        raise ManifestError(f"the foreign layer {digest} names no urls, so nobody can fetch it")
    url = urls[0]
    plain = url.isascii() and url.isprintable() and " " not in url
    if not plain or not url.startswith(("https://", "http://")):
        raise ManifestError(f"the foreign layer {digest} lies at no web address: {url[:80]!r}")
