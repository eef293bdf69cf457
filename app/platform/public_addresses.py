"""The addresses that outbound requests may reach: public ones, and those of networks that the operator allows."""

import socket
from collections.abc import Collection, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Listed here, because `is_global` differs between Python versions.
_NOT_PUBLIC_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # behind a provider's NAT
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local: the metadata services of clouds
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
# Global unicast; loopback, private, link-local and multicast addresses are outside.
_PUBLIC_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which is given up: https://www.rfc-editor.org/rfc/rfc7526
            "2620:4f:8000::/48",
            "3fff::/20",  # documentation
        ),
    )
)
# A NAT64 translator forwards to the IPv4 address in the last 32 bits.
_NAT64 = IPv6Network("64:ff9b::/96")


def fixed_addresses(host: str) -> Sequence[Address]:
    """The addresses of a host that means the same ones everywhere; empty for a name that must be looked up.

    These are `localhost` and all names below it, and addresses in every spelling that the system understands, such as
    `127.1` and `0x7f000001`.
    """
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return (IPv4Address("127.0.0.1"), IPv6Address("::1"))
    try:
        found = socket.getaddrinfo(
            name.strip("[]"), None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        return ()
    return [ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether the host is this machine's loopback, by its name or address alone."""
    found = fixed_addresses(host)
    return bool(found) and all((getattr(one, "ipv4_mapped", None) or one).is_loopback for one in found)


def is_permitted(address: Address, *, allowed_networks: Collection[Network] = ()) -> bool:
    """Whether the address is public, or in one of the operator's networks.

    An IPv6 address that represents an IPv4 one (mapped, NAT64) is as public as that one.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        # The operating system connects to the IPv4 address.
        address = address.ipv4_mapped
    return any(address in network for network in allowed_networks) or _is_public(address)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address in _NAT64:
        return _is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)
