"""Registries that ask who we are, and where our login goes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from data.errors import UpstreamDenied, UpstreamRefused, UpstreamUnavailable
from tests.answering import AnsweringServer, Canned
from tests.data.upstream.conftest import ClientFor, fetch_blob
from workers.demo.images import Image
from workers.demo.imagestore import ImageStore
from workers.demo.registryfaults import Call, Failing, Redirecting
from workers.demo.registrylogin import Access, Authentication
from workers.demo.upstreamregistry import UpstreamRegistry

LOGIN = ("robot", "s3cret")
BASIC = f"Basic {base64.b64encode(b'robot:s3cret').decode()}"
PUBLIC = Access(authentication=Authentication.TOKEN)
PRIVATE = Access(authentication=Authentication.TOKEN, login=LOGIN)
BASIC_ONLY = Access(authentication=Authentication.BASIC, login=LOGIN)


@contextmanager
def serving(image: Image, access: Access) -> Iterator[UpstreamRegistry]:
    with UpstreamRegistry(ImageStore(image), access=access) as registry:
        yield registry


def test_an_anonymous_token_is_fetched_once(client_for: ClientFor, image: Image) -> None:
    with serving(image, PUBLIC) as registry:
        client = client_for(registry.host)
        client.get_manifest(image.name, "latest")
        for digest in image.layer_digests:
            fetch_blob(client, image.name, digest)

        assert registry.count(Call.TOKEN) == 1
        [asked] = [request for request in registry.requests if request.path == "/token"]
        assert "authorization" not in asked.headers
        assert "scope=repository%3Alibrary%2Fweb%3Apull" in asked.query


@pytest.mark.parametrize("access", [PRIVATE, BASIC_ONLY])
def test_the_login_of_the_organisation_lets_us_in(
    client_for: ClientFor, image: Image, access: Access
) -> None:
    with serving(image, access) as registry:
        client = client_for(registry.host, login=LOGIN)

        assert client.get_manifest(image.name, "latest").digest == image.digest
        fetch_blob(client, image.name, image.layer_digests[0])


@pytest.mark.parametrize("access", [PRIVATE, BASIC_ONLY])
@pytest.mark.parametrize(
    ("login", "who"),
    [(("robot", "wrong"), "the organisation's upstream login"), (("", ""), "anonymous clients")],
)
def test_a_wrong_login_or_none_is_denied(
    client_for: ClientFor, image: Image, access: Access, login: tuple[str, str], who: str
) -> None:
    with serving(image, access) as registry:
        client = client_for(registry.host, login=login)

        with pytest.raises(UpstreamDenied, match=rf"denied to {who} \(401\)") as denied:
            client.get_manifest(image.name, "latest")
    assert "wrong" not in str(denied.value)


def test_basic_is_sent_at_once_after_the_first_time(client_for: ClientFor, image: Image) -> None:
    with serving(image, BASIC_ONLY) as registry:
        client = client_for(registry.host, login=LOGIN)
        client.get_manifest(image.name, "latest")
        client.get_manifest(image.name, "latest")

        sent = [request.headers.get("authorization") for request in registry.requests]
        assert sent == [None, BASIC, BASIC]


def test_the_login_goes_to_the_token_server_and_the_token_to_the_registry(
    client_for: ClientFor, image: Image
) -> None:
    with serving(image, PRIVATE) as registry:
        client = client_for(registry.host, login=LOGIN)
        client.get_manifest(image.name, "latest")

        for request in registry.requests:
            sent = request.headers.get("authorization", "")
            assert (sent == BASIC) is (request.path == "/token")


def test_a_token_is_for_one_repository(client_for: ClientFor, image: Image) -> None:
    with serving(image, PUBLIC) as registry:
        registry.store.add(image, repository="other/web")
        client = client_for(registry.host)
        client.get_manifest(image.name, "latest")
        client.get_manifest("other/web", "latest")

        assert registry.count(Call.TOKEN) == 2


def test_a_token_that_ended_is_fetched_anew(client_for: ClientFor, image: Image) -> None:
    short = Access(authentication=Authentication.TOKEN, token_seconds=5)
    with serving(image, short) as registry:
        client = client_for(registry.host)
        client.get_manifest(image.name, "latest")
        client.get_manifest(image.name, "latest")

        assert registry.count(Call.TOKEN) == 2, "five seconds are less than the reserve"


def test_a_token_taken_back_by_the_registry_is_fetched_anew(
    client_for: ClientFor, image: Image
) -> None:
    with serving(image, PUBLIC) as registry:
        client = client_for(registry.host)
        client.get_manifest(image.name, "latest")
        registry.doorkeeper.end_tokens()

        assert client.get_manifest(image.name, "latest").digest == image.digest
        assert registry.count(Call.TOKEN) == 2


def test_a_registry_that_takes_no_token_is_asked_twice_and_no_more(
    client_for: ClientFor, image: Image
) -> None:
    with serving(image, PUBLIC) as registry:
        registry.troubles.add(Failing(401), call=Call.MANIFEST)
        client = client_for(registry.host)

        with pytest.raises(UpstreamDenied, match=r"denied to anonymous clients \(401\)"):
            client.get_manifest(image.name, "latest")
        assert registry.count(Call.MANIFEST) == 2


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (403, UpstreamDenied, r"^token of .* for manifest latest of library/web at .*: denied"),
        (404, UpstreamRefused, r"^token of .*: there is no token server \(404\)"),
        (500, UpstreamUnavailable, r"^token of .*: the upstream registry has trouble \(500\)"),
    ],
)
def test_trouble_of_the_token_server_is_named_as_such(
    client_for: ClientFor, image: Image, status: int, kind: type[Exception], message: str
) -> None:
    with serving(image, PUBLIC) as registry:
        registry.troubles.add(Failing(status), call=Call.TOKEN)

        with pytest.raises(kind, match=message):
            client_for(registry.host).get_manifest(image.name, "latest")


def test_a_token_server_that_answers_without_a_token_is_refused(
    client_for: ClientFor, image: Image
) -> None:
    with AnsweringServer({"/token": Canned(body=b'{"token": "a b"}')}) as tokens:
        access = Access(authentication=Authentication.TOKEN, realm=f"{tokens.url}/token")
        with serving(image, access) as registry:
            client = client_for(registry.host, allowed_hosts=frozenset({"127.0.0.1"}))

            with pytest.raises(UpstreamRefused, match="answers with what is no token"):
                client.get_manifest(image.name, "latest")


def test_a_token_server_of_the_inside_is_refused(client_for: ClientFor, image: Image) -> None:
    """The upstream may be internal; what it names besides itself may not."""
    with AnsweringServer({"/token": Canned(body=b'{"token": "t"}')}) as tokens:
        access = Access(authentication=Authentication.TOKEN, realm=f"{tokens.url}/token")
        with serving(image, access) as registry:
            client = client_for(registry.host, login=LOGIN)

            with pytest.raises(UpstreamRefused, match=r"has the loopback address 127\.0\.0\.1"):
                client.get_manifest(image.name, "latest")
        assert tokens.seen == []


def test_a_token_server_that_redirects_takes_no_login_along(
    client_for: ClientFor, image: Image
) -> None:
    with AnsweringServer({"/token": Canned(body=b'{"token": "t"}')}) as elsewhere:
        with serving(image, PRIVATE) as registry:
            registry.troubles.add(Redirecting(f"{elsewhere.url}/token"), call=Call.TOKEN)
            client = client_for(
                registry.host, login=LOGIN, allowed_hosts=frozenset({"127.0.0.0/8"})
            )

            with pytest.raises(UpstreamDenied):
                client.get_manifest(image.name, "latest")
        assert [seen.headers.get("Authorization") for seen in elsewhere.seen] == [None]
