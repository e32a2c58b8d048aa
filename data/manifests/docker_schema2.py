"""Docker's image manifest, version 2, schema 2 (distribution's manifest-v2-2)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data.manifests import media_types
from data.manifests.document import MOST_ENTRIES, Descriptor, Part, read_document
from data.manifests.layers import read_layers
from data.manifests.manifest import Layer, Manifest, Unscannable

# Quay refuses a manifest of this format with any other (image/docker/schema2/manifest.py).
FILE_SYSTEM_LAYERS = frozenset({media_types.DOCKER_LAYER, media_types.DOCKER_FOREIGN_LAYER})


class DockerSchema2(Part):
    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: Literal["application/vnd.docker.distribution.manifest.v2+json"] = Field(
        alias="mediaType"
    )
    config: Descriptor
    layers: Annotated[list[Descriptor], Field(max_length=MOST_ENTRIES)]


def parse_docker_schema2(manifest_bytes: str | bytes, media_type: str) -> Manifest:
    """Raises `ManifestError`."""
    document = read_document(manifest_bytes, DockerSchema2, other_kinds=("manifests", "fsLayers"))
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
    if config_media_type != media_types.DOCKER_CONFIG:
        return Unscannable.OTHER_CONFIG
    if not layers:
        return Unscannable.NO_LAYERS
    if any(layer.media_type not in FILE_SYSTEM_LAYERS for layer in layers):
        return Unscannable.OTHER_LAYERS
    return None
