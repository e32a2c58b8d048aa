"""Which addresses may be connected to on behalf of an upstream registry.

A registry may send us elsewhere, by a redirect or by the realm of a token. A hostile one sends us
to what only we can reach: ourselves, our neighbours, the cloud's metadata service. So every host
but the configured one may have public addresses only, unless `SSRF_ALLOWED_HOSTS` names it. The
check is made on the address that is connected to, after the one and only look-up of the name, so
that a name with a second answer up its sleeve gains nothing.

The configured upstream itself may be private or loopback: internal mirrors are what proxy
organisations are often for, and Quay judges the name when the organisation is configured. But
organisation administrators write it, and its name may come to mean something else later. So even
it may not be link-local, multicast, unspecified or a metadata service, unless allowed by name.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from data.errors import UpstreamRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Metadata services of clouds that lie in ranges which are otherwise merely private.
METADATA_SERVICES = frozenset(
    {ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")}
)
# IPv6 that a gateway turns to the IPv4 address in its last 32 bits (RFC 6052).
TRANSLATED_TO_IPV4 = ipaddress.IPv6Network("64:ff9b::/96")
INSIDE_DOMAINS = (".localhost", ".local", ".internal", ".svc")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressGuard:
    """Refuses addresses, knowing the configured upstream from everybody else."""

    configured: frozenset[tuple[str, int]]  # (host, port) of the organisation's upstream
    allowed_hosts: frozenset[str]  # Quay's SSRF_ALLOWED_HOSTS: names, addresses, CIDR ranges

    def check_address(self, host: str, port: int, address: str) -> None:
        """Raises `UpstreamRefused` unless `address`, to which `host` resolved, may be used."""
        configured = (host.lower(), port) in self.configured
        kind = forbidden_kind(address, configured=configured)
        if kind and not is_allowed(host, address, self.allowed_hosts):
            raise UpstreamRefused(
                f"{host} has the {kind} address {address}, which a registry may not lead us to; "
                "if it is meant, name the host or its range in SSRF_ALLOWED_HOSTS"
            )

    def check_name(self, host: str, port: int) -> None:
        """Raises `UpstreamRefused` for a host that only a network's inside knows.

        For requests that go through a proxy, which looks the name up itself: the proxy is the
        operator's own, and its rules decide about the addresses of public names.
        """
        if (host.lower(), port) in self.configured or is_allowed(host, None, self.allowed_hosts):
            return
        if as_address(host) is not None:
            self.check_address(host, port, host)
        elif is_inside_name(host):
            raise UpstreamRefused(
                f"{host} is a name of an inside network, which a registry may not lead us to; "
                "if it is meant, name the host in SSRF_ALLOWED_HOSTS"
            )


def forbidden_kind(address: str, *, configured: bool) -> str | None:
    """What is wrong with connecting to `address`, in a word, or None."""
    ip = as_address(address)
    if ip is None:
        return "unreadable"
    ip = embedded_ipv4(ip)
    if ip in METADATA_SERVICES:
        return "metadata service's"
    for kind in ("unspecified", "link_local", "multicast"):
        if getattr(ip, f"is_{kind}"):
            return kind.replace("_", "-")
    if configured:
        return None
    if ip.is_loopback:
        return "loopback"
    site_local = isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local
    if ip.is_private or site_local:
        return "private"
    return None if ip.is_global and not ip.is_reserved else "reserved"


def as_address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def embedded_ipv4(address: Address) -> Address:
    """The IPv4 address that traffic to an IPv6 address ends at, where it carries one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in TRANSLATED_TO_IPV4:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_allowed(host: str, address: str | None, allowed_hosts: frozenset[str]) -> bool:
    """Whether an entry of SSRF_ALLOWED_HOSTS names the host, or a range that holds its address.

    Names are compared without regard to case, as Quay compares them.
    """
    ip = as_address(address if address is not None else host)
    for entry in allowed_hosts:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            if entry.lower() == host.lower():
                return True
            continue
        if ip is not None and (ip in network or embedded_ipv4(ip) in network):
            return True
    return False


def is_inside_name(host: str) -> bool:
    """A name without a dot, of a domain that is never public, or a number posing as a name."""
    name = host.lower().rstrip(".")
    return "." not in name or name.endswith(INSIDE_DOMAINS) or name.rpartition(".")[2][0].isdigit()
