"""An organisation's upstream as a value, and what may be said to which host."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from data.errors import UpstreamRefused
from data.upstream import parse_upstream
from data.upstream.registry import (
    authority,
    configured_authorities,
    is_repository_name,
    same_origin,
)


@pytest.mark.parametrize(
    ("configured", "insecure", "base_url", "repository"),
    [
        ("registry.example", False, "https://registry.example", "library/web"),
        ("registry.example:5000", True, "http://registry.example:5000", "library/web"),
        ("registry.example/team", False, "https://registry.example", "team/library/web"),
        ("registry.example/a/b", False, "https://registry.example", "a/b/library/web"),
        ("[::1]:5000/team", True, "http://[::1]:5000", "team/library/web"),
        ("Registry.Example", False, "https://registry.example", "library/web"),
    ],
)
def test_upstream_registry_is_host_and_namespace(
    configured: str, insecure: bool, base_url: str, repository: str
) -> None:
    upstream = parse_upstream(configured, insecure=insecure)

    assert upstream.base_url == base_url
    assert upstream.repository("library/web") == repository


def test_docker_io_is_served_by_another_host() -> None:
    upstream = parse_upstream("docker.io/library")

    assert upstream.registry == "docker.io"
    assert urlsplit(upstream.base_url).hostname == "registry-1.docker.io"
    assert upstream.repository("nginx") == "library/nginx"


@pytest.mark.parametrize(
    "configured",
    [
        "",
        "/",
        "https://registry.example",
        "someone:secret@registry.example",
        "registry.example:port",
        "registry.example:70000",
        "registry.example:0",
        "registry.example/../v2",
        "registry.example/a b",
        "registry.example/a?b",
        "registry example",
        "[::1",
        "registry.example\n",
    ],
)
def test_anything_else_is_refused_and_not_repeated(configured: str) -> None:
    with pytest.raises(UpstreamRefused, match=r"not of the form host\[:port\]") as refused:
        parse_upstream(configured)

    assert "secret" not in str(refused.value)


def test_password_does_not_show() -> None:
    upstream = parse_upstream("registry.example", username="robot", password="secret")

    assert "secret" not in repr(upstream)
    assert "robot" in repr(upstream)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("library/web", True),
        ("a_b/c.d-e", True),
        ("_/web", True),
        ("", False),
        ("../secret", False),
        ("a/../b", False),
        ("a//b", False),
        ("a/", False),
        ("a%2fb", False),
        ("a?b", False),
        ("a" * 600, False),
    ],
)
def test_repository_names_can_stand_in_a_path(name: str, good: bool) -> None:
    assert is_repository_name(name) is good


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("https://a.example/x", "https://a.example/y", True),
        ("https://a.example/x", "https://A.EXAMPLE:443/y", True),
        ("https://a.example/", "https://b.example/", False),
        ("https://a.example/", "https://a.example:8443/", False),
        ("https://a.example/", "http://a.example/", False),
        ("http://a.example/", "https://a.example/", True),
        ("http://a.example:5000/", "https://a.example/", False),
        ("http://a.example/", "https://b.example/", False),
    ],
)
def test_same_origin(first: str, second: str, same: bool) -> None:
    assert same_origin(first, second) is same


def test_plain_http_may_step_up_to_https_at_the_same_host() -> None:
    plain = parse_upstream("registry.example", insecure=True)
    other_port = parse_upstream("registry.example:5000", insecure=True)

    assert configured_authorities(plain) == {("registry.example", 80), ("registry.example", 443)}
    assert configured_authorities(other_port) == {("registry.example", 5000)}


@pytest.mark.parametrize("url", ["http://", "http://a:b/", "http:///x", "http://a:99999/"])
def test_urls_without_host_or_port_are_refused(url: str) -> None:
    with pytest.raises(UpstreamRefused, match="without a host, or with a port"):
        authority(urlsplit(url))
