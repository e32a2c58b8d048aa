"""The examples, and what each is."""

from __future__ import annotations

from pathlib import Path

from data.manifests import Manifest, Unscannable, media_types, parse_manifest

EXAMPLES = Path(__file__).parent / "examples"
EMPTY_LAYER = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"

# name -> (media type, layers, layers that must be placed, children, why it can't be scanned).
EXPECTED: dict[str, tuple[str, int, int, int, Unscannable | None]] = {
    # Images.
    "docker_schema1_signed": (media_types.DOCKER_SCHEMA1_SIGNED, 3, 3, 0, None),
    "docker_schema2": (media_types.DOCKER_SCHEMA2, 1, 1, 0, None),
    "docker_schema2_windows_foreign": (media_types.DOCKER_SCHEMA2, 4, 2, 0, None),
    "docker_schema2_same_layer_twice": (media_types.DOCKER_SCHEMA2, 4, 3, 0, None),
    "docker_schema2_empty_layers": (media_types.DOCKER_SCHEMA2, 3, 2, 0, None),
    "oci_gzip": (media_types.OCI_MANIFEST, 2, 2, 0, None),
    "oci_zstd": (media_types.OCI_MANIFEST, 2, 2, 0, None),
    "oci_nondistributable": (media_types.OCI_MANIFEST, 4, 2, 0, None),
    # Quay goes by the layers, so neither a config of Docker's nor a WASM module that comes as a
    # file in an image makes a difference.
    "oci_docker_parts": (media_types.OCI_MANIFEST, 1, 1, 0, None),
    "wasm_in_an_image": (media_types.OCI_MANIFEST, 1, 1, 0, None),
    # Images that Quay doesn't scan: no layers, and a compression that it knows of OCI only.
    "docker_schema2_no_layers": (
        media_types.DOCKER_SCHEMA2, 0, 0, 0, Unscannable.NO_LAYERS
    ),
    "docker_schema2_zstd": (
        media_types.DOCKER_SCHEMA2, 2, 2, 0, Unscannable.OTHER_LAYERS
    ),
    # Lists.
    "oci_index_with_attestations": (
        media_types.OCI_INDEX, 0, 0, 4, Unscannable.MANIFEST_LIST
    ),
    "docker_list": (media_types.DOCKER_LIST, 0, 0, 2, Unscannable.MANIFEST_LIST),
    # Artifacts. The signature, the attestations and cosign's SBOM borrow the config of an image;
    # buildkit's newer attestation has the empty one. What `oras` makes of a directory has the
    # layers of an image.
    "docker_plugin": (media_types.DOCKER_SCHEMA2, 1, 1, 0, Unscannable.OTHER_CONFIG),
    "helm_chart": (media_types.OCI_MANIFEST, 2, 2, 0, Unscannable.OTHER_LAYERS),
    "wasm": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.OTHER_LAYERS),
    "cosign_signature": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.OTHER_LAYERS),
    "cosign_attestation": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.OTHER_LAYERS),
    "attestation_in_toto": (media_types.OCI_MANIFEST, 2, 2, 0, Unscannable.OTHER_LAYERS),
    "attestation_in_toto_artifact": (
        media_types.OCI_MANIFEST, 2, 2, 0, Unscannable.EMPTY_CONFIG
    ),
    "sbom_cosign": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.OTHER_LAYERS),
    "sbom_spdx": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.EMPTY_CONFIG),
    "oci_artifact_empty_config": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.EMPTY_CONFIG),
    "oras_directory": (media_types.OCI_MANIFEST, 1, 1, 0, Unscannable.EMPTY_CONFIG),
}  # fmt: skip

# name -> the digest that a registry gave the bytes, by where they come from: none by hand.
DIGESTS: dict[str, str] = {
    # Public images, as their registry gave them out (the second is an old hello-world).
    "docker_schema1_signed": "be9c8f10d7c22fb9906e0dc5ea6788eeedee3d1d982798fc7d9f58cda830419f",
    "docker_schema2": "92c7f9c92844bbbb5d0a101b22f7c2a7949e40f8ea90c8b3bc396879d95e899a",
    # The plugin vieux/sshfs, as its registry gives it out. Taken from a pull request that shows it
    # (go-containerregistry's 1531); its digest is the one that `docker plugin install` prints.
    "docker_plugin": "1d3c3e42c12138da5ef7873b97f7f32cf99fb6edde75fa4f0bcf9ed277855811",
    # Microsoft's dotnet/framework/runtime:4.8 for Windows Server 2022, made by Docker 20.10 in
    # January 2022. Taken from a public repository's tests, which show it and, in that tag's list,
    # its digest. Its foreign layers can't but name the host that has them.
    "docker_schema2_windows_foreign":
        "5ec4722ef299457d69a7186d3da503a947584aa1a5bfc0bfc021fe115dc2a76b",
    # Pushed by crane 0.22 (the one with Docker's parts by its `flatten`, from an OCI image).
    "docker_list": "2949b0dcf3a09fc325b94ac1707112f82bfaf72e3777fc23e37b2a9b68e6df89",
    "docker_schema2_empty_layers":
        "c93d57815e0eb834bbd41073f95ffc0bdfc88c402f306e83b8d0861bed862d57",
    "docker_schema2_same_layer_twice":
        "14a97f35ff20be2e2e1e1b74db9fbcb41d7dbc2e3a06990a3a9c8d8064b67e0d",
    "oci_docker_parts": "4d37ef5c9779b7f9ee233c1cc290797a1b1fa97af6cb15a8998baaaabec84e4c",
    "oci_gzip": "483f2c0e97a0bafc4f979ebab467ff3a2407730bba64a323cf5f95c92d318199",
    "oci_zstd": "851ee40baefbb7d5bd705dd3e2a955852cdab6bdf6c53a59f1e2410727e7c642",
    # Pushed by buildkit 0.34: an image for two platforms, each with its provenance and an SBOM
    # (whose scanner was a stand-in). The attestation of the first one, and the same as buildkit
    # made it before it made artifacts (`oci-artifact=false`). The image for one platform, in the
    # format of Docker (`oci-mediatypes=false,compression=zstd`).
    "attestation_in_toto": "4c196bf4456116809d3ff61cbf951c03abe9ec1b858b07dc8d95b664910aaac3",
    "attestation_in_toto_artifact":
        "920e45622e4ad271b18ac6b064342dcce277d723fcc79cd87135bf44354e6dc8",
    "docker_schema2_zstd": "a745785d7cdfc17b7cf227b389bfb2a88ed78d7a5301fe192f45eb42a178360c",
    "oci_index_with_attestations":
        "40b88dacd944d59a9ae74f0a45e2605ca006a33834c0a7959d81f05ba631f4e3",
    # Pushed by regctl 0.11, which made it of the Windows image above (`image mod --to-oci`).
    "oci_nondistributable": "47d7cf412a93b68fe30d27e8bbfe6e0e084ada00d1882fc29a5bc228302ba1aa",
    # Pushed by buildah 1.28: of a label and no file (`--format docker --layers`), and of a WASM
    # module alone, annotated as the `compat` variant.
    "docker_schema2_no_layers": "ccd0c6f6cf1e6f6dcc5256b7e7b8591770e40c4da4ed98d9a6aec8d889b10b9d",
    "wasm_in_an_image": "3f81579f32492e7b38137db39453a6fa09d47e6ba5998c086c0b9a8a0d63a79c",
    # Pushed by helm 3.22, with its provenance.
    "helm_chart": "8f7d48b2012225f28d8756c7aba6ff77b0f47b1bc1531d1ad20056df6b1c9f35",
    # Pushed by cosign 2.
    "cosign_attestation": "aaf0c8ad53389edad65a0009c363fe0cdc27c78d8014a6229020aa095e76b615",
    "cosign_signature": "779037bb2e165e11d646f875325e0bb5434506bc6ee9eef6058f9337fd4b4512",
    "sbom_cosign": "7a53bcea7b92ec74619a92e8f783f4b5d04941d4d74769ca0810927bd048ab25",
    # Pushed by oras 1.3.
    "oci_artifact_empty_config": "e7f9a3c0f6d4a4a2903c3c134699ac98001585cf9da81e3d581a9b881419af76",
    "oras_directory": "6f46b44b2231801728f125683e315ee056f69e414a93ea0521a51cdc9c6a51e4",
    "sbom_spdx": "8a0d13c2708b8b903c9fc18e3ab81bc6e0788171d310ee4d9debeb34302b891d",
    "wasm": "ca5c1bd8c4363c83179d7efcc27a3395b11f3af82f9935712dfb1091a706bfea",
}  # fmt: skip


def read(name: str) -> str:
    return (EXAMPLES / f"{name}.json").read_text()


def parse(name: str) -> Manifest:
    return parse_manifest(read(name), EXPECTED[name][0])
