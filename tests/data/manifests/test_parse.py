"""Manifests of every kind, from real examples: what they hold, and whether Quay would scan them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import ManifestError
from data.manifests import Unscannable, media_types, parse_manifest
from data.manifests.parse import LARGEST_MANIFEST, MOST_LAYERS

EXAMPLES = Path(__file__).parent / "examples"
FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2000"))
TYPES = [
    media_types.DOCKER_SCHEMA1,
    media_types.DOCKER_SCHEMA1_SIGNED,
    media_types.DOCKER_SCHEMA2,
    media_types.DOCKER_LIST,
    media_types.OCI_MANIFEST,
    media_types.OCI_INDEX,
]
EMPTY_LAYER = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"
DIGEST = "sha256:" + "a" * 64

# name -> (media type, layers, layers that must be placed, children, why it can't be scanned)
EXPECTED: dict[str, tuple[str, int, int, int, Unscannable | None]] = {
    "docker_schema1_signed": (media_types.DOCKER_SCHEMA1_SIGNED, 4, 3, 0, None),
    "docker_schema2": (media_types.DOCKER_SCHEMA2, 3, 3, 0, None),
    "docker_schema2_windows_foreign": (media_types.DOCKER_SCHEMA2, 3, 1, 0, None),
    "docker_schema2_same_layer_twice": (media_types.DOCKER_SCHEMA2, 4, 3, 0, None),
    "docker_schema2_empty_layers": (media_types.DOCKER_SCHEMA2, 3, 2, 0, None),
    "docker_schema2_no_layers": (
        media_types.DOCKER_SCHEMA2,
        0,
        0,
        0,
        Unscannable.NO_LAYERS,
    ),
    "oci_gzip": (media_types.OCI_MANIFEST, 2, 2, 0, None),
    "oci_zstd": (media_types.OCI_MANIFEST, 2, 2, 0, None),
    "oci_nondistributable": (media_types.OCI_MANIFEST, 3, 2, 0, None),
    "oci_index_with_attestations": (
        media_types.OCI_INDEX,
        0,
        0,
        3,
        Unscannable.MANIFEST_LIST,
    ),
    "docker_list": (media_types.DOCKER_LIST, 0, 0, 2, Unscannable.MANIFEST_LIST),
    "helm_chart": (media_types.OCI_MANIFEST, 2, 2, 0, Unscannable.ARTIFACT),
    "wasm": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.ARTIFACT),
    "sbom_spdx": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.ARTIFACT),
    "oci_artifact_empty_config": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.ARTIFACT),
    # Both borrow the config of an image, so Quay sends them to Clair, which refuses them.
    "cosign_signature": (media_types.OCI_MANIFEST, 1, 1, 0, None),
    "attestation_in_toto": (media_types.OCI_MANIFEST, 2, 2, 0, None),
}


def read(name: str) -> str:
    return (EXAMPLES / f"{name}.json").read_text()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_each_kind_is_read_and_judged_as_quay_does(name: str) -> None:
    media_type, layers, required, children, unscannable = EXPECTED[name]
    manifest = parse_manifest(read(name), media_type)
    assert len(manifest.layers) == layers
    assert len(manifest.required_layer_digests) == required
    assert len(manifest.children) == children
    assert manifest.unscannable is unscannable
    config = json.loads(read(name)).get("config")
    assert manifest.config_digest == (config["digest"] if config else None)


def test_every_example_has_its_expectation() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.json")} == set(EXPECTED)


def test_schema_1_names_its_layers_newest_first() -> None:
    manifest = parse_manifest(read("docker_schema1_signed"), media_types.DOCKER_SCHEMA1_SIGNED)
    assert [layer.digest for layer in manifest.layers][1::2] == [EMPTY_LAYER, EMPTY_LAYER]
    last = json.loads(read("docker_schema1_signed"))["fsLayers"][-1]["blobSum"]
    assert manifest.layers[0].digest == last


def test_same_layer_twice_stays_twice_in_its_places() -> None:
    manifest = parse_manifest(read("docker_schema2_same_layer_twice"), media_types.DOCKER_SCHEMA2)
    digests = [layer.digest for layer in manifest.layers]
    assert digests[1] == digests[3]


def test_foreign_layers_are_those_of_a_foreign_type() -> None:
    manifest = parse_manifest(read("oci_nondistributable"), media_types.OCI_MANIFEST)
    assert [layer.foreign for layer in manifest.layers] == [True, False, False]
    assert manifest.layers[2].urls, "an ordinary layer may name urls too, and is stored"


def test_attestations_are_children_of_an_unknown_platform() -> None:
    manifest = parse_manifest(read("oci_index_with_attestations"), media_types.OCI_INDEX)
    assert [child.platform for child in manifest.children] == [
        "linux/amd64",
        "linux/arm64",
        "unknown/unknown",
    ]


def image(**changes: Any) -> str:
    document = json.loads(read("oci_gzip")) | changes
    return json.dumps(document)


LAYER = {"mediaType": "application/x", "digest": DIGEST, "size": 1}


@pytest.mark.parametrize(
    ("manifest_bytes", "message"),
    [
        ("", "no JSON"),
        ("[]", "no object"),
        (b"\xff\xfe\xfa", "no JSON"),
        ("{" * 100_000, "no JSON"),
        ("[" * 100_000 + "]" * 100_000, "no JSON"),
        ('{"config": {}, "config": {}}', "twice"),
        ('{"size": NaN}', "NaN"),
        (" " * (LARGEST_MANIFEST + 1), "larger than any may be"),
        (image(config=None), "config"),
        (image(config={"mediaType": 1, "digest": DIGEST}), "mediaType"),
        (image(layers={}), "layers"),
        (image(layers=["x"]), "no object"),
        (image(layers=[LAYER] * (MOST_LAYERS + 1)), "most"),
        (image(layers=[LAYER | {"digest": "sha256:../../etc/passwd"}]), "no digest"),
        (image(layers=[LAYER | {"digest": "sha256:" + "A" * 64}]), "no digest"),
        (image(layers=[LAYER | {"digest": DIGEST + "\n"}]), "no digest"),
        (image(layers=[LAYER | {"digest": None}]), "no digest"),
        (image(layers=[LAYER | {"size": -1}]), "no number of bytes"),
        (image(layers=[LAYER | {"size": 2**63}]), "no number of bytes"),
        (image(layers=[LAYER | {"size": True}]), "no number of bytes"),
        (image(layers=[LAYER | {"size": "1"}]), "no number of bytes"),
        (image(layers=[LAYER | {"urls": "https://example.com"}]), "urls"),
        (image(layers=[LAYER | {"urls": [1]}]), "urls"),
    ],
)
def test_hostile_manifest_is_refused_with_a_reason(
    manifest_bytes: str | bytes, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        parse_manifest(manifest_bytes, media_types.OCI_MANIFEST)


def test_unknown_media_type_is_refused() -> None:
    with pytest.raises(ManifestError, match="no media type of a manifest"):
        parse_manifest("{}", "text/html")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["config", "layers", "manifests", "fsLayers", "digest", "size", "mediaType", "urls"]
            )
            | st.text(max_size=3),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=FUZZ_EXAMPLES, deadline=None)
@given(document=JSON | st.text(), media_type=st.sampled_from(TYPES) | st.text(max_size=5))
def test_nothing_but_a_manifest_error_comes_out(document: Any, media_type: str) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    parse_or_refuse(text, media_type)


@settings(max_examples=FUZZ_EXAMPLES, deadline=None)
@given(data=st.data())
def test_mutated_examples_are_read_or_refused(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(EXPECTED)))
    content = bytearray(read(name).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 12)))
        content[start:end] = data.draw(st.binary(max_size=8))
    parse_or_refuse(bytes(content), EXPECTED[name][0])


def parse_or_refuse(content: str | bytes, media_type: str) -> None:
    try:
        manifest = parse_manifest(content, media_type)
    except ManifestError:
        return
    assert all(digest.startswith("sha256:") for digest in manifest.required_layer_digests)
