"""Docker's image manifest, version 2, schema 1 (distribution's manifest-v2-1), signed or not.

It names its layers newest first, and has no config: its history says, for each layer, what the
config says today, as JSON in a text. A step that changed no file (`throwaway`) has a layer too, an
empty one, which is stored and scanned like any other. The signature is not read: the digest by
which Quay stores the manifest vouches for its bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data.errors import ManifestError
from data.manifests.document import (
    MOST_ENTRIES,
    Digest,
    Part,
    Size,
    load_json,
    read_document,
    validate,
)
from data.manifests.manifest import Layer, Manifest, Unscannable


class BlobSum(Part):
    blob_sum: Digest = Field(alias="blobSum")


class Step(Part):
    v1_compatibility: str = Field(alias="v1Compatibility")


class V1Compatibility(Part):
    image_id: str = Field(alias="id")
    size: Size | None = Field(default=None, alias="Size")


class DockerSchema1(Part):
    schema_version: Literal[1] = Field(alias="schemaVersion")
    fs_layers: Annotated[list[BlobSum], Field(max_length=MOST_ENTRIES)] = Field(alias="fsLayers")
    history: Annotated[list[Step], Field(max_length=MOST_ENTRIES)]


def parse_docker_schema1(manifest_bytes: str | bytes, media_type: str) -> Manifest:
    """Raises `ManifestError`."""
    document = read_document(
        manifest_bytes, DockerSchema1, other_kinds=("manifests", "layers", "config")
    )
    if len(document.fs_layers) != len(document.history):
        raise ManifestError(
            f"the manifest has {len(document.fs_layers)} fsLayers, but a history of "
            f"{len(document.history)} steps"
        )
    newest_first = [
        Layer(digest=layer.blob_sum, size=read_size(step))
        for layer, step in zip(document.fs_layers, document.history, strict=True)
    ]
    return Manifest(
        media_type=media_type,
        unscannable=None if newest_first else Unscannable.NO_LAYERS,
        layers=tuple(reversed(newest_first)),
    )


def read_size(step: Step) -> int | None:
    """What Quay takes for the layer's size when it looks for one that is too large to index."""
    try:
        return validate(load_json(step.v1_compatibility), V1Compatibility).size
    except ManifestError as error:
        raise ManifestError(f"the manifest's history has a bad v1Compatibility: {error}") from error
