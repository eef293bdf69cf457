"""Which addresses users may send the server to."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.platform.public_addresses import is_loopback, is_permitted

PUBLIC = [
    "1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0",
    "192.167.255.255", "198.17.255.255", "198.20.0.0", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450::1",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
]  # fmt: skip
NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.2.1", "192.88.99.1",
    "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8", "100::1", "2001::1", "2001:10::1",
    "2002:808:808::1", "2002:7f00:1::1", "2002:a00:1::1",
    "2001:db8::1", "3fff::1", "5f00::1", "fc00::1", "fd12:3456::1", "fe80::1",
    "fe80::1%eth0", "fec0::1", "ff02::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address):
    assert is_permitted(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_not_public(address):
    assert not is_permitted(ip_address(address))


@given(st.ip_addresses())
def test_nothing_is_permitted_that_python_knows_to_be_internal(address):
    if is_permitted(address):
        inner = getattr(address, "ipv4_mapped", None) or address
        assert inner.is_global
        assert not (inner.is_private or inner.is_loopback or inner.is_link_local or inner.is_multicast)


@given(st.ip_addresses(v=4))
def test_an_ipv6_address_that_stands_for_an_ipv4_one_is_as_public(address):
    expected = is_permitted(address)
    assert is_permitted(IPv6Address(f"::ffff:{address}")) is expected
    assert is_permitted(IPv6Address(f"64:ff9b::{address}")) is expected


class TestNetworksOfTheOperator:
    def test_what_lies_in_one_is_permitted(self):
        networks = (ip_network("10.1.0.0/16"), ip_network("fd00:1::/32"))

        assert is_permitted(IPv4Address("10.1.2.3"), allowed_networks=networks)
        assert is_permitted(IPv6Address("fd00:1::5"), allowed_networks=networks)
        assert is_permitted(IPv6Address("::ffff:10.1.2.3"), allowed_networks=networks)

    def test_their_neighbours_are_not(self):
        networks = (IPv4Network("10.1.0.0/16"), IPv6Network("fd00:1::/32"))

        assert not is_permitted(IPv4Address("10.2.0.1"), allowed_networks=networks)
        assert not is_permitted(IPv6Address("fd00:2::5"), allowed_networks=networks)
        assert not is_permitted(IPv6Address("64:ff9b::10.1.2.3"), allowed_networks=networks)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("app.localhost", True),
        ("127.1", True),
        ("0x7f000001", True),
        ("2130706433", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost.example.com", False),
        ("10.1", False),
        ("1.1.1.1", False),
        ("", False),
        ("a" * 70, False),
    ],
)
def test_this_machine_by_its_name_or_address_alone(host, expected):
    assert is_loopback(host) is expected
