"""Answers that are made to hold, fill or confuse us. Each ends with a reason, and soon."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from data.errors import BlobTruncated, UpstreamRefused, UpstreamUnavailable
from data.upstream import UpstreamClient
from tests.data.upstream.conftest import ClientFor, fetch_blob
from workers.demo.images import Image
from workers.demo.registryfaults import (
    Announcing,
    Call,
    Endless,
    Fault,
    Held,
    Paced,
    Raw,
    Truncated,
    WrongBytes,
)
from workers.demo.registrylogin import Access, Authentication
from workers.demo.upstreamregistry import UpstreamRegistry

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def test_wrong_bytes_of_a_manifest_are_refused(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    registry.troubles.add(WrongBytes())

    for reference in ("latest", image.digest):
        with pytest.raises(UpstreamRefused, match=f"that came have digest .* of {image.digest}"):
            client.get_manifest(image.name, reference)


def test_an_early_end_of_a_blob_is_told(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    registry.troubles.add(Truncated(1000))

    with pytest.raises(
        BlobTruncated, match=f"^{registry.host} ended the connection before the end of its answer"
    ):
        fetch_blob(client, image.name, image.layer_digests[0])


def test_an_early_end_of_a_manifest_is_worth_a_later_try(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    registry.troubles.add(Truncated(10))

    with pytest.raises(UpstreamUnavailable, match="ended the connection before the end"):
        client.get_manifest(image.name, "latest")


def test_no_more_is_read_than_was_announced(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    registry.troubles.add(Announcing(100), times=1)
    digest = image.layer_digests[0]

    assert len(fetch_blob(client, image.name, digest)) == 100
    assert fetch_blob(client, image.name, digest) == image.blobs[digest].read()


@pytest.mark.parametrize("fault", [Endless(), Announcing(100 * 1024 * 1024)])
def test_a_manifest_of_any_size_is_cut_off(
    client_for: ClientFor, registry: UpstreamRegistry, image: Image, fault: Fault
) -> None:
    registry.troubles.add(fault)
    client = client_for(registry.host, max_manifest_bytes=1000)

    with pytest.raises(UpstreamRefused, match="answers with more than the 1000 bytes that we take"):
        client.get_manifest(image.name, "latest")


def test_an_endless_token_is_cut_off(client_for: ClientFor, image: Image) -> None:
    access = Access(authentication=Authentication.TOKEN)
    with UpstreamRegistry(access=access) as registry:
        registry.troubles.add(Endless(), call=Call.TOKEN)

        with pytest.raises(UpstreamRefused, match="more than the 262144 bytes that we take"):
            client_for(registry.host).get_manifest(image.name, "latest")


def test_an_endless_blob_takes_no_memory_and_ends_when_we_leave(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    registry.troubles.add(Endless())
    tracemalloc.start()
    with client.open_blob(image.name, image.layer_digests[0]) as stream:
        assert stream.size is None
        taken = sum(len(next(stream.chunks)) for _ in range(200))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken > 40_000_000
    assert peak < 5_000_000


def test_a_blob_without_end_meets_the_deadline(
    client_for: ClientFor, registry: UpstreamRegistry, image: Image
) -> None:
    registry.troubles.add(Endless())
    client = client_for(registry.host, total_timeout=0.3)

    with pytest.raises(UpstreamUnavailable, match=r"took longer than the 0\.3 s that an exchange"):
        fetch_blob(client, image.name, image.layer_digests[0])


DRIPPING = [
    ("body", Paced(1, 0.02)),
    ("status line", Raw(OK * 10, 0.02)),
    ("headers", Raw(OK + b"X-Padding: y\r\n" * 50, 0.02)),
    ("chunk size", Raw(CHUNKED + b"0" * 1000, 0.02)),
    ("interim answers", Raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 50, 0.02)),
]


@pytest.mark.parametrize(("fault"), [fault for _, fault in DRIPPING], ids=[n for n, _ in DRIPPING])
def test_one_byte_at_a_time_meets_the_deadline(
    client_for: ClientFor, registry: UpstreamRegistry, image: Image, fault: Fault
) -> None:
    """No wait for a byte is long, so only the deadline of the whole ends this."""
    registry.troubles.add(fault)
    client = client_for(registry.host, idle_timeout=2, total_timeout=0.3)
    began = time.monotonic()

    with pytest.raises(UpstreamUnavailable, match=r"took longer than the 0\.3 s that an exchange"):
        fetch_blob(client, image.name, image.layer_digests[0])
    assert time.monotonic() - began < 12


def test_the_deadline_counts_on_a_kept_connection_too(
    client_for: ClientFor, registry: UpstreamRegistry, image: Image
) -> None:
    client = client_for(registry.host, idle_timeout=2, total_timeout=1.5)
    client.get_manifest(image.name, "latest")
    registry.troubles.add(Paced(1, 0.02))

    with pytest.raises(UpstreamUnavailable, match=r"took longer than the 1\.5 s"):
        fetch_blob(client, image.name, image.layer_digests[0])


def test_silence_meets_the_idle_time_long_before_the_deadline(
    client_for: ClientFor, registry: UpstreamRegistry, image: Image
) -> None:
    held = Held()
    registry.troubles.add(held)
    client = client_for(registry.host, idle_timeout=0.1, total_timeout=30)

    with pytest.raises(UpstreamUnavailable, match="took too long to go on with its answer"):
        client.get_manifest(image.name, "latest")
    held.released.set()
    assert len(registry.requests) == 1, "a registry that is slow is not asked again at once"


NO_HTTP = [
    ("many headers", OK + b"X-Bomb: y\r\n" * 5000, "more than 100 headers"),
    ("long header", OK + b"X-Bomb: " + b"y" * 100_000, "header line"),
    ("long status", b"HTTP/1.1 200 " + b"y" * 100_000, "status line"),
    ("garbage", b"\x16\x03\x01\x02\x00\x01garbage\r\n\r\n", "garbage"),
    ("other protocol", b"220 mail.example ready\r\n\r\n", "220 mail"),
    ("two lengths", OK + b"Content-Length: 5, 7\r\n\r\nhello", "unmatching values"),
]


@pytest.mark.parametrize(
    ("content", "cause"), [case[1:] for case in NO_HTTP], ids=[case[0] for case in NO_HTTP]
)
def test_what_is_no_http_is_refused(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image, content: bytes, cause: str
) -> None:
    registry.troubles.add(Raw(content))

    with pytest.raises(
        UpstreamRefused, match=f"^{registry.host} answers with what is no HTTP: "
    ) as refused:
        fetch_blob(client, image.name, image.layer_digests[0])
    assert cause in str(refused.value)
    assert len(str(refused.value)) < 300


BAD_CHUNKS = [
    ("negative", b"-1\r\n", UpstreamRefused),
    ("very negative", b"-5\r\n", UpstreamRefused),
    ("no number", b"zz\r\n", BlobTruncated),
    ("long line", b"0" * 100_000, UpstreamRefused),
    ("huge", b"f" * 30 + b"\r\nabc", BlobTruncated),
    ("ended early", b"100\r\nabc", BlobTruncated),
    ("none", b"", BlobTruncated),
]


@pytest.mark.parametrize(
    ("content", "kind"), [case[1:] for case in BAD_CHUNKS], ids=[case[0] for case in BAD_CHUNKS]
)
def test_chunks_that_lie_are_refused(
    client: UpstreamClient,
    registry: UpstreamRegistry,
    image: Image,
    content: bytes,
    kind: type[Exception],
) -> None:
    registry.troubles.add(Raw(CHUNKED + content))

    with pytest.raises(kind, match=f"^{registry.host} (answers with|ended the connection)"):
        fetch_blob(client, image.name, image.layer_digests[0])


@pytest.mark.parametrize("length", [b"-5", b"many", b"9" * 5000, b"\xb2"])
def test_a_length_that_is_none_announces_nothing(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image, length: bytes
) -> None:
    registry.troubles.add(Raw(OK + b"Content-Length: " + length + b"\r\n\r\nhello"))

    with client.open_blob(image.name, image.layer_digests[0]) as stream:
        assert stream.size is None
        assert b"".join(stream.chunks) == b"hello"


def test_a_length_beside_chunks_announces_nothing(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    head = OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    registry.troubles.add(Raw(head + b"5\r\nhello\r\n0\r\n\r\n"))

    with client.open_blob(image.name, image.layer_digests[0]) as stream:
        assert stream.size is None
        assert b"".join(stream.chunks) == b"hello"


def test_leaving_a_blob_early_ends_its_connection_alone(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    registry.troubles.add(Endless(), times=1)
    with client.open_blob(image.name, image.layer_digests[0]) as stream:
        next(stream.chunks)

    assert client.get_manifest(image.name, "latest").digest == image.digest
