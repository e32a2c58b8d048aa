from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.answering import AnsweringServer, Canned
from tests.layerfiles import DPKG, gzipped, sha256, tar, zstandard_packed
from workers.demo import layerfetch
from workers.demo.layerfetch import (
    BogusManifest,
    FetchFailed,
    RequestedLayer,
    fetch_layer,
    parse_manifest,
)

ARCHIVE = tar({"var/lib/dpkg/status": DPKG})
LAYER = gzipped(ARCHIVE)
DIGEST = sha256(LAYER)
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    with AnsweringServer({"/layer": Canned(body=LAYER, headers=OCTETS)}) as running:
        yield running


def fetch(directory: Path, uri: str, digest: str = DIGEST, **headers: list[str]) -> bytes:
    layer = RequestedLayer(hash=digest, uri=uri, headers=headers)
    with requests.Session() as session:
        return fetch_layer(session, layer, directory).read_bytes()


def test_layer_is_fetched_with_the_headers_given(server: AnsweringServer, tmp_path: Path) -> None:
    content = fetch(tmp_path, f"{server.url}/layer?a=b", Authorization=["Bearer t"], X=["1", "2"])
    assert content == LAYER
    (request,) = server.seen
    assert request.path == "/layer?a=b"
    assert request.headers["Authorization"] == "Bearer t"
    assert request.headers["X"] == "1, 2"


def test_redirect_is_followed_without_the_token(server: AnsweringServer, tmp_path: Path) -> None:
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    server.answers["/moved"] = Canned(status=307, headers={"Location": f"{elsewhere}/layer"})
    assert fetch(tmp_path, f"{server.url}/moved", Authorization=["Bearer t"]) == LAYER
    assert [request.headers["Authorization"] for request in server.seen] == ["Bearer t", None]


def test_packed_layer_stays_packed(server: AnsweringServer, tmp_path: Path) -> None:
    server.answers["/layer"] = Canned(body=LAYER, headers={**OCTETS, "Content-Encoding": "gzip"})
    assert fetch(tmp_path, f"{server.url}/layer") == LAYER


def test_digest_may_be_sha512(server: AnsweringServer, tmp_path: Path) -> None:
    digest = f"sha512:{hashlib.sha512(LAYER).hexdigest()}"
    assert fetch(tmp_path, f"{server.url}/layer", digest) == LAYER


@pytest.mark.parametrize("status", [204, 206, 401, 403, 404, 500])
def test_status_other_than_200_is_a_failure(
    server: AnsweringServer, tmp_path: Path, status: int
) -> None:
    server.answers["/layer"] = Canned(body=b"the reason", status=status, headers=OCTETS)
    with pytest.raises(FetchFailed, match=f"unexpected status code: {status}") as caught:
        fetch(tmp_path, f"{server.url}/layer?signature=SECRET")
    assert DIGEST in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_other_bytes_are_a_failure(server: AnsweringServer, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="validation failed"):
        fetch(tmp_path, f"{server.url}/layer", sha256(b"another"))


def test_layer_beyond_the_limit_is_a_failure(
    server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layerfetch, "LAYER_LIMIT", len(LAYER) - 1)
    with pytest.raises(FetchFailed, match="more than"):
        fetch(tmp_path, f"{server.url}/layer")


@pytest.mark.parametrize(
    "uri", ["", "http://127.0.0.1:1/x", "file:///etc/hostname", "nothing", "http://[::1/"]
)
def test_address_that_leads_nowhere_is_a_failure(tmp_path: Path, uri: str) -> None:
    with pytest.raises(FetchFailed):
        fetch(tmp_path, uri)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("application/octet-stream", LAYER),
        ("binary/octet-stream", ARCHIVE),
        ("text/plain; charset=utf-8", LAYER),
        ("application/gzip", LAYER),
        ("application/x-gzip", LAYER),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", LAYER),
        ("application/vnd.oci.image.layer.v1.tar+gzip", LAYER),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstandard_packed(ARCHIVE)),
        ("application/zstd", zstandard_packed(ARCHIVE)),
        ("application/vnd.oci.image.layer.v1.tar", ARCHIVE),
        ("application/x-tar", ARCHIVE),
    ],
)
def test_content_types_that_fit(
    server: AnsweringServer, tmp_path: Path, kind: str, content: bytes
) -> None:
    server.answers["/layer"] = Canned(body=content, headers={"Content-Type": kind})
    assert fetch(tmp_path, f"{server.url}/layer", sha256(content)) == content


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (None, "no content type"),
        ("text/html", "unknown content-type"),
        ("application/x-tar", "mismatched compression"),
        ("application/zstd", "mismatched compression"),
    ],
)
def test_content_types_that_do_not_fit(
    server: AnsweringServer, tmp_path: Path, kind: str | None, words: str
) -> None:
    server.answers["/layer"] = Canned(body=LAYER, headers={"Content-Type": kind} if kind else {})
    with pytest.raises(FetchFailed, match=words):
        fetch(tmp_path, f"{server.url}/layer")


def body(**changes: Any) -> bytes:
    layer = {"hash": DIGEST, "uri": "http://x.test/", "headers": {"A": ["b"]}}
    return json.dumps({"hash": DIGEST, "layers": [layer], **changes}).encode()


def test_manifest_is_parsed() -> None:
    manifest = parse_manifest(body(unknown=1))
    assert manifest.hash == DIGEST
    assert manifest.layers[0].headers == {"A": ["b"]}


def test_headers_may_be_null() -> None:
    layer = {"hash": DIGEST, "uri": "http://x.test/", "headers": None}
    assert parse_manifest(body(layers=[layer])).layers[0].headers == {}


@pytest.mark.parametrize(
    "bogus",
    [
        b"",
        b"no json",
        b"[]",
        body(hash=""),
        body(hash="sha256:abc"),
        body(hash="md5:" + "a" * 32),
        body(hash=7),
        body(layers=[]),
        body(layers=None),
        body(layers=[{"hash": "latest", "uri": "http://x.test/", "headers": {}}]),
        body(layers=[{"hash": DIGEST, "uri": "http://x.test/", "headers": {"A": "b"}}]),
        b"[" * 100_000,
    ],
)
def test_what_clair_takes_for_no_manifest(bogus: bytes) -> None:
    with pytest.raises(BogusManifest):
        parse_manifest(bogus)
