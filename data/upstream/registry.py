"""An organisation's upstream registry: where it is, and what it calls a repository of Quay's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from data.errors import UpstreamRefused

# What people call the registry, and the host that speaks the protocol for it.
SERVED_BY = {"docker.io": "registry-1.docker.io"}

DEFAULT_PORTS = {"http": 80, "https": 443}

_REGISTRY = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9][A-Za-z0-9_.-]{0,252})(:[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_LONGEST_REPOSITORY = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """An organisation's upstream registry, as its `proxycacheconfig` row describes it."""

    registry: str  # host[:port], as configured
    namespace: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    insecure: bool = False  # http instead of https

    @property
    def base_url(self) -> str:
        """Scheme and host, without a slash at the end."""
        scheme = "http" if self.insecure else "https"
        return f"{scheme}://{SERVED_BY.get(self.registry, self.registry)}"

    def repository(self, name: str) -> str:
        """What the upstream registry calls the repository that Quay calls `name`."""
        return f"{self.namespace}/{name}" if self.namespace else name


def parse_upstream(
    upstream_registry: str,
    *,
    username: str | None = None,
    password: str | None = None,
    insecure: bool = False,
) -> Upstream:
    """Reads Quay's `upstream_registry`, which is `host[:port][/namespace]`.

    Raises `UpstreamRefused` for anything else, a URL with a scheme or a login in it included.
    """
    registry, _, namespace = upstream_registry.partition("/")
    port = registry.rpartition(":")[2]
    well_formed = (
        _REGISTRY.fullmatch(registry)
        and (not namespace or is_repository_name(namespace))
        and (registry.endswith("]") or ":" not in registry or 0 < int(port) < 65536)
    )
    if not well_formed:
        raise UpstreamRefused(
            "the organisation's upstream registry is not of the form host[:port][/namespace]; "
            "correct it in its proxy cache settings in Quay"
        )
    return Upstream(
        registry=registry.lower(),
        namespace=namespace or None,
        username=username,
        password=password,
        insecure=insecure,
    )


def is_repository_name(name: str) -> bool:
    """Whether `name` can stand in the path of a registry URL: no `..`, no query, no escapes."""
    return len(name) <= _LONGEST_REPOSITORY and _REPOSITORY.fullmatch(name) is not None


def configured_authorities(upstream: Upstream) -> frozenset[tuple[str, int]]:
    """Host and port of the upstream, and of its https where it is configured with plain http."""
    host, port = authority(urlsplit(upstream.base_url))
    upgraded = {(host, 443)} if upstream.insecure and port == 80 else set()
    return frozenset({(host, port), *upgraded})


def authority(url: SplitResult) -> tuple[str, int]:
    """Host in lower case without brackets, and port.

    Raises `UpstreamRefused` where there is no host or the port is none.
    """
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if not host:
        raise UpstreamRefused("a URL without a host, or with a port that is no number")
    return host.rstrip("."), port or DEFAULT_PORTS.get(url.scheme, 0)


def same_origin(first: str, second: str) -> bool:
    """Whether what was said to `first` may be said to `second`: same scheme, host and port.

    A step from http on port 80 to https on port 443 of the same host counts as the same origin.
    """
    one, two = urlsplit(first), urlsplit(second)
    if (one.scheme, authority(one)) == (two.scheme, authority(two)):
        return True
    (host, port), (other_host, other_port) = authority(one), authority(two)
    upgraded = (one.scheme, port, two.scheme, other_port) == ("http", 80, "https", 443)
    return upgraded and host == other_host
