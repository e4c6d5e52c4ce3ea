"""The address of a client, for limits and the log: the other end of its connection, or what a trusted proxy says."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from ipaddress import IPv6Address
from ipaddress import ip_network
from typing import Any

from meter.daemon.http_connections import UNIX
from meter.daemon.http_connections import limited_address
from meter.daemon.http_connections import parsed_address

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
        return limited_address(self._found(request))

    def address_of_peer(self, peer: Any) -> str | None:
        """Return the address that limits apply to of the other end of a connection, ``None`` for a trusted proxy."""
        address = parsed_address(str(getattr(peer, "host", "")))
        return None if self._trusts(address) else limited_address(address)

    def exact_address_of(self, request: Any) -> str:
        """Return the address of the client that sent ``request``, also of an IPv6 client, for the log."""
        return _shown(self._found(request))

    def _found(self, request: Any) -> IPv4Address | IPv6Address | None:
        """Return the address of the client, ``None`` if it is that of a UNIX socket."""
        peer = parsed_address(str(getattr(request.getClientAddress(), "host", "")))
        if not self._trusts(peer):
            return peer
        forwarded = b",".join(request.requestHeaders.getRawHeaders(b"x-forwarded-for") or ())
        found = peer
        for hop in reversed(forwarded.decode("ascii", "replace").split(",")[-MAX_HOPS:]):
            address = parsed_address(hop.strip())
            if address is None:
                break
            found = address
            if not self._is_trusted(address):
                break
        return found

    def _trusts(self, peer: IPv4Address | IPv6Address | None) -> bool:
        return self._trusts_unix if peer is None else self._is_trusted(peer)

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def _shown(address: IPv4Address | IPv6Address | None) -> str:
    return UNIX if address is None else str(address)
