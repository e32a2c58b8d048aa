"""Which addresses a registry may lead us to."""

from __future__ import annotations

import pytest

from data.errors import UpstreamRefused
from data.upstream.addresses import AddressGuard, forbidden_kind, is_allowed

PUBLIC = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"]
FORBIDDEN = [
    ("127.0.0.1", "loopback"),
    ("127.8.9.10", "loopback"),
    ("::1", "loopback"),
    ("::ffff:127.0.0.1", "loopback"),
    ("64:ff9b::7f00:1", "loopback"),
    ("2002:7f00:1::", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("::", "unspecified"),
    ("169.254.169.254", "link-local"),
    ("::ffff:169.254.169.254", "link-local"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("10.1.2.3", "private"),
    ("172.16.0.1", "private"),
    ("192.168.1.1", "private"),
    ("::ffff:10.1.2.3", "private"),
    ("fd12:3456::1", "private"),
    ("fec0::1", "private"),
    ("100.64.0.1", "reserved"),
    ("224.0.0.1", "multicast"),
    ("ff02::1", "multicast"),
    ("fd00:ec2::254", "metadata service's"),
    ("100.100.100.200", "metadata service's"),
    ("no address", "unreadable"),
]


def guard(*allowed: str) -> AddressGuard:
    return AddressGuard(
        configured=frozenset({("mirror.example", 5000)}), allowed_hosts=frozenset(allowed)
    )


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_for_everybody(address: str) -> None:
    guard().check_address("cdn.example", 443, address)


@pytest.mark.parametrize(("address", "kind"), FORBIDDEN)
def test_a_registry_leads_us_to_no_address_of_the_inside(address: str, kind: str) -> None:
    with pytest.raises(UpstreamRefused) as refused:
        guard().check_address("cdn.example", 443, address)

    assert f"cdn.example has the {kind} address {address}" in str(refused.value)
    assert "SSRF_ALLOWED_HOSTS" in str(refused.value)


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.1", "fd12:3456::1", "100.64.0.1"])
def test_the_configured_upstream_may_be_an_internal_mirror(address: str) -> None:
    guard().check_address("mirror.example", 5000, address)

    with pytest.raises(UpstreamRefused):
        guard().check_address("mirror.example", 6379, address)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "fd00:ec2::254"]
)
def test_even_the_configured_upstream_is_no_metadata_service(address: str) -> None:
    with pytest.raises(UpstreamRefused, match="which a registry may not lead us to"):
        guard().check_address("mirror.example", 5000, address)


@pytest.mark.parametrize(
    "entry", ["cdn.example", "CDN.Example", "10.0.0.0/8", "10.1.2.3", "10.1.2.3/32"]
)
def test_allowed_hosts_are_names_addresses_and_ranges(entry: str) -> None:
    guard(entry).check_address("cdn.example", 443, "10.1.2.3")
    guard(entry).check_address("cdn.example", 443, "::ffff:10.1.2.3")


@pytest.mark.parametrize("entry", ["other.example", "192.168.0.0/16", "10.1.2.4", "example"])
def test_other_entries_allow_nothing(entry: str) -> None:
    with pytest.raises(UpstreamRefused):
        guard(entry).check_address("cdn.example", 443, "10.1.2.3")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "metadata",
        "metadata.google.internal",
        "redis.quay.svc",
        "kubernetes.default.svc.cluster.local",
        "printer.local.",
        "2130706433",
        "127.1",
        "0x7f.0.0.0x1",
    ],
)
def test_behind_a_proxy_names_of_the_inside_are_refused(host: str) -> None:
    with pytest.raises(UpstreamRefused, match="a name of an inside network"):
        guard().check_name(host, 443)

    guard(host).check_name(host, 443)


def test_behind_a_proxy_addresses_are_judged_and_public_names_left_to_the_proxy() -> None:
    guard().check_name("cdn.example", 443)
    guard().check_name("mirror.example", 5000)
    guard().check_name("93.184.215.14", 443)
    with pytest.raises(UpstreamRefused, match="the loopback address"):
        guard().check_name("[::1]", 443)


def test_an_address_is_allowed_by_its_own_range_only() -> None:
    assert is_allowed("10.1.2.3", None, frozenset({"10.0.0.0/8"}))
    assert not is_allowed("cdn.example", None, frozenset({"0.0.0.0/0"}))


def test_reserved_addresses_are_not_public() -> None:
    assert forbidden_kind("240.0.0.1", configured=False) in ("private", "reserved")
