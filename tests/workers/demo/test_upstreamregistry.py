"""The upstream stand-in speaks the distribution API, and does wrong what it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.servers import wait_until
from workers.demo.images import Image, sha256_digest
from workers.demo.imagestore import ImageStore
from workers.demo.ocilayout import write_layout
from workers.demo.registryfaults import (
    Announcing,
    Call,
    Failing,
    Held,
    Paced,
    Raw,
    Redirecting,
    Troubles,
    Truncated,
    WrongBytes,
)
from workers.demo.registrylogin import Access, Authentication
from workers.demo.sampleimages import debian_image, multi_platform_image
from workers.demo.upstreamregistry import Route, UpstreamRegistry, route

LOGIN = ("robot", "s3cret")


@pytest.fixture(scope="module")
def image() -> Image:
    return debian_image("library/web", tag="1.0", payload=2000)


@pytest.fixture
def registry(image: Image) -> Iterator[UpstreamRegistry]:
    with UpstreamRegistry(ImageStore(image)) as registry:
        yield registry


def get(registry: UpstreamRegistry, path: str, **options: object) -> requests.Response:
    return requests.get(
        f"{registry.url}{path}",
        timeout=5,
        allow_redirects=False,
        headers={"Accept-Encoding": "identity"},
        **options,  # type: ignore[arg-type]
    )


def test_ping(registry: UpstreamRegistry) -> None:
    assert get(registry, "/v2/").status_code == 200


@pytest.mark.parametrize("by_digest", [False, True])
def test_manifests_by_tag_and_digest(
    registry: UpstreamRegistry, image: Image, by_digest: bool
) -> None:
    reference = image.digest if by_digest else "1.0"
    path = f"/v2/library/web/manifests/{reference}"
    found = get(registry, path)
    head = requests.head(f"{registry.url}{path}", timeout=5)

    assert found.content == image.manifest
    for answer in (found, head):
        assert answer.headers["Content-Type"] == image.media_type
        assert answer.headers["Docker-Content-Digest"] == image.digest
        assert answer.headers["Content-Length"] == str(len(image.manifest))
    assert head.content == b""


def test_children_of_an_index_are_manifests_too(registry: UpstreamRegistry) -> None:
    index = multi_platform_image("multi", payload=2000)
    registry.store.add(index)

    for part in index.manifests():
        assert get(registry, f"/v2/multi/manifests/{part.digest}").content == part.manifest


def test_blobs(registry: UpstreamRegistry, image: Image) -> None:
    for digest in image.blobs:
        assert sha256_digest(get(registry, f"/v2/library/web/blobs/{digest}").content) == digest


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/library/web/manifests/2.0", "MANIFEST_UNKNOWN"),
        ("/v2/other/manifests/1.0", "MANIFEST_UNKNOWN"),
        (f"/v2/library/web/blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN"),
        ("/v2/library/web/tags/list", "UNSUPPORTED"),
        ("/", "UNSUPPORTED"),
    ],
)
def test_what_is_not_there_is_404(registry: UpstreamRegistry, path: str, code: str) -> None:
    answer = get(registry, path)

    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == code


def test_blobs_of_another_repository_are_not_shown(
    registry: UpstreamRegistry, image: Image
) -> None:
    registry.store.add(debian_image("other", payload=2001))

    assert get(registry, f"/v2/other/blobs/{image.layer_digests[0]}").status_code == 404


def test_a_blob_can_be_lost(registry: UpstreamRegistry, image: Image) -> None:
    registry.store.remove_blob("library/web", image.layer_digests[0])

    path = f"/v2/library/web/blobs/{image.layer_digests[0]}"
    assert get(registry, path).status_code == 404


@pytest.mark.parametrize("authentication", [Authentication.BASIC, Authentication.TOKEN])
def test_nobody_gets_in_without_the_login(image: Image, authentication: Authentication) -> None:
    access = Access(authentication=authentication, login=LOGIN)
    with UpstreamRegistry(ImageStore(image), access=access) as registry:
        answer = get(registry, "/v2/library/web/manifests/1.0")

        assert answer.status_code == 401
        assert (
            answer.headers["WWW-Authenticate"]
            .lower()
            .startswith(
                {Authentication.BASIC: "basic", Authentication.TOKEN: "bearer"}[authentication]
            )
        )
        assert get(registry, "/token?scope=x", auth=("robot", "wrong")).status_code == 401


def test_a_token_is_good_for_its_scope(image: Image) -> None:
    access = Access(authentication=Authentication.TOKEN, login=LOGIN)
    with UpstreamRegistry(ImageStore(image), access=access) as registry:
        asked = "/token?service=x&scope=repository:library/web:pull"
        token = get(registry, asked, auth=LOGIN).json()["token"]

        def status(repository: str) -> int:
            url = f"{registry.url}/v2/{repository}/manifests/1.0"
            headers = {"Authorization": f"Bearer {token}"}
            return requests.get(url, headers=headers, timeout=5).status_code

        assert status("library/web") == 200
        assert status("library/other") == 401
        registry.doorkeeper.end_tokens()
        assert status("library/web") == 401


def test_requests_are_kept_and_counted(registry: UpstreamRegistry, image: Image) -> None:
    get(registry, "/v2/library/web/manifests/1.0")
    get(registry, f"/v2/library/web/blobs/{image.layer_digests[0]}?a=b")

    assert registry.count(Call.MANIFEST) == 1
    assert registry.count(Call.BLOB, image.layer_digests[0]) == 1
    assert registry.count(Call.BLOB, image.layer_digests[1]) == 0
    assert registry.requests[1].query == "a=b"


def test_troubles_with_an_answer(registry: UpstreamRegistry, image: Image) -> None:
    path = f"/v2/library/web/blobs/{image.layer_digests[0]}"
    content = image.blobs[image.layer_digests[0]].read()
    registry.troubles.add(Failing(429, {"Retry-After": "3"}), times=1)
    registry.troubles.add(Redirecting("http://example.org/x", 302), times=1)
    registry.troubles.add(WrongBytes(), times=1)
    registry.troubles.add(Paced(1000, 0.001), times=1)

    assert get(registry, path).headers["Retry-After"] == "3"
    assert get(registry, path).headers["Location"] == "http://example.org/x"
    wrong = get(registry, path).content
    assert (len(wrong), wrong[1:]) == (len(content), content[1:])
    assert wrong != content
    assert get(registry, path).content == content
    assert get(registry, path).content == content


@pytest.mark.parametrize("fault", [Truncated(10), Announcing(10_000_000), Raw(b"nonsense\r\n")])
def test_troubles_that_break_the_connection(
    registry: UpstreamRegistry, image: Image, fault: Truncated | Announcing | Raw
) -> None:
    registry.troubles.add(fault, times=1)

    with pytest.raises(requests.RequestException):
        get(registry, f"/v2/library/web/blobs/{image.layer_digests[0]}")


def test_a_held_answer_comes_when_it_is_let_go(registry: UpstreamRegistry, image: Image) -> None:
    held = Held()
    held.released.set()
    registry.troubles.add(held)

    assert get(registry, "/v2/library/web/manifests/1.0").content == image.manifest
    assert held.arrived.is_set()


def test_troubles_find_their_requests() -> None:
    troubles = Troubles()
    troubles.add(Failing(500), call=Call.BLOB, reference="a", times=2)
    troubles.add(Failing(404), call=Call.MANIFEST)

    assert troubles.next(Call.BLOB, "b") is None
    assert troubles.next(Call.TOKEN, "") is None
    assert [troubles.next(Call.BLOB, "a") for _ in range(3)] == [Failing(500), Failing(500), None]
    assert [troubles.next(Call.MANIFEST, "x") for _ in range(3)] == [Failing(404)] * 3
    troubles.clear()
    assert troubles.next(Call.MANIFEST, "x") is None


def test_down_is_down_and_up_again_on_the_same_port(registry: UpstreamRegistry) -> None:
    port = registry.port
    registry.go_down()
    with pytest.raises(requests.ConnectionError):
        get(registry, "/v2/")
    registry.come_up()

    assert registry.port == port
    assert get(registry, "/v2/").status_code == 200


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/a/b/manifests/c", Route(Call.MANIFEST, "a/b", "c")),
        ("/v2/manifests/blobs/c", Route(Call.BLOB, "manifests", "c")),
        ("/v2/a/blobs/uploads/", Route(Call.OTHER)),
        ("/v2", Route(Call.PING)),
        ("/token", Route(Call.TOKEN)),
    ],
)
def test_routes(path: str, expected: Route) -> None:
    assert route(path) == expected


def run(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "workers.demo.upstreamregistry", *map(str, arguments)]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_a_process(image: Image, tmp_path: Path, number: int) -> None:
    write_layout(image, tmp_path / "layout")
    port_file = tmp_path / "port"
    process = run("--image", tmp_path / "layout", "--port-file", port_file)
    try:
        wait_until(port_file.exists, 20, "the stand-in says its port")
        url = f"http://127.0.0.1:{port_file.read_text().strip()}/v2/library/web/manifests/1.0"
        assert requests.get(url, timeout=5).content == image.manifest
        os.kill(process.pid, number)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


def test_as_a_process_with_an_image_that_is_none(tmp_path: Path) -> None:
    process = run("--image", tmp_path / "missing", "--port-file", tmp_path / "port")
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 2
    assert "missing: there is no such file or directory" in errors
    assert not (tmp_path / "port").exists()
