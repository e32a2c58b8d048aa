"""An upstream registry on loopback, and clients of it that don't wait long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from data.upstream import UpstreamClient, parse_upstream
from workers.demo.images import Image
from workers.demo.imagestore import ImageStore
from workers.demo.sampleimages import debian_image
from workers.demo.upstreamregistry import UpstreamRegistry

ClientFor = Callable[..., UpstreamClient]


@pytest.fixture(scope="session")
def image() -> Image:
    return debian_image("library/web", payload=50_000)


@pytest.fixture
def registry(image: Image) -> Iterator[UpstreamRegistry]:
    with UpstreamRegistry(ImageStore(image)) as registry:
        yield registry


@pytest.fixture
def client_for() -> Iterator[ClientFor]:
    """Makes clients of a registry; keywords go to `UpstreamClient`, a login to the upstream."""
    clients: list[UpstreamClient] = []

    def make(
        host: str,
        *,
        login: tuple[str, str] = ("", ""),
        insecure: bool = True,
        **options: Any,
    ) -> UpstreamClient:
        upstream = parse_upstream(
            host, username=login[0] or None, password=login[1] or None, insecure=insecure
        )
        patience = {"connect_timeout": 2.0, "idle_timeout": 2.0, "total_timeout": 5.0}
        settings = {"retry_pause": 0.001, "proxies": {}, **patience, **options}
        clients.append(UpstreamClient(upstream, **settings))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(registry: UpstreamRegistry, client_for: ClientFor) -> UpstreamClient:
    return client_for(registry.host)


def fetch_blob(client: UpstreamClient, repository: str, digest: str) -> bytes:
    with client.open_blob(repository, digest) as stream:
        return b"".join(stream.chunks)
