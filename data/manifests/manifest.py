"""A manifest, parsed: what it is made of, and whether Clair can scan it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from data.manifests.media_types import FOREIGN_LAYERS


class Unscannable(Enum):
    """Why a manifest is none that Clair can index, in words for a person ("it is ...")."""

    MANIFEST_LIST = "a manifest list: its children are scanned, it has no layers of its own"
    EMPTY_CONFIG = "an artifact, not a container image: its config is the empty one of OCI"
    OTHER_CONFIG = "an artifact, not a container image: its config is none of an image"
    OTHER_LAYERS = (
        "an artifact, not a container image: it has layers that are no file system (a Helm chart, "
        "a WASM module, a signature, an attestation, an SBOM or the like)"
    )
    NO_LAYERS = "an image without layers: there is nothing to scan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer as the manifest names it. `size` is in bytes; schema 1 may name none."""

    digest: str
    size: int | None = None
    media_type: str = ""
    urls: tuple[str, ...] = ()

    @property
    def foreign(self) -> bool:
        """It lies elsewhere (at `urls`), so no registry stores it and it counts as placed.

        By its media type, as Quay judges it (image/oci/manifest.py): a layer of an ordinary type
        that names `urls` too is stored and fetched like any other.
        """
        return bool(self.urls) and self.media_type in FOREIGN_LAYERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A manifest that a list names."""

    digest: str
    media_type: str
    size: int | None = None
    platform: str = ""  # os/architecture; unknown/unknown for an attestation


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Layers base layer first; the same layer may stand, and is sent to Clair, several times.

    Quay also sends an empty layer for each step of the config's history that changed nothing; the
    scan is the same without them, and needs no config.

    `unscannable` is why it can't be scanned, as Quay judges it; None for a container image. The
    parser of each format decides it.
    """

    media_type: str
    unscannable: Unscannable | None
    layers: tuple[Layer, ...] = ()
    config_digest: str | None = None
    config_size: int | None = None
    config_media_type: str | None = None
    children: tuple[Child, ...] = ()

    @property
    def required_layer_digests(self) -> frozenset[str]:
        """The layers that must be placed before the manifest is complete."""
        return frozenset(layer.digest for layer in self.layers if not layer.foreign)
