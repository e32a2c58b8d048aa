from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from data.secscan.signed_links import SignedLinks
from tests.layerfiles import DPKG, gzipped, sha256, tar
from tests.waiting import wait_for
from workers.demo.layerserver import LayerServer, blob_path

SECRET = b"a secret of the worker and the layer server"
LAYER = gzipped(tar({"var/lib/dpkg/status": DPKG}))
DIGEST = sha256(LAYER)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    storage = tmp_path / "storage"
    path = blob_path(storage, DIGEST)
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_bytes(LAYER)
    (tmp_path / "private").write_text("nobody's business")
    return storage


@pytest.fixture
def server(directory: Path) -> Iterator[LayerServer]:
    with LayerServer(directory, SECRET) as running:
        yield running


@pytest.fixture
def links(server: LayerServer) -> SignedLinks:
    return SignedLinks(base_url=server.base_url, secret=SECRET)


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=10)


def test_layer_lies_where_quay_keeps_it(directory: Path) -> None:
    content = DIGEST.removeprefix("sha256:")
    assert blob_path(directory, DIGEST) == directory / "sha256" / content[:2] / content


def test_signed_link_opens_the_layer(links: SignedLinks) -> None:
    response = get(links.locate("org", "repo", DIGEST).uri)
    assert response.status_code == 200
    assert response.content == LAYER
    # Without a content type Clair refuses the layer.
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert int(response.headers["Content-Length"]) == len(LAYER)
    assert "Content-Encoding" not in response.headers


def test_part_of_a_layer_is_served_as_clairs_first_look_asks(links: SignedLinks) -> None:
    response = get(links.locate("org", "repo", DIGEST).uri, Range="bytes=0-15")
    assert response.status_code == 206
    assert response.content == LAYER[:16]


ALTERATIONS: dict[str, Callable[[str], str]] = {
    "no query": lambda uri: uri.partition("?")[0],
    "other digest": lambda uri: uri.replace(DIGEST, f"sha256:{'b' * 64}"),
    "later expiry": lambda uri: uri.replace("expires=", "expires=9"),
    "other signature": lambda uri: uri[:-4] + "0000",
    "path": lambda uri: uri.replace(DIGEST, "../private"),
    "encoded path": lambda uri: uri.replace(DIGEST, "..%2fprivate"),
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_altered_link_opens_nothing(links: SignedLinks, alteration: str) -> None:
    uri = ALTERATIONS[alteration](links.locate("org", "repo", DIGEST).uri)
    # Sent as it stands: requests itself would resolve the dots.
    request = requests.Request("GET", uri).prepare()
    request.url = uri
    response = requests.Session().send(request, timeout=10)
    assert response.status_code in (403, 404)
    assert b"business" not in response.content
    if "path" not in alteration:
        assert response.status_code == 403


def test_expired_link_opens_nothing(server: LayerServer) -> None:
    old = SignedLinks(base_url=server.base_url, secret=SECRET, clock=lambda: 1767225600)
    assert get(old.locate("org", "repo", DIGEST).uri).status_code == 403


def test_link_of_another_secret_opens_nothing(server: LayerServer) -> None:
    other = SignedLinks(base_url=server.base_url, secret=b"guessed")
    assert get(other.locate("org", "repo", DIGEST).uri).status_code == 403


@pytest.mark.parametrize(
    "digest", [f"sha256:{'b' * 64}", "../private", "sha256:../private", "", "sha512:ab"]
)
def test_only_stored_blobs_can_be_named_even_with_a_good_signature(
    server: LayerServer, links: SignedLinks, digest: str
) -> None:
    query = links.locate("org", "repo", digest).uri.partition("?")[2]
    uri = f"{server.base_url}/layers/{digest.replace('/', '%2f')}?{query}"
    request = requests.Request("GET", uri).prepare()
    request.url = uri
    assert requests.Session().send(request, timeout=10).status_code == 404


def test_nothing_else_is_served(server: LayerServer) -> None:
    for path in ("/", "/layers", "/docs", f"/sha256/{DIGEST[7:9]}/{DIGEST[7:]}"):
        assert get(server.base_url + path).status_code in (403, 404)


def test_runs_as_a_process_until_it_is_told_to_stop(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "workers.demo.layerserver", "--directory", str(directory)]
    command += ["--secret-file", str(tmp_path / "secret"), "--port-file", str(port_file)]
    process = subprocess.Popen(command)
    try:
        assert wait_for(port_file.exists)
        base_url = f"http://127.0.0.1:{int(port_file.read_text())}"
        links = SignedLinks(base_url=base_url, secret=SECRET)
        assert get(links.locate("org", "repo", DIGEST).uri).content == LAYER
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
