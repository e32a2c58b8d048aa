"""A person's own image: which forms are read, and what is said of those that aren't."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workers.demo.imagesaving import docker_files, save_oci_archive, save_tar
from workers.demo.imagearchive import MAX_DOCUMENT, ImageUnreadable
from workers.demo.imagefiles import load_image
from workers.demo.images import OCI_PLAIN_LAYER, Image, sha256_digest
from workers.demo.ocilayout import blob_name, write_layout
from workers.demo.sampleimages import debian_image, helm_chart, multi_platform_image


@pytest.fixture(scope="module")
def image() -> Image:
    return debian_image("library/web", tag="1.0", payload=2000)


def assert_same(found: Image, expected: Image) -> None:
    assert (found.name, found.tag) == (expected.name, expected.tag)
    assert found.media_type == expected.media_type
    for part, wanted in zip(found.manifests(), expected.manifests(), strict=True):
        assert part.manifest == wanted.manifest
        assert {digest: blob.read() for digest, blob in part.blobs.items()} == {
            digest: blob.read() for digest, blob in wanted.blobs.items()
        }


@pytest.mark.parametrize(
    "make",
    [
        lambda: debian_image("library/web", tag="1.0", payload=2000),
        lambda: multi_platform_image("library/multi", payload=2000),
        lambda: helm_chart("charts/web"),
    ],
)
def test_layouts_and_archives_are_read(make: Callable[[], Image], tmp_path: Path) -> None:
    image = make()
    write_layout(image, tmp_path / "layout")

    assert_same(load_image(tmp_path / "layout"), image)
    assert_same(load_image(save_oci_archive(image, tmp_path / "image.tar")), image)


def test_blobs_stay_in_the_archive(image: Image, tmp_path: Path) -> None:
    archive = save_oci_archive(image, tmp_path / "image.tar")

    found = load_image(archive)

    assert {blob.source for blob in found.blobs.values()} == {archive}


def test_what_docker_saved_gets_a_manifest(image: Image, tmp_path: Path) -> None:
    files = docker_files(image, name="registry.example:5000/team/web:2.1")
    found = load_image(save_tar(files, tmp_path / "saved.tar"))

    manifest = json.loads(found.manifest)
    assert (found.name, found.tag) == ("team/web", "2.1")
    assert found.config_digest == image.config_digest
    assert [layer["mediaType"] for layer in manifest["layers"]] == [OCI_PLAIN_LAYER] * 3
    for digest, packed in zip(found.layer_digests, image.layer_digests, strict=True):
        assert found.blobs[digest].read() == gzip.decompress(image.blobs[packed].read())


def test_layers_that_docker_saved_once_and_linked_twice(image: Image, tmp_path: Path) -> None:
    files = docker_files(image)
    first = json.loads(files["manifest.json"])[0]["Layers"][0]
    moved = {("kept/layer.tar" if name == first else name): body for name, body in files.items()}

    found = load_image(save_tar(moved, tmp_path / "saved.tar", {first: "../kept/layer.tar"}))

    assert found.layer_digests[0] == sha256_digest(files[first])


def test_a_packed_archive_is_unpacked_where_it_is_told_to(image: Image, tmp_path: Path) -> None:
    plain = save_oci_archive(image, tmp_path / "image.tar")
    packed = tmp_path / "image.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    work = tmp_path / "work"
    work.mkdir()

    assert_same(load_image(packed, work_directory=work), image)
    with pytest.raises(ImageUnreadable, match="is compressed with gzip; unpack it first"):
        load_image(packed)


def test_platforms_that_were_not_saved_are_left_out(tmp_path: Path) -> None:
    index = multi_platform_image("library/multi", payload=2000)
    write_layout(index, tmp_path / "layout")
    (tmp_path / "layout" / blob_name(index.children[1].digest)).unlink()

    found = load_image(tmp_path / "layout")

    assert found.digest == index.digest
    assert [child.digest for child in found.children] == [index.children[0].digest]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ImageUnreadable, match="there is no such file or directory"):
        load_image(tmp_path / "missing.tar")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


CONFIG = b'{"rootfs": {"type": "layers", "diff_ids": ["sha256:abc"]}}'
NO_IMAGES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "text": (lambda d: write(d / "x", b"hello"), "is no tar archive, or a damaged one"),
    "empty": (lambda d: write(d / "x", b""), "is no tar archive, or a damaged one"),
    "bzip2": (lambda d: write(d / "x", bz2.compress(b"x")), "is compressed with bzip2; unpack"),
    "directory": (lambda d: d, "is no image: it has neither index.json"),
    "other tar": (lambda d: save_tar({"a": b"b"}, d / "x"), "is no image: it has neither index"),
    "garbage": (lambda d: save_tar({"index.json": b"{"}, d / "x"), "index.json: Invalid JSON"),
    "deep": (lambda d: save_tar({"index.json": b"[" * 99999}, d / "x"), "index.json: Invalid"),
    "path digest": (
        lambda d: save_tar({"index.json": index_of("sha256:../../../etc/passwd")}, d / "x"),
        "index.json: manifests.0.digest String should match pattern",
    ),
    "missing manifest": (
        lambda d: save_tar({"index.json": index_of(f"sha256:{'0' * 64}")}, d / "x"),
        "its manifest sha256:0000.* isn't in it",
    ),
    "no images": (
        lambda d: save_tar({"index.json": b'{"manifests": []}'}, d / "x"),
        r"holds 0 images \(\); save just one",
    ),
    "large index": (
        lambda d: save_tar({"index.json": b" " * (MAX_DOCUMENT + 1)}, d / "x"),
        "index.json has 4194305 bytes, over 4194304",
    ),
    "path in a tar": (
        lambda d: save_tar({"../../etc/passwd": b"x"}, d / "x"),
        "'../../etc/passwd' is a path that leads out of it",
    ),
    "absolute path": (
        lambda d: save_tar({"/etc/passwd": b"x"}, d / "x"),
        "'/etc/passwd' is a path that leads out of it",
    ),
    "link out of a tar": (
        lambda d: save_tar({}, d / "x", {"index.json": "../../etc/passwd"}),
        "a path that leads out of it",
    ),
    "circle of links": (
        lambda d: save_tar({}, d / "x", {"index.json": "other", "other": "index.json"}),
        "is no image: it has neither index.json",
    ),
    "docker, missing layer": (
        lambda d: save_tar({"manifest.json": saved("a.json", "b/layer.tar")}, d / "x"),
        "manifest.json names a.json, which isn't in it",
    ),
    "docker, path": (
        lambda d: save_tar({"manifest.json": saved("../../etc/passwd", "b")}, d / "x"),
        "'../../etc/passwd' is a path that leads out of it",
    ),
    "docker, no layers": (
        lambda d: save_tar({"manifest.json": saved("a.json")}, d / "x"),
        "manifest.json: 0.Layers Tuple should have at least 1 item",
    ),
    "docker, other layers": (
        lambda d: save_tar({"manifest.json": saved("c", "l"), "c": CONFIG, "l": b"x"}, d / "x"),
        "l is damaged: it should be sha256:abc",
    ),
    "docker, more layers": (
        lambda d: save_tar({"manifest.json": saved("c", "l", "l"), "c": CONFIG, "l": b""}, d / "x"),
        "manifest.json has 2 layers, the config 1",
    ),
    "docker, two images": (
        lambda d: save_tar({"manifest.json": two_images()}, d / "x"),
        r"holds 2 images \(a:1, b:2\); save just one",
    ),
}


def index_of(digest: str) -> bytes:
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 2}
    return json.dumps({"manifests": [entry]}).encode()


def saved(config: str, *layers: str) -> bytes:
    return json.dumps([{"Config": config, "RepoTags": None, "Layers": layers}]).encode()


def two_images() -> bytes:
    entries = [{"Config": "c", "RepoTags": [tag], "Layers": ["l"]} for tag in ("a:1", "b:2")]
    return json.dumps(entries).encode()


@pytest.mark.parametrize(("make", "message"), NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_image_is_told_apart(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    path = make(tmp_path)

    with pytest.raises(ImageUnreadable, match=message) as unreadable:
        load_image(path)
    assert str(path) in str(unreadable.value)


def test_a_damaged_blob_is_named(image: Image, tmp_path: Path) -> None:
    write_layout(image, tmp_path / "layout")
    name = blob_name(image.layer_digests[1])
    (tmp_path / "layout" / name).write_bytes(b"other")

    with pytest.raises(ImageUnreadable, match=f"{name} is damaged: its digest is sha256:"):
        load_image(tmp_path / "layout")


def test_a_missing_blob_is_named(image: Image, tmp_path: Path) -> None:
    write_layout(image, tmp_path / "layout")
    (tmp_path / "layout" / blob_name(image.layer_digests[1])).unlink()

    with pytest.raises(ImageUnreadable, match=f"its blob {image.layer_digests[1]} isn't in it"):
        load_image(tmp_path / "layout")


def test_a_link_out_of_a_directory_is_refused(image: Image, tmp_path: Path) -> None:
    write_layout(image, tmp_path / "layout")
    name = blob_name(image.layer_digests[0])
    shutil.move(tmp_path / "layout" / name, tmp_path / "outside")
    (tmp_path / "layout" / name).symlink_to(tmp_path / "outside")

    with pytest.raises(ImageUnreadable, match=f"{name} is a link that leads out of it"):
        load_image(tmp_path / "layout")


def test_a_cut_off_archive_is_damaged(image: Image, tmp_path: Path) -> None:
    archive = save_oci_archive(image, tmp_path / "image.tar")
    archive.write_bytes(archive.read_bytes()[:3000])

    with pytest.raises(ImageUnreadable, match="is no tar archive, or a damaged one"):
        load_image(archive)


def test_a_cut_off_packed_archive_is_damaged(image: Image, tmp_path: Path) -> None:
    plain = save_oci_archive(image, tmp_path / "image.tar")
    packed = write(tmp_path / "image.tgz", gzip.compress(plain.read_bytes())[:2000])

    with pytest.raises(ImageUnreadable, match="can't be unpacked"):
        load_image(packed, work_directory=tmp_path)
    assert not (tmp_path / "image.tgz.tar").exists()


def test_devices_are_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("console")
    entry.type = tarfile.CHRTYPE
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry)

    with pytest.raises(ImageUnreadable, match="console is neither a file, a link nor a directory"):
        load_image(write(tmp_path / "x", buffer.getvalue()))
