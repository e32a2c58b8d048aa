"""Archives of `docker save` as they were before OCI layouts: `manifest.json` and plain layers.

Such an archive holds no manifest that a registry could serve, so one is written here; its layers
stay as they are, tar files without compression, which the OCI format allows.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from workers.demo.imagearchive import (
    GZIP,
    FileTree,
    ImageUnreadable,
    find_blob,
    parse_document,
    read_document,
)
from workers.demo.imagenames import repository_and_tag
from workers.demo.images import (
    MEDIA_TYPES,
    OCI_PLAIN_LAYER,
    BlobSource,
    Image,
    ImageFormat,
    as_json,
    descriptor,
)

OCI = MEDIA_TYPES[ImageFormat.OCI]


class SavedImage(BaseModel):
    """An entry of `manifest.json`: paths in the archive."""

    model_config = ConfigDict(frozen=True)

    config: Annotated[str, Field(alias="Config")]
    layers: Annotated[tuple[str, ...], Field(alias="Layers", min_length=1)]
    repo_tags: Annotated[tuple[str, ...] | None, Field(alias="RepoTags")] = None


class _RootFilesystem(BaseModel):
    diff_ids: tuple[str, ...]


class _Config(BaseModel):
    rootfs: _RootFilesystem


SAVED_IMAGES = TypeAdapter(tuple[SavedImage, ...])
CONFIG = TypeAdapter(_Config)


def read_docker_archive(tree: FileTree) -> Image | None:
    """The one image of the archive, None if it is none of docker's. Raises `ImageUnreadable`."""
    content = read_document(tree, "manifest.json")
    if content is None:
        return None
    saved = parse_document(SAVED_IMAGES, content, "manifest.json", tree.path)
    if len(saved) != 1:
        names = ", ".join(tag for image in saved for tag in image.repo_tags or ("without name",))
        raise ImageUnreadable(f"{tree.path} holds {len(saved)} images ({names}); save just one")
    return read_saved_image(tree, saved[0])


def read_saved_image(tree: FileTree, saved: SavedImage) -> Image:
    config = require(tree, saved.config)
    layers = [require(tree, name) for name in saved.layers]
    check_layers(tree, saved, layers)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "config": descriptor(OCI.config, config),
        "layers": [descriptor(layer_type(layer), layer) for layer in layers],
    }
    name, tag = repository_and_tag((saved.repo_tags or ("",))[0], tree.path)
    return Image(
        name=name,
        tag=tag,
        manifest=as_json(manifest),
        media_type=OCI.manifest,
        blobs={blob.digest: blob for blob in (config, *layers)},
    )


def check_layers(tree: FileTree, saved: SavedImage, layers: list[BlobSource]) -> None:
    """Raises `ImageUnreadable` unless the layers are those that the config lists."""
    content = read_document(tree, saved.config) or b""
    config = parse_document(CONFIG, content, saved.config, tree.path)
    expected = config.rootfs.diff_ids
    if len(expected) != len(layers):
        raise ImageUnreadable(
            f"{tree.path}: manifest.json has {len(layers)} layers, the config {len(expected)}"
        )
    for name, layer, diff_id in zip(saved.layers, layers, expected, strict=True):
        if layer_type(layer) == OCI_PLAIN_LAYER and layer.digest != diff_id:
            raise ImageUnreadable(f"{tree.path}: {name} is damaged: it should be {diff_id}")


def layer_type(layer: BlobSource) -> str:
    start = next(layer.pieces(), b"")[: len(GZIP)]
    return OCI.layer if start == GZIP else OCI_PLAIN_LAYER


def require(tree: FileTree, name: str) -> BlobSource:
    blob = find_blob(tree, name)
    if blob is None:
        raise ImageUnreadable(f"{tree.path}: manifest.json names {name}, which isn't in it")
    return blob
