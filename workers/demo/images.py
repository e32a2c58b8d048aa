"""Images as the demo and the tests hold them: manifests in memory, blobs in memory or in files.

`build_image`, `build_index` and `build_artifact` write real manifests: Docker's image manifest
version 2 schema 2, and those of the OCI image specification.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

PIECE = 256 * 1024  # bytes


class ImageFormat(Enum):
    """Whose media types a manifest uses."""

    DOCKER = "docker"
    OCI = "oci"


@dataclass(frozen=True, slots=True)
class MediaTypes:
    """The media types of one format."""

    manifest: str
    index: str
    config: str
    layer: str  # a gzip tar


MEDIA_TYPES = {
    ImageFormat.DOCKER: MediaTypes(
        manifest="application/vnd.docker.distribution.manifest.v2+json",
        index="application/vnd.docker.distribution.manifest.list.v2+json",
        config="application/vnd.docker.container.image.v1+json",
        layer="application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
    ImageFormat.OCI: MediaTypes(
        manifest="application/vnd.oci.image.manifest.v1+json",
        index="application/vnd.oci.image.index.v1+json",
        config="application/vnd.oci.image.config.v1+json",
        layer="application/vnd.oci.image.layer.v1.tar+gzip",
    ),
}
OCI_PLAIN_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSource:
    """Where the bytes of a blob are: in memory, or `size` bytes from `offset` in a file."""

    digest: str
    size: int
    source: bytes | Path = field(repr=False)
    offset: int = 0

    @classmethod
    def of(cls, content: bytes) -> BlobSource:
        """A blob in memory."""
        return cls(digest=sha256_digest(content), size=len(content), source=content)

    def pieces(self) -> Iterator[bytes]:
        """The bytes, a piece at a time."""
        with self._open() as file:
            left = self.size
            while left and (piece := file.read(min(left, PIECE))):
                left -= len(piece)
                yield piece

    def read(self) -> bytes:
        return b"".join(self.pieces())

    def _open(self) -> BinaryIO:
        if isinstance(self.source, bytes):
            return io.BytesIO(self.source)
        file = self.source.open("rb")
        file.seek(self.offset)
        return file


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer: its blob, and the digest of the tar that it unpacks to."""

    blob: BlobSource
    diff_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What one tag of a repository names: an image, an index with its children, or an artifact.

    `name` is that of the repository at the upstream registry. `blobs` holds config and layers.
    """

    name: str
    manifest: bytes
    media_type: str
    blobs: Mapping[str, BlobSource] = field(default_factory=dict)
    children: tuple[Image, ...] = ()
    tag: str = "latest"

    @property
    def digest(self) -> str:
        return sha256_digest(self.manifest)

    @property
    def layer_digests(self) -> tuple[str, ...]:
        """Base layer first; none for an index."""
        return tuple(layer["digest"] for layer in json.loads(self.manifest).get("layers", ()))

    @property
    def config_digest(self) -> str | None:
        config = json.loads(self.manifest).get("config")
        return None if config is None else str(config["digest"])

    def manifests(self) -> Iterator[Image]:
        """The image itself, then its children."""
        yield self
        for child in self.children:
            yield from child.manifests()


def build_image(
    name: str,
    layers: Sequence[Layer],
    *,
    tag: str = "latest",
    image_format: ImageFormat = ImageFormat.OCI,
    architecture: str = "amd64",
) -> Image:
    """An image with these layers, base layer first, and the config that goes with them."""
    types = MEDIA_TYPES[image_format]
    config = BlobSource.of(as_json(image_config(layers, architecture)))
    manifest = {
        "schemaVersion": 2,
        "mediaType": types.manifest,
        "config": descriptor(types.config, config),
        "layers": [descriptor(types.layer, layer.blob) for layer in layers],
    }
    return Image(
        name=name,
        tag=tag,
        manifest=as_json(manifest),
        media_type=types.manifest,
        blobs={blob.digest: blob for blob in (config, *(layer.blob for layer in layers))},
    )


def build_index(
    name: str,
    children: Sequence[tuple[str, Image]],
    *,
    tag: str = "latest",
    image_format: ImageFormat = ImageFormat.OCI,
) -> Image:
    """An index (a manifest list) of children, each with its architecture."""
    types = MEDIA_TYPES[image_format]
    entries = [
        {
            "mediaType": child.media_type,
            "digest": child.digest,
            "size": len(child.manifest),
            "platform": {"architecture": architecture, "os": "linux"},
        }
        for architecture, child in children
    ]
    index = {"schemaVersion": 2, "mediaType": types.index, "manifests": entries}
    return Image(
        name=name,
        tag=tag,
        manifest=as_json(index),
        media_type=types.index,
        children=tuple(child for _, child in children),
    )


def build_artifact(
    name: str, *, config: tuple[str, bytes], layer: tuple[str, bytes], tag: str = "latest"
) -> Image:
    """An OCI manifest that is no image; config and layer are (media type, bytes)."""
    blobs = BlobSource.of(config[1]), BlobSource.of(layer[1])
    media_type = MEDIA_TYPES[ImageFormat.OCI].manifest
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(config[0], blobs[0]),
        "layers": [descriptor(layer[0], blobs[1])],
    }
    return Image(
        name=name,
        tag=tag,
        manifest=as_json(manifest),
        media_type=media_type,
        blobs={blob.digest: blob for blob in blobs},
    )


def image_config(layers: Sequence[Layer], architecture: str) -> dict[str, Any]:
    """The config of an image; always of the same moment, so that the digest is the same."""
    created = "2024-01-01T00:00:00Z"
    return {
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": created, "created_by": "quay-rescan demo"} for _ in layers],
    }


def descriptor(media_type: str, blob: BlobSource) -> dict[str, Any]:
    return {"mediaType": media_type, "size": blob.size, "digest": blob.digest}


def as_json(content: Any) -> bytes:
    """JSON as registries store it: the bytes count, so they are always the same."""
    return json.dumps(content, indent=2).encode()


def sha256_digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
