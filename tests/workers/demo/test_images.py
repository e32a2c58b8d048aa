"""The images of demo and tests are real, small and the same each time."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.demo.images import BlobSource, Image, ImageFormat, sha256_digest
from workers.demo.packages import apk_packages, dpkg_packages
from workers.demo.sampleimages import (
    HELM_CONFIG,
    alpine_image,
    debian_image,
    helm_chart,
    images_sharing_last_layer,
    multi_platform_image,
)

MAKERS: dict[str, Callable[[], Image]] = {
    "debian, docker": lambda: debian_image("library/web"),
    "debian, oci": lambda: debian_image("library/web", image_format=ImageFormat.OCI),
    "alpine": lambda: alpine_image("library/cache"),
    "index": lambda: multi_platform_image("library/multi"),
    "helm chart": lambda: helm_chart("charts/web"),
}


def files_of(layer: BlobSource) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer.read()))) as archive:
        members = [member for member in archive if member.isfile()]
        contents = [archive.extractfile(member) for member in members]
        return {
            member.name: file.read()
            for member, file in zip(members, contents, strict=True)
            if file is not None
        }


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_image_is_the_same_each_time(make: Callable[[], Image]) -> None:
    first, second = make(), make()

    assert first.digest == second.digest
    assert list(first.blobs) == list(second.blobs)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_every_descriptor_tells_the_truth(make: Callable[[], Image]) -> None:
    for part in make().manifests():
        manifest = json.loads(part.manifest)
        assert manifest["mediaType"] == part.media_type
        config = [manifest["config"]] if "config" in manifest else []
        for entry in manifest.get("layers", []) + config:
            content = part.blobs[entry["digest"]].read()
            assert (sha256_digest(content), len(content)) == (entry["digest"], entry["size"])
        for entry, child in zip(manifest.get("manifests", []), part.children, strict=True):
            assert (entry["digest"], entry["size"]) == (child.digest, len(child.manifest))


@pytest.mark.parametrize("image_format", ImageFormat)
def test_the_config_lists_the_unpacked_layers(image_format: ImageFormat) -> None:
    image = debian_image("library/web", image_format=image_format)
    assert image.config_digest is not None
    config = json.loads(image.blobs[image.config_digest].read())

    layers = [gzip.decompress(image.blobs[digest].read()) for digest in image.layer_digests]
    assert config["rootfs"]["diff_ids"] == [sha256_digest(layer) for layer in layers]
    assert config["architecture"] == "amd64"


def test_debian_packages_are_in_dpkg_status() -> None:
    image = debian_image("library/web")
    base, web, application = (files_of(image.blobs[digest]) for digest in image.layer_digests)

    names = [
        {package.name for package in dpkg_packages(f["var/lib/dpkg/status"])} for f in (base, web)
    ]
    assert {"adduser", "apt", "base-files", "bash", "libc6"} <= names[0]
    assert names[1] - names[0] == {"ca-certificates", "curl", "nginx", "openssl"}
    assert "var/lib/dpkg/status" not in application
    [bash] = [p for p in dpkg_packages(base["var/lib/dpkg/status"]) if p.name == "bash"]
    assert (bash.version, bash.source) == ("5.2.15-2+b2", "bash")


def test_alpine_packages_are_in_apk_installed() -> None:
    image = alpine_image("library/cache")
    installed = files_of(image.blobs[image.layer_digests[0]])["lib/apk/db/installed"]

    packages = {package.name: package for package in apk_packages(installed)}
    assert {"busybox", "musl", "libssl3"} <= set(packages)
    assert packages["libssl3"].source == "openssl"


def test_two_images_share_their_last_layer_and_nothing_else() -> None:
    first, second = images_sharing_last_layer("a/web", "b/web")

    assert set(first.blobs) & set(second.blobs) == {first.layer_digests[-1]}
    assert first.layer_digests[-1] == second.layer_digests[-1]


def test_an_index_has_a_child_for_each_architecture() -> None:
    index = multi_platform_image("library/multi")
    platforms = [entry["platform"] for entry in json.loads(index.manifest)["manifests"]]

    assert [platform["architecture"] for platform in platforms] == ["amd64", "arm64"]
    assert not set(index.children[0].layer_digests) & set(index.children[1].layer_digests)
    assert index.layer_digests == ()
    assert index.config_digest is None


def test_a_helm_chart_is_an_artifact_with_a_chart_in_it() -> None:
    chart = helm_chart("charts/web", tag="1.2.3")

    assert json.loads(chart.manifest)["config"]["mediaType"] == HELM_CONFIG
    files = files_of(chart.blobs[chart.layer_digests[0]])
    assert json.loads(files["web/Chart.yaml"])["version"] == "1.2.3"


def test_payload_sets_the_size_of_a_layer() -> None:
    image = debian_image("library/web", payload=300_000)

    for digest in image.layer_digests:
        assert 300_000 < image.blobs[digest].size < 330_000


def test_a_blob_may_be_a_stretch_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "archive"
    file.write_bytes(b"before" + b"x" * 600_000 + b"after")
    blob = BlobSource(digest="", size=600_000, source=file, offset=6)

    assert [len(piece) for piece in blob.pieces()] == [262_144, 262_144, 75_712]
    assert blob.read() == b"x" * 600_000
