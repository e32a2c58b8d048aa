"""Manifest bytes -> Manifest, whatever the format; never anything but a ManifestError."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from data.errors import ManifestError
from data.manifests import media_types
from data.manifests.docker_schema1 import parse_docker_schema1
from data.manifests.docker_schema2 import parse_docker_schema2
from data.manifests.manifest import Manifest
from data.manifests.manifest_list import parse_docker_list, parse_oci_index
from data.manifests.oci_manifest import parse_oci_manifest

PARSERS: Mapping[str, Callable[[str | bytes, str], Manifest]] = MappingProxyType(
    {
        media_types.DOCKER_SCHEMA1: parse_docker_schema1,
        media_types.DOCKER_SCHEMA1_SIGNED: parse_docker_schema1,
        media_types.DOCKER_SCHEMA2: parse_docker_schema2,
        media_types.DOCKER_LIST: parse_docker_list,
        media_types.OCI_MANIFEST: parse_oci_manifest,
        media_types.OCI_INDEX: parse_oci_index,
    }
)


def parse_manifest(manifest_bytes: str | bytes, media_type: str) -> Manifest:
    """The manifest that the bytes say. Raises `ManifestError` with what is wrong with them.

    `media_type` is what the registry said they are; bytes that say otherwise are refused.
    """
    parse = PARSERS.get(media_type)
    if parse is None:
        raise ManifestError(f"{media_type[:120]!r} is no media type of a manifest")
    return parse(manifest_bytes, media_type)
