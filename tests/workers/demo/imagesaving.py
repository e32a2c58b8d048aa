"""Saves images as a person's tools would: OCI archives, and the old form of docker save."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from workers.demo.images import Image, sha256_digest
from workers.demo.ocilayout import write_layout


def save_oci_archive(image: Image, archive: Path) -> Path:
    layout = archive.with_suffix(".layout")
    write_layout(image, layout)
    with tarfile.open(archive, "w") as file:
        for path in sorted(layout.rglob("*")):
            file.add(path, f"./{path.relative_to(layout)}", recursive=False)
    return archive


def docker_files(image: Image, *, name: str = "web:1.0") -> dict[str, bytes]:
    """The files of an image as docker 24 and older save it, the layers unpacked."""
    assert image.config_digest is not None
    layers = {}
    for digest in image.layer_digests:
        content = gzip.decompress(image.blobs[digest].read())
        layers[f"{sha256_digest(content)[7:]}/layer.tar"] = content
    config = f"{image.config_digest[7:]}.json"
    saved = [{"Config": config, "RepoTags": [name], "Layers": list(layers)}]
    return {
        **layers,
        config: image.blobs[image.config_digest].read(),
        "manifest.json": json.dumps(saved).encode(),
        "repositories": b"{}",
    }


def save_tar(
    files: Mapping[str, bytes], archive: Path, links: Mapping[str, str] | None = None
) -> Path:
    """A tar archive of these files, and of symbolic links by their targets."""
    with tarfile.open(archive, "w") as file:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            file.addfile(entry)
    return archive
