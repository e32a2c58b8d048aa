"""Fetching manifests and blobs from a registry that behaves, or is merely in trouble."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from data.errors import (
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamUnavailable,
)
from data.upstream import UpstreamClient
from tests.answering import AnsweringServer, Canned
from tests.data.upstream.conftest import ClientFor, fetch_blob
from workers.demo.images import Image, sha256_digest
from workers.demo.registryfaults import Call, Failing, Raw
from workers.demo.sampleimages import multi_platform_image
from workers.demo.upstreamregistry import UpstreamRegistry

UNKNOWN = f"sha256:{'0' * 64}"


def test_a_manifest_by_tag_and_by_digest(client: UpstreamClient, image: Image) -> None:
    for reference in (image.tag, image.digest):
        found = client.get_manifest(image.name, reference)

        assert found.bytes == image.manifest
        assert found.digest == image.digest
        assert found.media_type == image.media_type


def test_an_index_and_its_children(client: UpstreamClient, registry: UpstreamRegistry) -> None:
    index = multi_platform_image("multi", payload=1000)
    registry.store.add(index)

    assert client.get_manifest("multi", "latest").digest == index.digest
    for child in index.children:
        assert client.get_manifest("multi", child.digest).bytes == child.manifest


def test_a_blob_with_its_announced_size(client: UpstreamClient, image: Image) -> None:
    for digest, blob in image.blobs.items():
        with client.open_blob(image.name, digest) as stream:
            assert stream.size == blob.size
            assert sha256_digest(b"".join(stream.chunks)) == digest


def test_blobs_come_as_they_are(client: UpstreamClient, registry: UpstreamRegistry) -> None:
    """Unpacked bytes would not be those that the digest is of."""
    index = multi_platform_image("multi", payload=1000)
    registry.store.add(index)
    packed = index.children[0].layer_digests[0]

    assert fetch_blob(client, "multi", packed)[:2] == b"\x1f\x8b"
    assert registry.requests[-1].headers["accept-encoding"] == "identity"


def test_bytes_labelled_as_packed_are_not_unpacked(client_for: ClientFor) -> None:
    content = b"not gzip at all"
    answer = Canned(body=content, headers={"Content-Encoding": "gzip"})
    path = f"/v2/web/blobs/{sha256_digest(content)}"
    with AnsweringServer({path: answer}) as server:
        client = client_for(server.url.removeprefix("http://"))

        assert fetch_blob(client, "web", sha256_digest(content)) == content


def test_connections_are_kept(client_for: ClientFor) -> None:
    content = b"{}"
    path = f"/v2/web/manifests/{sha256_digest(content)}"
    with AnsweringServer({path: Canned(body=content)}) as server:
        client = client_for(server.url.removeprefix("http://"))
        for _ in range(3):
            client.get_manifest("web", sha256_digest(content))

        assert len({seen.port for seen in server.seen}) == 1


def test_a_kept_connection_that_the_registry_closed_is_made_anew(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    client.get_manifest(image.name, image.tag)
    registry.go_down()
    registry.come_up()

    assert client.get_manifest(image.name, image.tag).digest == image.digest


def test_many_threads_share_a_client(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    at_once = threading.Barrier(8)

    def fetch(number: int) -> str:
        at_once.wait(5)
        digest = image.layer_digests[number % 3]
        return hashlib.sha256(fetch_blob(client, image.name, digest)).hexdigest()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(fetch, range(8)))

    assert found == [image.layer_digests[number % 3].removeprefix("sha256:") for number in range(8)]
    assert registry.count(Call.BLOB) == 8


@pytest.mark.parametrize(
    ("status", "headers", "kind", "message"),
    [
        (401, {}, UpstreamDenied, r"denied to anonymous clients \(401\); check the upstream user"),
        (403, {}, UpstreamDenied, r"denied to anonymous clients \(403\); check the upstream user"),
        (404, {}, UpstreamNotFound, r"the upstream registry doesn't have it \(404\)"),
        (429, {"Retry-After": "30"}, UpstreamBusy, r"the upstream registry limits our requests"),
        (500, {}, UpstreamUnavailable, r"the upstream registry has trouble \(500\)"),
        (503, {}, UpstreamUnavailable, r"the upstream registry has trouble \(503\)"),
        (206, {}, UpstreamRefused, "status 206, which is no answer to a GET of a registry"),
    ],
)
def test_a_status_that_is_not_200_is_an_error(
    client: UpstreamClient,
    registry: UpstreamRegistry,
    image: Image,
    status: int,
    headers: dict[str, str],
    kind: type[UpstreamError],
    message: str,
) -> None:
    digest = image.layer_digests[0]
    registry.troubles.add(Failing(status, headers))

    where = f"of library/web at {registry.host}: {message}"
    with pytest.raises(kind, match=f"^blob {digest} {where}"):
        fetch_blob(client, image.name, digest)
    with pytest.raises(kind, match=f"^manifest latest {where}"):
        client.get_manifest(image.name, "latest")
    assert len(registry.requests) == 2, "an answer is an answer: no second try"


def test_busy_says_how_long_to_wait(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    registry.troubles.add(Failing(429, {"Retry-After": "30"}), times=1)

    with pytest.raises(UpstreamBusy) as busy:
        client.get_manifest(image.name, "latest")

    assert busy.value.retry_after == 30


def test_a_missing_blob_is_not_found(client: UpstreamClient, image: Image) -> None:
    with pytest.raises(UpstreamNotFound, match=f"blob {UNKNOWN} of {image.name} at"):
        fetch_blob(client, image.name, UNKNOWN)


def test_a_connection_that_breaks_twice_is_tried_a_third_time(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    registry.troubles.add(Raw(b""), times=2)

    assert client.get_manifest(image.name, "latest").digest == image.digest
    assert len(registry.requests) == 3


def test_three_broken_connections_are_an_error(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    registry.troubles.add(Raw(b""))

    with pytest.raises(UpstreamUnavailable, match=f"^no connection to {registry.host}: "):
        client.get_manifest(image.name, "latest")
    assert len(registry.requests) == 3


def test_a_registry_that_is_down_is_unavailable(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    registry.go_down()

    with pytest.raises(
        UpstreamUnavailable, match=f"^no connection to {registry.host}: Connection refused"
    ):
        client.get_manifest(image.name, "latest")


def test_a_name_that_does_not_resolve_is_unavailable(client_for: ClientFor) -> None:
    client = client_for("registry.invalid:5000")

    with pytest.raises(UpstreamUnavailable, match=r"registry\.invalid:5000 can't be found"):
        client.get_manifest("web", "latest")


BAD_NAMES: list[tuple[Callable[[UpstreamClient], object], str]] = [
    (lambda client: client.get_manifest("web", "../secret"), "is neither a tag nor a digest"),
    (lambda client: client.get_manifest("web", "sha256:../../x"), "is neither a tag nor a digest"),
    (lambda client: client.get_manifest("../web", "latest"), "is no name of a repository"),
    (lambda client: client.get_manifest("web?x=", "latest"), "is no name of a repository"),
    (lambda client: fetch_blob(client, "web", "sha256:../../x"), "is no sha256 digest"),
    (lambda client: fetch_blob(client, "web", UNKNOWN.upper()), "is no sha256 digest"),
    (lambda client: fetch_blob(client, "a/../b", UNKNOWN), "is no name of a repository"),
]


@pytest.mark.parametrize(("fetch", "message"), BAD_NAMES)
def test_names_that_are_paths_are_never_asked_for(
    client: UpstreamClient,
    registry: UpstreamRegistry,
    fetch: Callable[[UpstreamClient], object],
    message: str,
) -> None:
    with pytest.raises(UpstreamRefused, match=message):
        fetch(client)

    assert registry.requests == []
