"""Docker's manifest list and OCI's image index: manifests of one image, a platform each.

Buildkit adds attestations as further children, of platform `unknown/unknown`; their layers tell
that they are no images, once somebody pulled them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data.manifests.document import MOST_ENTRIES, Descriptor, Part, read_document
from data.manifests.manifest import Child, Manifest, Unscannable

OTHER_KINDS = ("layers", "config", "fsLayers")


class Platform(Part):
    os: str = ""
    architecture: str = ""


class Entry(Descriptor):
    platform: Platform | None = None


class ManifestList(Part):
    schema_version: Literal[2] = Field(alias="schemaVersion")
    manifests: Annotated[list[Entry], Field(max_length=MOST_ENTRIES)]


class DockerList(ManifestList):
    media_type: Literal["application/vnd.docker.distribution.manifest.list.v2+json"] = Field(
        alias="mediaType"
    )


class OCIIndex(ManifestList):
    media_type: Literal["application/vnd.oci.image.index.v1+json"] | None = Field(
        default=None, alias="mediaType"
    )


def parse_docker_list(manifest_bytes: str | bytes, media_type: str) -> Manifest:
    """Raises `ManifestError`."""
    return read_list(read_document(manifest_bytes, DockerList, other_kinds=OTHER_KINDS), media_type)


def parse_oci_index(manifest_bytes: str | bytes, media_type: str) -> Manifest:
    """Raises `ManifestError`."""
    return read_list(read_document(manifest_bytes, OCIIndex, other_kinds=OTHER_KINDS), media_type)


def read_list(document: ManifestList, media_type: str) -> Manifest:
    return Manifest(
        media_type=media_type,
        unscannable=Unscannable.MANIFEST_LIST,
        children=tuple(map(read_child, document.manifests)),
    )


def read_child(entry: Entry) -> Child:
    platform = entry.platform or Platform()
    return Child(
        digest=entry.digest,
        media_type=entry.media_type,
        size=entry.size,
        platform=f"{platform.os}/{platform.architecture}",
    )
