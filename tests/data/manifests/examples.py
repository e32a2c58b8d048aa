"""The examples, and what each is."""

from __future__ import annotations

from pathlib import Path

from data.manifests import Manifest, Unscannable, media_types, parse_manifest

EXAMPLES = Path(__file__).parent / "examples"
EMPTY_LAYER = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"

# name -> (media type, layers, layers that must be placed, children, why it can't be scanned).
# Where the bytes come from, as a registry gave them out:
#   docker_schema1_signed, docker_schema2   public images (the second is an old hello-world)
#   docker_list, docker_schema2_empty_layers, docker_schema2_same_layer_twice, oci_gzip, oci_zstd
#                                           pushed by crane 0.22
#   helm_chart (with its provenance)        pushed by helm 3.22
#   cosign_attestation, cosign_signature, sbom_cosign
#                                           pushed by cosign 2
#   oci_artifact_empty_config, oras_directory, sbom_spdx, wasm
#                                           pushed by oras 1.3
# The others are written by hand to the shape that the tools named in them give theirs.
EXPECTED: dict[str, tuple[str, int, int, int, Unscannable | None]] = {
    # Images.
    "docker_schema1_signed": (media_types.DOCKER_SCHEMA1_SIGNED, 3, 3, 0, None),
    "docker_schema2": (media_types.DOCKER_SCHEMA2, 1, 1, 0, None),
    "docker_schema2_windows_foreign": (media_types.DOCKER_SCHEMA2, 3, 1, 0, None),
    "docker_schema2_same_layer_twice": (media_types.DOCKER_SCHEMA2, 4, 3, 0, None),
    "docker_schema2_empty_layers": (media_types.DOCKER_SCHEMA2, 3, 2, 0, None),
    "oci_gzip": (media_types.OCI_MANIFEST, 2, 2, 0, None),
    "oci_zstd": (media_types.OCI_MANIFEST, 2, 2, 0, None),
    "oci_nondistributable": (media_types.OCI_MANIFEST, 3, 2, 0, None),
    # Quay goes by the layers, so neither a config of Docker's nor a WASM module that comes as a
    # file in an image makes a difference.
    "oci_docker_parts": (media_types.OCI_MANIFEST, 1, 1, 0, None),
    "wasm_in_an_image": (media_types.OCI_MANIFEST, 1, 1, 0, None),
    # Images that Quay doesn't scan: no layers, and a compression that it knows of OCI only.
    "docker_schema2_no_layers": (
        media_types.DOCKER_SCHEMA2, 0, 0, 0, Unscannable.NO_LAYERS
    ),
    "docker_schema2_zstd": (
        media_types.DOCKER_SCHEMA2, 1, 1, 0, Unscannable.OTHER_LAYERS
    ),
    # Lists.
    "oci_index_with_attestations": (
        media_types.OCI_INDEX, 0, 0, 3, Unscannable.MANIFEST_LIST
    ),
    "docker_list": (media_types.DOCKER_LIST, 0, 0, 2, Unscannable.MANIFEST_LIST),
    # Artifacts. The signature, the attestation and cosign's SBOM borrow the config of an image;
    # what `oras` makes of a directory has the layers of one.
    "docker_plugin": (media_types.DOCKER_SCHEMA2, 1, 1, 0, Unscannable.OTHER_CONFIG),
    "helm_chart": (media_types.OCI_MANIFEST, 2, 2, 0, Unscannable.OTHER_LAYERS),
    "wasm": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.OTHER_LAYERS),
    "cosign_signature": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.OTHER_LAYERS),
    "cosign_attestation": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.OTHER_LAYERS),
    "attestation_in_toto": (media_types.OCI_MANIFEST, 2, 2, 0, Unscannable.OTHER_LAYERS),
    "sbom_cosign": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.OTHER_LAYERS),
    "sbom_spdx": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.EMPTY_CONFIG),
    "oci_artifact_empty_config": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.EMPTY_CONFIG),
    "oras_directory": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.EMPTY_CONFIG),
}  # fmt: skip


def read(name: str) -> str:
    return (EXAMPLES / f"{name}.json").read_text()


def parse(name: str) -> Manifest:
    return parse_manifest(read(name), EXPECTED[name][0])
