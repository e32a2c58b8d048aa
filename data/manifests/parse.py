"""Manifest bytes -> Manifest, whatever the format; never anything but a ManifestError."""

from __future__ import annotations

import json
from typing import Any

from data.digests import parse_digest
from data.errors import ManifestError
from data.manifests import media_types
from data.manifests.manifest import Child, Layer, Manifest

# Registries refuse larger manifests (distribution and Quay: 4 MiB).
LARGEST_MANIFEST = 4 * 1024 * 1024
# Far above any image (Docker's limit is 127 layers), far below what would hurt.
MOST_LAYERS = 4096
MOST_CHILDREN = 4096


def parse_manifest(manifest_bytes: str | bytes, media_type: str) -> Manifest:
    """The manifest that the bytes say. Raises `ManifestError` with what is wrong with them."""
    document = load_json(manifest_bytes)
    if media_type in {media_types.DOCKER_LIST, media_types.OCI_INDEX}:
        return parse_list(document, media_type)
    if media_type in {media_types.DOCKER_SCHEMA1, media_types.DOCKER_SCHEMA1_SIGNED}:
        return parse_schema1(document, media_type)
    if media_type in {media_types.DOCKER_SCHEMA2, media_types.OCI_MANIFEST}:
        return parse_image(document, media_type)
    raise ManifestError(f"{media_type[:120]!r} is no media type of a manifest")


def load_json(manifest_bytes: str | bytes) -> dict[str, Any]:
    if len(manifest_bytes) > LARGEST_MANIFEST:
        raise ManifestError(f"a manifest of {len(manifest_bytes)} bytes is larger than any may be")
    try:
        document = json.loads(
            manifest_bytes, object_pairs_hook=unique_keys, parse_constant=refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the manifest is no JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise ManifestError("the manifest is JSON, but no object")
    return document


def refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return document


def parse_image(document: dict[str, Any], media_type: str) -> Manifest:
    config = expect(document, "config", dict)
    return Manifest(
        media_type=media_type,
        layers=tuple(parse_layer(each) for each in at_most(MOST_LAYERS, document, "layers")),
        config_digest=parse_digest(config.get("digest")),
        config_size=size_of(config),
        config_media_type=expect(config, "mediaType", str),
    )


def parse_layer(layer: Any) -> Layer:
    if not isinstance(layer, dict):
        raise ManifestError("a layer is no object")
    urls = layer.get("urls") or []
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise ManifestError("the urls of a layer are no list of texts")
    return Layer(
        digest=parse_digest(layer.get("digest")),
        size=size_of(layer),
        media_type=expect(layer, "mediaType", str),
        urls=tuple(urls),
    )


def parse_schema1(document: dict[str, Any], media_type: str) -> Manifest:
    """Schema 1 names its layers newest first, and has no config blob."""
    layers = at_most(MOST_LAYERS, document, "fsLayers")
    if not all(isinstance(layer, dict) for layer in layers):
        raise ManifestError("a layer is no object")
    digests = [parse_digest(layer.get("blobSum")) for layer in reversed(layers)]
    return Manifest(media_type=media_type, layers=tuple(Layer(digest=each) for each in digests))


def parse_list(document: dict[str, Any], media_type: str) -> Manifest:
    children = at_most(MOST_CHILDREN, document, "manifests")
    return Manifest(
        media_type=media_type, children=tuple(parse_child(each) for each in children), is_list=True
    )


def parse_child(child: Any) -> Child:
    if not isinstance(child, dict):
        raise ManifestError("an entry of the manifest list is no object")
    platform = child.get("platform") or {}
    if not isinstance(platform, dict):
        raise ManifestError("the platform of an entry of the manifest list is no object")
    return Child(
        digest=parse_digest(child.get("digest")),
        media_type=expect(child, "mediaType", str),
        size=size_of(child),
        platform=f"{platform.get('os', '')}/{platform.get('architecture', '')}",
    )


def at_most(limit: int, document: dict[str, Any], key: str) -> list[Any]:
    entries: list[Any] = expect(document, key, list)
    if len(entries) > limit:
        raise ManifestError(f"the manifest's {key!r} has {len(entries)} entries; {limit} is most")
    return entries


def expect(document: dict[str, Any], key: str, kind: type) -> Any:
    value = document.get(key)
    if not isinstance(value, kind):
        raise ManifestError(f"the manifest's {key!r} is missing or no {kind.__name__}")
    return value


def size_of(descriptor: dict[str, Any]) -> int | None:
    size = descriptor.get("size")
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
        raise ManifestError("a size is no number of bytes")
    return size
