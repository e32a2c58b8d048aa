"""Loads an image that a person has: an OCI layout, an OCI archive, or what `docker save` wrote."""

from __future__ import annotations

from pathlib import Path

from workers.demo.dockerarchive import read_docker_archive
from workers.demo.imagearchive import ImageUnreadable, open_tree
from workers.demo.images import Image
from workers.demo.ocilayout import read_layout


def load_image(path: Path, *, work_directory: Path | None = None) -> Image:
    """The one image at `path`: a directory with an OCI layout, or a tar archive of one.

    Archives of `docker save` may be of its old kind too. The blobs stay where they are, so `path`
    must stay as well; an archive packed with gzip is unpacked into `work_directory`.

    Raises `ImageUnreadable`, whose message says what is wrong with it.
    """
    try:
        tree = open_tree(path, work_directory)
        image = read_layout(tree) or read_docker_archive(tree)
    except OSError as error:
        raise ImageUnreadable(f"{path} can't be read: {error.strerror or error}") from error
    if image is None:
        raise ImageUnreadable(
            f"{path} is no image: it has neither index.json (an OCI layout) nor manifest.json "
            "(docker save)"
        )
    return image
