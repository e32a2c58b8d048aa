"""OCI's image manifest (OCI image spec 1.1, "Image Manifest"), which artifacts use as well.

An artifact may borrow the config of an image (cosign's signatures and buildkit's attestations do),
and an image may carry a config of a type that nobody knows. So Quay goes by the layers
(data/secscan_model/secscan_v4_model.py, `_has_container_layers`), and tells by the config only what
has none at all (its pull request 7006).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data.manifests import media_types
from data.manifests.document import MOST_ENTRIES, Descriptor, Part, read_document
from data.manifests.layers import read_layers
from data.manifests.manifest import Layer, Manifest, Unscannable

FILE_SYSTEM_LAYERS = frozenset(
    {
        media_types.OCI_LAYER,
        media_types.OCI_GZIP_LAYER,
        media_types.OCI_ZSTD_LAYER,
        media_types.OCI_FOREIGN_LAYER,
        media_types.OCI_FOREIGN_GZIP_LAYER,
        media_types.DOCKER_LAYER,
    }
)


class OCIManifest(Part):
    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: Literal["application/vnd.oci.image.manifest.v1+json"] | None = Field(
        default=None, alias="mediaType"
    )
    config: Descriptor
    layers: Annotated[list[Descriptor], Field(max_length=MOST_ENTRIES)]


def parse_oci_manifest(manifest_bytes: str | bytes, media_type: str) -> Manifest:
    """Raises `ManifestError`."""
    document = read_document(manifest_bytes, OCIManifest, other_kinds=("manifests", "fsLayers"))
    layers = read_layers(document.layers)
    return Manifest(
        media_type=media_type,
        unscannable=judge(document.config.media_type, layers),
        layers=layers,
        config_digest=document.config.digest,
        config_size=document.config.size,
        config_media_type=document.config.media_type,
    )


def judge(config_media_type: str, layers: tuple[Layer, ...]) -> Unscannable | None:
    if config_media_type == media_types.OCI_EMPTY:
        return Unscannable.EMPTY_CONFIG
    if not layers:
        return Unscannable.NO_LAYERS
    if any(layer.media_type not in FILE_SYSTEM_LAYERS for layer in layers):
        return Unscannable.OTHER_LAYERS
    return None
