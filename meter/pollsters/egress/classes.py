"""Classes of the other end of a packet: named lists of prefixes, of which the first that contains the address is used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from ipaddress import IPv6Network
from ipaddress import collapse_addresses
from typing import Literal

Network = IPv4Network | IPv6Network
Protocol = Literal["ip", "ip6"]

LOCAL = "local"
"""The class of what no router forwards: other protocols than IP, and the addresses in :data:`LOCAL_PREFIXES`."""

INTERNET = "internet"
"""The class of all other addresses."""

LOCAL_PREFIXES: tuple[Network, ...] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),  # link-local, with the metadata service of most clouds
    IPv4Network("224.0.0.0/4"),  # multicast
    IPv4Network("255.255.255.255/32"),  # broadcast, such as the search for a DHCP server
    IPv6Network("::/127"),  # unspecified, and loopback
    IPv6Network("fe80::/10"),
    IPv6Network("ff00::/8"),
)


@dataclass(frozen=True, slots=True)
class AddressSet:
    """The prefixes of a class in one protocol; they do not overlap."""

    class_name: str
    protocol: Protocol
    prefixes: tuple[Network, ...]


class DestinationClasses:
    """The classes, in the order in which they are tried: those that are configured, then :data:`LOCAL` and :data:`INTERNET`.

    ``digest`` distinguishes them from all other classes.
    """

    def __init__(self, configured: Sequence[tuple[str, Sequence[Network]]]) -> None:
        self.names = (*(name for name, _ in configured), LOCAL, INTERNET)
        self.address_sets = tuple(_address_sets([*configured, (LOCAL, LOCAL_PREFIXES)]))
        self.digest = hashlib.sha256(repr(self.address_sets).encode()).hexdigest()[:16]

    def set_name(self, address_set: AddressSet) -> str:
        """Return the name of a set in nftables."""
        return f"set-{self.digest}.{address_set.class_name}.{address_set.protocol}"

    @property
    def set_names(self) -> list[str]:
        """The names of all sets in nftables."""
        return [self.set_name(each) for each in self.address_sets]


def _address_sets(classes: Sequence[tuple[str, Sequence[Network]]]) -> Iterator[AddressSet]:
    for name, prefixes in classes:
        of_ip = tuple(collapse_addresses(each for each in prefixes if isinstance(each, IPv4Network)))
        of_ip6 = tuple(collapse_addresses(each for each in prefixes if isinstance(each, IPv6Network)))
        if of_ip:
            yield AddressSet(name, "ip", of_ip)
        if of_ip6:
            yield AddressSet(name, "ip6", of_ip6)
