"""The pulls that the demo plays, each first as Quay leaves it, then through the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from data.manifests import parse_manifest
from data.proxycache import create_repository, load_proxied_repository, pull_manifest
from data.secscan.status import IndexStatus
from data.upstream import UpstreamClient
from queues.blobwork import BlobWork, put_blob_work
from queues.workqueue import WorkQueue
from workers.demo.environment import Environment
from workers.demo.images import Image
from workers.demo.quaydatabase import (
    registry_places_blob,
    security_worker_passes,
    status_of,
)
from workers.demo.sampleimages import (
    alpine_image,
    debian_image,
    helm_chart,
    images_sharing_last_layer,
    multi_platform_image,
)

BLOB_QUEUE = WorkQueue("proxycacheblob")
COMPLETED = int(IndexStatus.COMPLETED)
ATTESTATION_PLATFORM = "unknown/unknown"
UNSUPPORTED = int(IndexStatus.MANIFEST_UNSUPPORTED)


@dataclass(slots=True, kw_only=True)
class Pulled:
    """A manifest as a pull wrote it. `placed_ns` is filled as its layers are placed."""

    name: str
    digest: str
    manifest_id: int
    repository_id: int
    layers: tuple[str, ...]
    before: int | None
    expected: int
    placed_ns: dict[str, int] = field(default_factory=dict)


Play = Callable[[Environment], list[Pulled]]


def play_all(environment: Environment, own_image: Image | None) -> list[Pulled]:
    """Plays every pull up to where Quay leaves it: each manifest at -2, nothing on its way yet.

    Quay's security worker comes by after the client has the manifest and before it has a blob.
    """
    plays: Sequence[Play] = [
        manifest_only_client,
        ordinary_client,
        shared_last_layer,
        manifest_list,
        chart,
    ]
    pulled: list[Pulled] = []
    for play in plays:
        environment.interruption.check()
        pulled += play(environment)
    if own_image is not None:
        pulled += own_pull(environment, own_image)
    return pulled


def manifest_only_client(environment: Environment) -> list[Pulled]:
    """A cluster, a mirror or a policy check: fetches the manifest and not one blob."""
    image = debian_image("library/web")
    return [pull(environment, "proxy", image, "manifest-only client")]


def ordinary_client(environment: Environment) -> list[Pulled]:
    """The registry places every blob for the client before the blob worker gets to its items."""
    image = alpine_image("library/tool")
    pulled = pull(environment, "proxy", image, "ordinary client")
    for digest, blob in image.blobs.items():
        registry_places_blob(environment.storage.preferred, pulled.repository_id, digest, blob)
        pulled.placed_ns[digest] = time.time_ns()
    return [pulled]


def shared_last_layer(environment: Environment) -> list[Pulled]:
    """Two organisations share the last layer; the second's manifest has no item of its own left."""
    first, second = images_sharing_last_layer("team/one", "team/two")
    mine = pull(environment, "proxy", first, "shared layer, first")
    theirs = pull(environment, "mirror", second, "shared layer, second", queue_layers=False)
    for digest in set(second.blobs) - {first.layer_digests[-1]}:
        store = environment.storage.preferred
        registry_places_blob(store, theirs.repository_id, digest, second.blobs[digest])
        theirs.placed_ns[digest] = time.time_ns()
    return [mine, theirs]


def manifest_list(environment: Environment) -> list[Pulled]:
    """A list stays unsupported, for it has no layers; its children are images like any other."""
    image = multi_platform_image("library/multi")
    pulled = [pull(environment, "proxy", image, "manifest list", expected=UNSUPPORTED)]
    for number, child in enumerate(image.children, 1):
        name = f"child {number} of the list"
        pulled.append(pull(environment, "proxy", child, name, reference=child.digest))
    return pulled


def chart(environment: Environment) -> list[Pulled]:
    """A Helm chart is no image, so it must stay unsupported though all its blobs are there."""
    return [
        pull(environment, "proxy", helm_chart("charts/app"), "Helm chart", expected=UNSUPPORTED)
    ]


def own_pull(environment: Environment, image: Image) -> list[Pulled]:
    """The image that the user named; of a list, the children too."""
    pulled = [pull(environment, "proxy", image, "your image", expected=expected_of(image))]
    for number, child in enumerate(children_to_pull(image), 1):
        name, expected = f"your image, child {number}", expected_of(child)
        pulled.append(
            pull(environment, "proxy", child, name, reference=child.digest, expected=expected)
        )
    return pulled


def expected_of(image: Image) -> int:
    unscannable = parse_manifest(image.manifest, image.media_type).unscannable
    return COMPLETED if unscannable is None else UNSUPPORTED


def children_to_pull(image: Image) -> list[Image]:
    """All below the image but attestations, which builders add to an index: no client pulls one."""
    parsed = (parse_manifest(each.manifest, each.media_type) for each in image.manifests())
    attestations = {
        child.digest
        for each in parsed
        for child in each.children
        if child.platform == ATTESTATION_PLATFORM
    }
    children = {child.digest: child for child in image.manifests() if child is not image}
    return [child for digest, child in children.items() if digest not in attestations]


def pull(
    environment: Environment,
    organization: str,
    image: Image,
    name: str,
    *,
    reference: str | None = None,
    expected: int = COMPLETED,
    queue_layers: bool = True,
) -> Pulled:
    """What Quay writes when a client asks for the image through the proxy."""
    environment.upstream.store.add(image)
    repository_id = create_repository(organization, image.name)
    repository = load_proxied_repository(repository_id, None)
    assert repository is not None
    client = UpstreamClient(repository.upstream, allowed_hosts=frozenset({"127.0.0.1"}))
    try:
        pulled = pull_manifest(repository, reference or image.tag, client)
    finally:
        client.close()
    for digest in pulled.layer_digests if queue_layers else ():
        work = BlobWork(digest=digest, repository_id=repository_id, namespace=organization)
        # Quay's 5 s, and more: the demo lets go of them all at once when it is ready.
        put_blob_work(BLOB_QUEUE, work, available_after=3600)
    security_worker_passes(pulled.manifest_id)
    return Pulled(
        name=name,
        digest=pulled.digest,
        manifest_id=pulled.manifest_id,
        repository_id=repository_id,
        layers=image.layer_digests,
        before=status_of(pulled.manifest_id),
        expected=expected,
    )
