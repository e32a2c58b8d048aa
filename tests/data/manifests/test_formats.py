"""What each format says of layers and children, and in which order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data.errors import ManifestError
from data.manifests import Manifest, Unscannable, media_types, parse_manifest
from tests.data.manifests.examples import EMPTY_LAYER, parse, read


def changed(name: str, **changes: Any) -> str:
    return json.dumps(json.loads(read(name)) | changes)


def test_schema_1_names_its_layers_newest_first() -> None:
    manifest = parse("docker_schema1_signed")
    blob_sums = [
        layer["blobSum"] for layer in json.loads(read("docker_schema1_signed"))["fsLayers"]
    ]
    assert [layer.digest for layer in manifest.layers] == blob_sums[::-1]
    assert manifest.layers[0].digest.startswith("sha256:e7c96db7"), "the base layer, Alpine's"


def test_schema_1_takes_an_unsigned_manifest_as_well() -> None:
    document = json.loads(read("docker_schema1_signed"))
    del document["signatures"]
    manifest = parse_manifest(json.dumps(document), media_types.DOCKER_SCHEMA1)
    assert manifest.layers == parse("docker_schema1_signed").layers


def schema1(*steps: str) -> Manifest:
    document = {
        "schemaVersion": 1,
        "fsLayers": [{"blobSum": EMPTY_LAYER} for _ in steps],
        "history": [{"v1Compatibility": step} for step in steps],
    }
    return parse_manifest(json.dumps(document), media_types.DOCKER_SCHEMA1)


def test_schema_1_takes_the_sizes_of_layers_from_its_history() -> None:
    manifest = schema1('{"id": "b", "Size": 12}', '{"id": "a"}')
    assert [layer.size for layer in manifest.layers] == [None, 12]


def test_schema_1_without_layers_is_nothing_to_scan() -> None:
    assert schema1().unscannable is Unscannable.NO_LAYERS


@pytest.mark.parametrize(
    "step",
    ["", "null", "[]", "{}", '{"id": 1}', '{"id": "a", "Size": -1}', '{"id": "a", "id": "b"}'],
)
def test_schema_1_with_a_broken_history_is_refused(step: str) -> None:
    with pytest.raises(ManifestError, match="bad v1Compatibility"):
        schema1(step)


def test_schema_1_whose_history_is_of_other_layers_is_refused() -> None:
    history = json.loads(read("docker_schema1_signed"))["history"][1:]
    with pytest.raises(ManifestError, match="3 fsLayers, but a history of 2 steps"):
        parse_manifest(
            changed("docker_schema1_signed", history=history), media_types.DOCKER_SCHEMA1_SIGNED
        )


def test_layers_put_behind_what_the_signature_covers_are_refused() -> None:
    """The digest is of the signed part alone, so anybody could add them."""
    content = read("docker_schema1_signed")
    other = ', "fsLayers": [{"blobSum": "' + EMPTY_LAYER + '"}]}'
    with pytest.raises(ManifestError, match="twice"):
        parse_manifest(
            content.rstrip().removesuffix("}") + other, media_types.DOCKER_SCHEMA1_SIGNED
        )


def test_layers_of_schema_2_are_base_layer_first() -> None:
    named = [layer["digest"] for layer in json.loads(read("oci_gzip"))["layers"]]
    assert [layer.digest for layer in parse("oci_gzip").layers] == named


def test_same_layer_twice_stays_twice_in_its_places() -> None:
    digests = [layer.digest for layer in parse("docker_schema2_same_layer_twice").layers]
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3


def test_empty_layers_are_layers_like_others() -> None:
    manifest = parse("docker_schema2_empty_layers")
    assert [layer.digest for layer in manifest.layers][1:] == [EMPTY_LAYER, EMPTY_LAYER]
    assert EMPTY_LAYER in manifest.required_layer_digests


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("docker_schema2_windows_foreign", [True, True, False, False]),
        ("oci_nondistributable", [True, True, False, False]),
    ],
)
def test_foreign_layers_count_as_placed(name: str, foreign: list[bool]) -> None:
    manifest = parse(name)
    assert [layer.foreign for layer in manifest.layers] == foreign
    own = {layer.digest for layer in manifest.layers if not layer.foreign}
    assert manifest.required_layer_digests == own


def test_an_ordinary_layer_that_names_urls_too_is_none_of_them() -> None:
    layers = json.loads(read("oci_nondistributable"))["layers"]
    layers[2]["urls"] = layers[0]["urls"]
    manifest_bytes = changed("oci_nondistributable", layers=layers)
    layer = parse_manifest(manifest_bytes, media_types.OCI_MANIFEST).layers[2]
    assert layer.urls
    assert not layer.foreign


@pytest.mark.parametrize("urls", [None, [], ["file:///etc/passwd"], ["https://a b"], ["/v2/"]])
def test_foreign_layer_that_nobody_can_fetch_is_refused(urls: list[str] | None) -> None:
    layers = json.loads(read("docker_schema2_windows_foreign"))["layers"]
    layers[1]["urls"] = urls
    with pytest.raises(ManifestError, match=f"the foreign layer {layers[1]['digest']}"):
        parse_manifest(
            changed("docker_schema2_windows_foreign", layers=layers), media_types.DOCKER_SCHEMA2
        )


def test_attestations_are_children_of_an_unknown_platform() -> None:
    manifest = parse("oci_index_with_attestations")
    assert [child.platform for child in manifest.children] == [
        "linux/amd64",
        "linux/arm64",
        "unknown/unknown",
        "unknown/unknown",
    ]
    assert {child.media_type for child in manifest.children} == {media_types.OCI_MANIFEST}


def test_child_of_an_index_needs_no_platform() -> None:
    manifests = json.loads(read("oci_index_with_attestations"))["manifests"]
    del manifests[0]["platform"]
    manifest = parse_manifest(
        changed("oci_index_with_attestations", manifests=manifests), media_types.OCI_INDEX
    )
    assert manifest.children[0].platform == "/"


@pytest.mark.parametrize("config", ["application/vnd.acme.config.v1+json", "a", ""])
def test_an_image_may_have_a_config_of_any_type(config: str) -> None:
    """Clients send such configs with real images, and Quay scans these (its pull request 7006)."""
    document = json.loads(read("oci_gzip"))
    document["config"]["mediaType"] = config
    assert parse_manifest(json.dumps(document), media_types.OCI_MANIFEST).unscannable is None


@pytest.mark.parametrize(
    "media_type",
    [
        media_types.OCI_LAYER,
        media_types.OCI_GZIP_LAYER,
        media_types.OCI_ZSTD_LAYER,
        media_types.OCI_FOREIGN_LAYER,
        media_types.OCI_FOREIGN_GZIP_LAYER,
        media_types.DOCKER_LAYER,
    ],
)
def test_layers_that_quay_has_scanned_in_an_oci_manifest(media_type: str) -> None:
    layers = json.loads(read("oci_nondistributable"))["layers"][:1]
    layers[0]["mediaType"] = media_type
    manifest = parse_manifest(changed("oci_gzip", layers=layers), media_types.OCI_MANIFEST)
    assert manifest.unscannable is None


def test_a_config_without_layers_is_nothing_to_scan() -> None:
    manifest = parse_manifest(changed("oci_gzip", layers=[]), media_types.OCI_MANIFEST)
    assert manifest.unscannable is Unscannable.NO_LAYERS
    assert manifest.config_digest is not None


def test_one_layer_that_is_no_file_system_makes_an_artifact() -> None:
    layers = json.loads(read("oci_gzip"))["layers"]
    layers[0]["mediaType"] = "application/vnd.acme.data"
    manifest = parse_manifest(changed("oci_gzip", layers=layers), media_types.OCI_MANIFEST)
    assert manifest.unscannable is Unscannable.OTHER_LAYERS
