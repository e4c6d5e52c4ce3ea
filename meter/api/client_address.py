"""The address of a client, for limits and the log: the other end of its connection, or what a trusted proxy says."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from ipaddress import IPv6Address
from ipaddress import IPv6Network
from ipaddress import ip_address
from ipaddress import ip_network
from typing import Any

UNIX = "unix"
"""The address of all clients of a UNIX socket, and its name in the list of trusted proxies."""

MAX_HOPS = 20
"""Maximum number of addresses in ``X-Forwarded-For`` that are read, beginning with the last one."""


class ClientAddresses:
    """Finds client addresses; ``ValueError`` if a proxy is not an address or a network.

    ``X-Forwarded-For`` is read only if the connection comes from one of ``trusted_proxies``, and only as far as proxies of
    that list wrote it: a client can send the header too. The address is then the last one that is not a trusted proxy.

    For limits, addresses of one IPv6 network of 64 bits, the smallest that a site is assigned, count as one address.
    """

    def __init__(self, trusted_proxies: Iterable[str] = ()) -> None:
        proxies = tuple(trusted_proxies)
        self._trusts_unix = UNIX in proxies
        self._networks = [ip_network(each) for each in proxies if each != UNIX]

    def address_of(self, request: Any) -> str:
        """Return the address that limits apply to of the client that sent ``request``."""
        address = self._found(request)
        return str(IPv6Network((address, 64), strict=False)) if isinstance(address, IPv6Address) else _shown(address)

    def exact_address_of(self, request: Any) -> str:
        """Return the address of the client that sent ``request``, also of an IPv6 client, for the log."""
        return _shown(self._found(request))

    def _found(self, request: Any) -> IPv4Address | IPv6Address | None:
        """Return the address of the client, ``None`` if it is that of a UNIX socket."""
        peer = _parsed(str(getattr(request.getClientAddress(), "host", "")))
        if not (self._trusts_unix if peer is None else self._is_trusted(peer)):
            return peer
        forwarded = b",".join(request.requestHeaders.getRawHeaders(b"x-forwarded-for") or ())
        found = peer
        for hop in reversed(forwarded.decode("ascii", "replace").split(",")[-MAX_HOPS:]):
            address = _parsed(hop.strip())
            if address is None:
                break
            found = address
            if not self._is_trusted(address):
                break
        return found

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address, ``None`` if ``text`` is none; IPv4 addresses that are mapped to IPv6 are IPv4 addresses."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _shown(address: IPv4Address | IPv6Address | None) -> str:
    return UNIX if address is None else str(address)
