from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from tests.layerfiles import DPKG, gzipped, tar, zstandard_packed
from workers.demo.layerarchive import (
    Compression,
    LayerUnreadable,
    NotATar,
    compression_of,
    layer_contents,
)

STATUS = "var/lib/dpkg/status"
ARCHIVE = tar({STATUS: DPKG})
PACKED = {
    Compression.GZIP: gzipped(ARCHIVE),
    Compression.ZSTD: zstandard_packed(ARCHIVE),
    Compression.NONE: ARCHIVE,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "layer"


@pytest.mark.parametrize("compression", Compression)
def test_every_packing_is_read(path: Path, compression: Compression) -> None:
    path.write_bytes(PACKED[compression])
    assert compression_of(path) is compression
    contents = layer_contents("sha256:x", path)
    assert contents.databases == {STATUS: DPKG}
    assert contents.digest == "sha256:x"


@pytest.mark.parametrize(
    "content",
    [b"", bytes(1024), gzipped(b""), gzipped(bytes(1024)), zstandard_packed(bytes(1024))],
    ids=["nothing", "plain", "gzip of nothing", "gzip", "zstd"],
)
def test_empty_layer_holds_nothing(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert layer_contents("x", path).databases == {}


def test_layer_of_several_gzip_members_is_read_to_its_end(path: Path) -> None:
    path.write_bytes(gzipped(ARCHIVE[:700]) + gzipped(ARCHIVE[700:]))
    assert layer_contents("x", path).databases == {STATUS: DPKG}


def test_layer_of_several_zstd_frames_is_read_to_its_end(path: Path) -> None:
    path.write_bytes(zstandard_packed(ARCHIVE[:700]) + zstandard_packed(ARCHIVE[700:]))
    assert layer_contents("x", path).databases == {STATUS: DPKG}


@pytest.mark.parametrize(
    "content",
    [b"{}", b"\x7fELF" + bytes(2000), gzipped(b"x" * 2000), ARCHIVE[:600]],
    ids=["json", "program", "gzip of something", "cut off"],
)
def test_what_is_no_tar_is_told(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(NotATar, match="layer sha256:x is no tar archive"):
        layer_contents("sha256:x", path)


@pytest.mark.parametrize(
    "content",
    [
        gzipped(ARCHIVE)[:-4],
        gzipped(ARCHIVE)[:-8] + bytes(8),
        b"\x1f\x8b" + b"x" * 100,
        b"\x28\xb5\x2f\xfd" + b"\xff" * 100,
    ],
    ids=["cut off", "wrong checksum", "no gzip after all", "no zstd after all"],
)
def test_what_cannot_be_unpacked_is_told(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LayerUnreadable):
        layer_contents("x", path)


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_layer_made_to_explode_is_stopped_and_takes_no_memory(
    path: Path, compression: Compression
) -> None:
    huge = tar({"zeros": bytes(64 * 1024 * 1024)})
    path.write_bytes(
        gzip.compress(huge, 1) if compression is Compression.GZIP else zstandard_packed(huge)
    )
    del huge
    tracemalloc.start()
    try:
        with pytest.raises(LayerUnreadable, match="unpacks to more than 33554432 bytes"):
            layer_contents("x", path, limit=32 * 1024 * 1024)
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()
