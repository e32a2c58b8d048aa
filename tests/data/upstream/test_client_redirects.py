"""Redirects: a CDN is followed, but not to the inside of our network, nor with our login."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from data.errors import UpstreamDenied, UpstreamRefused
from data.upstream import UpstreamClient
from tests.answering import AnsweringServer, Canned
from tests.data.upstream.conftest import ClientFor, fetch_blob
from workers.demo.images import Image
from workers.demo.imagestore import ImageStore
from workers.demo.registryfaults import Call, Redirecting
from workers.demo.registrylogin import Access, Authentication
from workers.demo.upstreamregistry import UpstreamRegistry

EVERYBODY = frozenset({"127.0.0.0/8"})
LOGIN = ("robot", "s3cret")


@pytest.fixture
def cdn(image: Image) -> Iterator[AnsweringServer]:
    """Another host (to a client, another port is one) that has the blobs under `/blobs/`."""
    answers = {f"/blobs/{digest}": Canned(body=blob.read()) for digest, blob in image.blobs.items()}
    with AnsweringServer(answers) as server:
        yield server


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_blob_may_lie_at_a_cdn(
    client_for: ClientFor,
    registry: UpstreamRegistry,
    cdn: AnsweringServer,
    image: Image,
    status: int,
) -> None:
    digest = image.layer_digests[0]
    registry.troubles.add(Redirecting(f"{cdn.url}/blobs/{digest}?signature=x", status))
    client = client_for(registry.host, allowed_hosts=EVERYBODY)

    assert fetch_blob(client, image.name, digest) == image.blobs[digest].read()
    assert cdn.seen[0].path == f"/blobs/{digest}?signature=x"


@pytest.mark.parametrize("authentication", [Authentication.BASIC, Authentication.TOKEN])
def test_the_login_never_goes_to_another_host(
    client_for: ClientFor, cdn: AnsweringServer, image: Image, authentication: Authentication
) -> None:
    digest = image.layer_digests[0]
    access = Access(authentication=authentication, login=LOGIN)
    with UpstreamRegistry(ImageStore(image), access=access) as registry:
        registry.troubles.add(Redirecting(f"{cdn.url}/blobs/{digest}"), call=Call.BLOB)
        client = client_for(registry.host, login=LOGIN, allowed_hosts=EVERYBODY)
        fetch_blob(client, image.name, digest)
        fetch_blob(client, image.name, digest)

        assert "authorization" in registry.requests[-1].headers
    assert [seen.headers.get("Authorization") for seen in cdn.seen] == [None, None]


def test_the_login_stays_with_the_host_that_it_is_for(client_for: ClientFor, image: Image) -> None:
    access = Access(authentication=Authentication.BASIC, login=LOGIN)
    digest = image.layer_digests[0]
    with UpstreamRegistry(ImageStore(image), access=access) as registry:
        registry.store.add(image, repository="moved/web")
        registry.troubles.add(Redirecting(f"/v2/moved/web/blobs/{digest}"), call=Call.BLOB, times=1)
        client = client_for(registry.host, login=LOGIN)

        assert fetch_blob(client, image.name, digest) == image.blobs[digest].read()


def test_a_host_that_we_were_sent_to_gets_no_login_by_asking(
    client_for: ClientFor, registry: UpstreamRegistry, image: Image
) -> None:
    challenge = {"WWW-Authenticate": "Basic realm=cdn"}
    with AnsweringServer({"/blob": Canned(status=401, headers=challenge)}) as greedy:
        registry.troubles.add(Redirecting(f"{greedy.url}/blob"))
        client = client_for(registry.host, login=LOGIN, allowed_hosts=EVERYBODY)

        with pytest.raises(UpstreamDenied):
            fetch_blob(client, image.name, image.layer_digests[0])
    assert [seen.headers.get("Authorization") for seen in greedy.seen] == [None]


def test_a_detour_over_another_host_takes_the_login_away_for_good(
    client_for: ClientFor, image: Image
) -> None:
    access = Access(authentication=Authentication.BASIC, login=LOGIN)
    digest = image.layer_digests[0]
    with UpstreamRegistry(ImageStore(image), access=access) as registry:
        back = Canned(status=307, headers={"Location": f"{registry.url}/v2/x/blobs/{digest}"})
        with AnsweringServer({"/detour": back}) as detour:
            registry.troubles.add(Redirecting(f"{detour.url}/detour"), call=Call.BLOB, times=1)
            client = client_for(registry.host, login=LOGIN, allowed_hosts=EVERYBODY)

            with pytest.raises(UpstreamDenied):
                fetch_blob(client, image.name, digest)
        assert "authorization" not in registry.requests[2].headers


INSIDE = [
    ("http://127.0.0.1:9/x", "the loopback address 127.0.0.1"),
    ("http://localhost:9/x", "the loopback address"),
    ("http://[::1]:9/x", "the loopback address ::1"),
    ("http://[::ffff:127.0.0.1]:9/x", "the loopback address ::ffff:127.0.0.1"),
    ("http://2130706433:9/x", "the loopback address 127.0.0.1"),
    ("http://0x7f.1:9/x", "the loopback address 127.0.0.1"),
    ("http://0.0.0.0:9/x", "the unspecified address 0.0.0.0"),
    ("http://169.254.169.254/latest/meta-data", "the link-local address 169.254.169.254"),
    ("http://[fe80::1]:9/x", "the link-local address fe80::1"),
    ("http://10.0.0.1/x", "the private address 10.0.0.1"),
    ("http://192.168.0.1/x", "the private address 192.168.0.1"),
    ("http://[fd00::1]/x", "the private address fd00::1"),
    ("http://100.64.0.1/x", "the reserved address 100.64.0.1"),
    ("http://224.0.0.1/x", "the multicast address 224.0.0.1"),
]


@pytest.mark.parametrize(("location", "message"), INSIDE)
def test_redirects_to_the_inside_are_refused(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image, location: str, message: str
) -> None:
    registry.troubles.add(Redirecting(location))

    with pytest.raises(UpstreamRefused) as refused:
        fetch_blob(client, image.name, image.layer_digests[0])

    assert message in str(refused.value)
    assert "SSRF_ALLOWED_HOSTS" in str(refused.value)
    assert len(registry.requests) == 1, "a refusal is not tried again"


def test_every_step_of_a_redirect_is_checked(
    client_for: ClientFor, registry: UpstreamRegistry, image: Image
) -> None:
    onwards = Canned(status=302, headers={"Location": "http://169.254.169.254/latest"})
    with AnsweringServer({"/step": onwards}) as step:
        registry.troubles.add(Redirecting(f"{step.url}/step"))
        client = client_for(registry.host, allowed_hosts=EVERYBODY)

        with pytest.raises(UpstreamRefused, match="the link-local address"):
            fetch_blob(client, image.name, image.layer_digests[0])
        assert len(step.seen) == 1


class TwoFacedResolver:
    """Name service of an attacker: an innocent first answer, then the victim's address."""

    def __init__(self, name: str, answers: list[str], genuine: Any) -> None:
        self.name, self.answers, self.genuine = name, answers, genuine
        self.asked = 0

    def __call__(self, host: str, port: int, *more: Any, **options: Any) -> Any:
        if host != self.name:
            return self.genuine(host, port, *more, **options)
        self.asked += 1
        answer = self.answers[min(self.asked, len(self.answers)) - 1]
        return self.genuine(answer, port, *more, **options)


def test_a_name_that_changes_its_address_gains_nothing(
    client_for: ClientFor,
    registry: UpstreamRegistry,
    cdn: AnsweringServer,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The address that was checked is the one connected to: there is no second look-up."""
    resolver = TwoFacedResolver("rebind.example", ["127.0.0.2", "127.0.0.1"], socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    port = cdn.url.rpartition(":")[2]  # the victim, at 127.0.0.1; nobody is at 127.0.0.2
    registry.troubles.add(Redirecting(f"http://rebind.example:{port}/blobs/x"))
    client = client_for(registry.host, allowed_hosts=frozenset({"127.0.0.2"}))

    with pytest.raises(UpstreamRefused, match=r"rebind\.example has the loopback address 127"):
        fetch_blob(client, image.name, image.layer_digests[0])

    assert cdn.seen == [], "the first try connects to 127.0.0.2, the second look-up is refused"
    assert resolver.asked == 2


def test_one_forbidden_address_among_several_is_enough(
    client: UpstreamClient,
    registry: UpstreamRegistry,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    genuine = socket.getaddrinfo

    def two_addresses(host: str, *more: Any, **options: Any) -> Any:
        if host != "both.example":
            return genuine(host, *more, **options)
        return [*genuine("93.184.215.14", *more), *genuine("10.0.0.1", *more)]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    registry.troubles.add(Redirecting("http://both.example/x"))

    with pytest.raises(UpstreamRefused, match=r"both\.example has the private address 10\.0\.0\.1"):
        fetch_blob(client, image.name, image.layer_digests[0])


def test_circles_are_refused(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    digest = image.layer_digests[0]
    registry.troubles.add(Redirecting(f"/v2/{image.name}/blobs/{digest}"))

    with pytest.raises(UpstreamRefused, match=f"^{registry.host} redirects in a circle; nothing"):
        fetch_blob(client, image.name, digest)
    assert len(registry.requests) == 1


def test_redirects_without_end_are_refused(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image
) -> None:
    for number in range(20):
        registry.troubles.add(Redirecting(f"/v2/web/blobs/{number}"), times=1)

    with pytest.raises(UpstreamRefused, match="redirects more than 5 times; nothing was fetched"):
        fetch_blob(client, image.name, image.layer_digests[0])
    assert len(registry.requests) == 6


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "to nowhere"),
        ("/" + "x" * 9000, "to nowhere, or to a URL of more than 8192"),
        ("ftp://example.org/x", "to a URL of another kind than http or https"),
        ("file:///etc/passwd", "to a URL of another kind than http or https"),
        ("http://someone:else@example.org/x", "to a URL with a login in it"),
        ("http://[::1/x", "to what is no URL"),
        ("http://a:b/x", "a URL without a host, or with a port"),
        (f"http://{'a' * 80}.example/x", "can't be a host name"),
    ],
)
def test_targets_that_are_none_are_refused(
    client: UpstreamClient, registry: UpstreamRegistry, image: Image, location: str, message: str
) -> None:
    registry.troubles.add(Redirecting(location))

    with pytest.raises(UpstreamRefused, match=message) as refused:
        fetch_blob(client, image.name, image.layer_digests[0])
    assert "someone" not in str(refused.value)
