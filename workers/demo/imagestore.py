"""What the upstream stand-in serves: repositories with tags, manifests and blobs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from workers.demo.images import BlobSource, Image


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredManifest:
    """A manifest as it is served."""

    digest: str
    media_type: str
    content: bytes


@dataclass(slots=True)
class _Repository:
    tags: dict[str, str] = field(default_factory=dict)  # to digests
    manifests: dict[str, StoredManifest] = field(default_factory=dict)
    blobs: dict[str, BlobSource] = field(default_factory=dict)


class ImageStore:
    """Images by repository; blobs are found only through a repository that has them."""

    def __init__(self, *images: Image) -> None:
        self._repositories: dict[str, _Repository] = {}
        self._lock = threading.Lock()
        for image in images:
            self.add(image)

    def add(self, image: Image, *, repository: str | None = None) -> None:
        """Puts the image, with its children, in the repository of its name or in another."""
        with self._lock:
            stored = self._repositories.setdefault(repository or image.name, _Repository())
            for part in image.manifests():
                stored.manifests[part.digest] = StoredManifest(
                    digest=part.digest, media_type=part.media_type, content=part.manifest
                )
                stored.blobs.update(part.blobs)
            stored.tags[image.tag] = image.digest

    def manifest(self, repository: str, reference: str) -> StoredManifest | None:
        """The manifest that a tag or a digest names."""
        with self._lock:
            stored = self._repositories.get(repository, _Repository())
            return stored.manifests.get(stored.tags.get(reference, reference))

    def blob(self, repository: str, digest: str) -> BlobSource | None:
        with self._lock:
            return self._repositories.get(repository, _Repository()).blobs.get(digest)

    def remove_blob(self, repository: str, digest: str) -> None:
        """Takes a blob away, as a registry that lost it."""
        with self._lock:
            self._repositories[repository].blobs.pop(digest, None)
