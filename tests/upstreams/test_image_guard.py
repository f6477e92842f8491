"""Only public addresses, however they are spelled."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.upstreams.image_guard import checked_url, is_public

PRIVATE = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
]


@given(st.sampled_from(PRIVATE).flatmap(lambda net: st.ip_addresses(network=net)))
def test_no_private_address_is_public_alone_or_inside_an_ipv6_one(ip: ipaddress.IPv4Address) -> None:
    number = int(ip)
    assert not is_public(str(ip))
    for carrier in (0, 0xFFFF << 32, 0x64FF9B << 96, (0x2002 << 112) | (number << 80)):
        assert not is_public(str(ipaddress.IPv6Address(carrier | number)))


@pytest.mark.parametrize(
    "address", ["::1", "::", "fe80::1", "fe80::1%1", "fc00::1", "fec0::1", "ff02::1", "168.63.129.16", ""]
)
def test_inner_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/",
        "http://127.0.0.1./", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://a:b@example.com/",
        "ftp://example.com/", "http://example.com:22/", "http:///x",
    ],
)  # fmt: skip
def test_urls_that_lead_inside_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"it|its|URL|host|port"):
        checked_url(url, ())


def test_an_allowed_host_may_be_private_and_have_any_port() -> None:
    assert checked_url("http://127.0.0.1:8080/x", {"127.0.0.1"}).port == 8080
