"""TLS, and the proxy of the operator."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from data.errors import UpstreamRefused, UpstreamUnavailable
from tests.answering import AnsweringServer, Canned, ScriptedServer
from tests.certificates import Certificate, make_certificate
from tests.data.upstream.conftest import ClientFor, fetch_blob
from workers.demo.images import Image, sha256_digest
from workers.demo.imagestore import ImageStore
from workers.demo.registryfaults import Redirecting
from workers.demo.registrylogin import Access, Authentication
from workers.demo.upstreamregistry import UpstreamRegistry

LOGIN = ("robot", "s3cret")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(certificate: Certificate, image: Image) -> Iterator[UpstreamRegistry]:
    with UpstreamRegistry(ImageStore(image), tls=certificate.server_context()) as registry:
        yield registry


def test_https_with_a_trusted_certificate(
    client_for: ClientFor, secure: UpstreamRegistry, certificate: Certificate, image: Image
) -> None:
    client = client_for(secure.host, insecure=False, ca_bundle=str(certificate.path))

    assert client.get_manifest(image.name, "latest").digest == image.digest
    digest = image.layer_digests[0]
    assert fetch_blob(client, image.name, digest) == image.blobs[digest].read()


def test_the_authorities_of_the_environment_are_trusted(
    client_for: ClientFor,
    secure: UpstreamRegistry,
    certificate: Certificate,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
    client = client_for(secure.host, insecure=False)

    assert client.get_manifest(image.name, "latest").digest == image.digest


def test_https_with_a_certificate_that_nobody_trusts(
    client_for: ClientFor, secure: UpstreamRegistry, image: Image
) -> None:
    client = client_for(secure.host, insecure=False)

    with pytest.raises(
        UpstreamUnavailable, match=f"^no trusted TLS connection to {secure.host}: .*add the certif"
    ):
        client.get_manifest(image.name, "latest")


def test_https_where_plain_http_is_spoken(
    client_for: ClientFor, registry: UpstreamRegistry, image: Image
) -> None:
    client = client_for(registry.host, insecure=False)

    with pytest.raises(UpstreamUnavailable, match=f"^no trusted TLS connection to {registry.host}"):
        client.get_manifest(image.name, "latest")


def test_a_handshake_that_never_ends_meets_the_connect_time(client_for: ClientFor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        client = client_for(host, insecure=False, connect_timeout=0.1, idle_timeout=30)

        with pytest.raises(UpstreamUnavailable, match=f"^{host} took too long to"):
            client.get_manifest("web", "latest")


def test_no_redirect_leads_from_https_to_http(
    client_for: ClientFor,
    secure: UpstreamRegistry,
    registry: UpstreamRegistry,
    certificate: Certificate,
    image: Image,
) -> None:
    digest = image.layer_digests[0]
    secure.troubles.add(Redirecting(f"{registry.url}/v2/{image.name}/blobs/{digest}"))
    client = client_for(
        secure.host,
        insecure=False,
        ca_bundle=str(certificate.path),
        allowed_hosts=frozenset({"127.0.0.1"}),
    )

    with pytest.raises(UpstreamRefused, match=r"redirects from https to http, at 127\.0\.0\.1"):
        fetch_blob(client, image.name, digest)
    assert registry.requests == []


def test_no_login_goes_from_https_to_a_token_server_on_http(
    client_for: ClientFor, registry: UpstreamRegistry, certificate: Certificate, image: Image
) -> None:
    access = Access(authentication=Authentication.TOKEN, login=LOGIN, realm=f"{registry.url}/token")
    store = ImageStore(image)
    with UpstreamRegistry(store, access=access, tls=certificate.server_context()) as secure:
        client = client_for(
            secure.host,
            login=LOGIN,
            insecure=False,
            ca_bundle=str(certificate.path),
            allowed_hosts=frozenset({"127.0.0.1"}),
        )

        with pytest.raises(UpstreamRefused, match="no login is sent there"):
            client.get_manifest(image.name, "latest")
    assert registry.requests == []


def test_the_proxy_of_the_environment_is_used(
    client_for: ClientFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"{}"
    url = "http://registry.invalid/v2/web/manifests/latest"
    with AnsweringServer({url: Canned(body=content)}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        client = client_for("registry.invalid", proxies=None)

        assert client.get_manifest("web", "latest").digest == sha256_digest(content)
        assert [seen.path for seen in proxy.seen] == [url]


def test_https_goes_through_a_tunnel_of_the_proxy(
    client_for: ClientFor, secure: UpstreamRegistry, certificate: Certificate, image: Image
) -> None:
    asked: list[bytes] = []

    def tunnel(server: ScriptedServer, client: socket.socket) -> None:
        asked.append(server.read_request(client).partition(b" HTTP/")[0])
        with socket.create_connection(("127.0.0.1", secure.port)) as registry:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=carry, args=(registry, client))
            back.start()
            carry(client, registry)
            back.join()

    with ScriptedServer(tunnel) as proxy:
        client = client_for(
            secure.host,
            insecure=False,
            ca_bundle=str(certificate.path),
            proxies={"https": proxy.url},
        )
        for _ in range(2):
            assert client.get_manifest(image.name, "latest").digest == image.digest
        client.close()

    assert asked == [f"CONNECT {secure.host}".encode()]


def carry(source: socket.socket, target: socket.socket) -> None:
    """Carries bytes one way until there are no more."""
    with suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)
        target.shutdown(socket.SHUT_WR)


def test_no_proxy_is_used_for_hosts_that_are_excepted(
    client_for: ClientFor, registry: UpstreamRegistry, image: Image
) -> None:
    with AnsweringServer({}) as proxy:
        proxies = {"http": proxy.url, "no": "127.0.0.0/8,other.example"}
        client = client_for(registry.host, proxies=proxies)

        assert client.get_manifest(image.name, "latest").digest == image.digest
        assert proxy.seen == []


@pytest.mark.parametrize("inside", ["metadata.google.internal", "169.254.169.254", "localhost"])
def test_the_proxy_is_not_sent_to_the_inside(client_for: ClientFor, inside: str) -> None:
    """The proxy resolves names itself, so that names are all there is to check."""
    digest = sha256_digest(b"")
    url = f"http://registry.invalid/v2/web/blobs/{digest}"
    redirect = Canned(status=302, headers={"Location": f"http://{inside}/secret"})
    with AnsweringServer({url: redirect}) as proxy:
        client = client_for("registry.invalid", proxies={"http": proxy.url})

        with pytest.raises(UpstreamRefused, match=f"{inside} (is a name of|has the link-local)"):
            fetch_blob(client, "web", digest)
        assert [seen.path for seen in proxy.seen] == [url]


def test_a_proxy_that_is_down_is_unavailable_and_its_login_untold(client_for: ClientFor) -> None:
    client = client_for("registry.invalid", proxies={"http": "http://me:s3cret@127.0.0.1:9"})

    with pytest.raises(UpstreamUnavailable, match=r"^no connection to registry\.invalid: ") as down:
        client.get_manifest("web", "latest")
    assert "s3cret" not in str(down.value)
