from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

import pytest

from tests.layerfiles import APK, DPKG, tar
from workers.demo import packages
from workers.demo.packages import (
    DatabaseTooLarge,
    LayerContents,
    Package,
    apk_packages,
    dpkg_packages,
    installed_packages,
    read_contents,
)

STATUS = "var/lib/dpkg/status"
INSTALLED = "lib/apk/db/installed"
BASH = b"Package: bash\nStatus: install ok installed\nVersion: 6\n"


def layer(
    name: str, files: Mapping[str, bytes | None], links: Mapping[str, str] | None = None
) -> LayerContents:
    with tarfile.open(fileobj=io.BytesIO(tar(files, links)), mode="r|") as archive:
        return read_contents(name, archive)


def names(*layers: LayerContents) -> dict[str, str]:
    found = installed_packages(layers)
    return {f"{package.name} {package.version}": brought for package, brought in found.items()}


def test_dpkg_status_tells_the_installed_packages() -> None:
    assert dpkg_packages(DPKG) == [
        Package(
            name="libc6",
            version="2.36-9+deb12u7",
            architecture="amd64",
            source="glibc",
            database=STATUS,
        ),
        Package(
            name="bash", version="5.2.15-2+b7", architecture="amd64", source="", database=STATUS
        ),
    ]


def test_dpkg_source_is_the_name_without_its_version() -> None:
    status = b"Package: a\nStatus: install ok installed\nVersion: 1\nSource: b (2)\n"
    assert [package.source for package in dpkg_packages(status)] == ["b"]


def test_apk_installed_tells_the_packages() -> None:
    assert apk_packages(APK) == [
        Package(
            name="musl",
            version="1.2.5-r0",
            architecture="x86_64",
            source="musl",
            database=INSTALLED,
        ),
        Package(
            name="busybox",
            version="1.36.1-r29",
            architecture="x86_64",
            source="busybox",
            database=INSTALLED,
        ),
    ]


@pytest.mark.parametrize("content", [b"", b"\n\n\n", b"\xff\xfe\x00", b": x\nno colon\n", b" x\n"])
def test_what_is_no_database_holds_no_packages(content: bytes) -> None:
    assert dpkg_packages(content) == []
    assert apk_packages(content) == []


@pytest.mark.parametrize("name", [STATUS, f"./{STATUS}", f"/{STATUS}", f"a/../{STATUS}"])
def test_database_is_found_however_its_path_is_written(name: str) -> None:
    assert set(names(layer("base", {name: DPKG}))) == {"libc6 2.36-9+deb12u7", "bash 5.2.15-2+b7"}


def test_both_databases_are_read() -> None:
    assert len(names(layer("base", {STATUS: DPKG}), layer("top", {INSTALLED: APK}))) == 4


def test_upper_layer_replaces_the_database_and_brings_in_only_what_is_new() -> None:
    upgraded = DPKG.replace(b"5.2.15-2+b7", b"5.3")
    layers = [layer("base", {STATUS: DPKG}), layer("middle", {"x": b""})]
    assert names(*layers, layer("top", {STATUS: upgraded})) == {
        "libc6 2.36-9+deb12u7": "base",
        "bash 5.3": "top",
    }


@pytest.mark.parametrize(
    "whiteout",
    [
        "var/lib/dpkg/.wh.status",
        "var/lib/.wh.dpkg",
        "./.wh.var",
        "var/lib/dpkg/.wh..wh..opq",
        "var/.wh..wh..opq",
        ".wh..wh..opq",
    ],
)
def test_whiteout_takes_the_layers_beneath_away(whiteout: str) -> None:
    base = layer("base", {STATUS: DPKG, INSTALLED: APK})
    left = names(base, layer("top", {whiteout: b""}))
    assert "bash 5.2.15-2+b7" not in left
    assert ("musl 1.2.5-r0" in left) == (whiteout != ".wh..wh..opq")


def test_whiteout_leaves_its_own_layer_alone() -> None:
    top = layer("top", {STATUS: BASH, "var/lib/dpkg/.wh..wh..opq": b""})
    assert names(layer("base", {STATUS: DPKG}), top) == {"bash 6": "top"}


def test_whiteout_of_something_else_takes_nothing_away() -> None:
    top = layer("top", {"var/lib/dpkg/.wh.status-old": b"", "var/lib/.wh.dpkg2": b""})
    assert len(names(layer("base", {STATUS: DPKG}), top)) == 2


def test_link_in_place_of_a_directory_takes_what_was_below_away() -> None:
    top = layer("top", {}, links={"var/lib": "/elsewhere"})
    assert names(layer("base", {STATUS: DPKG}), top) == {}


def test_directory_over_a_directory_takes_nothing_away() -> None:
    top = layer("top", {"var": None, "var/lib": None, "var/lib/dpkg": None})
    assert len(names(layer("base", {STATUS: DPKG}), top)) == 2


def test_database_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "DATABASE_LIMIT", len(DPKG) - 1)
    with pytest.raises(DatabaseTooLarge):
        layer("base", {STATUS: DPKG})
