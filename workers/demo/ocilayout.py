"""OCI image layouts: `index.json`, and every blob under `blobs/sha256/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

from workers.demo.imagearchive import (
    FileTree,
    ImageUnreadable,
    find_blob,
    parse_document,
    read_document,
)
from workers.demo.imagenames import repository_and_tag
from workers.demo.images import BlobSource, Image, as_json

MAX_DEPTH = 3  # an index of indexes of images

# Where tools write the name of an image: containerd and docker the whole, others the tag.
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class _WireModel(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel)


class Descriptor(_WireModel):
    """A reference to a blob (OCI image specification, "Descriptors")."""

    media_type: str
    digest: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] = Field(default_factory=dict)


class Document(_WireModel):
    """An index, or the manifest of an image: told apart by what is there."""

    media_type: str | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] | None = None


DOCUMENT = TypeAdapter(Document)


def read_layout(tree: FileTree) -> Image | None:
    """The one image of a layout, None if it is no layout. Raises `ImageUnreadable`."""
    content = read_document(tree, "index.json")
    if content is None:
        return None
    entries = parse_document(DOCUMENT, content, "index.json", tree.path).manifests or ()
    tops = {entry.digest: entry for entry in entries}
    if len(tops) != 1:
        names = ", ".join(name_of(entry) for entry in tops.values())
        raise ImageUnreadable(f"{tree.path} holds {len(tops)} images ({names}); save just one")
    top = next(iter(tops.values()))
    name, tag = repository_and_tag(name_of(top), tree.path)
    image = read_image(tree, top, name, tag, MAX_DEPTH)
    if image is None:
        raise ImageUnreadable(f"{tree.path}: its manifest {top.digest} isn't in it")
    return image


def read_image(tree: FileTree, entry: Descriptor, name: str, tag: str, depth: int) -> Image | None:
    """The manifest that `entry` points at, with what it points at; None if it isn't there.

    An index may list platforms that were not saved; those are left out of the children.
    """
    blob = find_blob(tree, blob_name(entry.digest), entry.digest)
    if blob is None:
        return None
    content = read_document(tree, blob_name(entry.digest)) or b""
    document = parse_document(DOCUMENT, content, entry.digest, tree.path)
    children: list[Image] = []
    if document.manifests is not None:
        if depth == 0:
            raise ImageUnreadable(f"{tree.path}: indexes inside indexes, {MAX_DEPTH} deep")
        found = [read_image(tree, child, name, tag, depth - 1) for child in document.manifests]
        children = [child for child in found if child is not None]
        if not children:
            raise ImageUnreadable(f"{tree.path}: none of the images of its index is in it")
    return Image(
        name=name,
        tag=tag,
        manifest=content,
        media_type=document.media_type or entry.media_type,
        blobs=blobs_of(tree, document),
        children=tuple(children),
    )


def blobs_of(tree: FileTree, document: Document) -> dict[str, BlobSource]:
    """Config and layers. Raises `ImageUnreadable` if one is missing that has no URL of its own."""
    blobs: dict[str, BlobSource] = {}
    for entry in (*([document.config] if document.config else []), *document.layers):
        blob = find_blob(tree, blob_name(entry.digest), entry.digest)
        if blob is not None:
            blobs[blob.digest] = blob
        elif not entry.urls:
            raise ImageUnreadable(f"{tree.path}: its blob {entry.digest} isn't in it")
    return blobs


def name_of(entry: Descriptor) -> str:
    names = (entry.annotations.get(key, "") for key in NAME_ANNOTATIONS)
    return next((name for name in names if name), "")


def blob_name(digest: str) -> str:
    algorithm, _, digits = digest.partition(":")
    return f"blobs/{algorithm}/{digits}"


def write_layout(image: Image, directory: Path) -> None:
    """Writes the image as an OCI layout that `read_layout` and other tools read."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (directory / "oci-layout").write_bytes(as_json({"imageLayoutVersion": "1.0.0"}))
    for part in image.manifests():
        (directory / blob_name(part.digest)).write_bytes(part.manifest)
        for blob in part.blobs.values():
            with (directory / blob_name(blob.digest)).open("wb") as file:
                file.writelines(blob.pieces())
    entry = {
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": len(image.manifest),
        "annotations": {NAME_ANNOTATIONS[0]: f"{image.name}:{image.tag}"},
    }
    index = {"schemaVersion": 2, "manifests": [entry]}
    (directory / "index.json").write_bytes(as_json(index))
