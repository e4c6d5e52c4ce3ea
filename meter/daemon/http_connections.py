"""Connections to the HTTP servers: how many one client address may have open, and how long a request may take to arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from ipaddress import IPv6Address
from ipaddress import IPv6Network
from ipaddress import ip_address
from typing import Any

from twisted.logger import Logger

UNIX = "unix"
"""The address of all clients of a UNIX socket."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one HTTP server.

    ``max_per_address`` is the number of open connections of one client address. A request line with its headers has to
    arrive within ``max_head_seconds`` of its first byte, and a body within ``max_body_seconds`` of the end of the headers.
    """

    max_per_address: int = 100
    max_head_seconds: float = 30.0
    max_body_seconds: float = 60.0


def parsed_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address, ``None`` if ``text`` is none; IPv4 addresses that are mapped to IPv6 are IPv4 addresses."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def limited_address(address: IPv4Address | IPv6Address | None) -> str:
    """Return what limits per address count ``address`` as: an IPv6 address as its network of 64 bits.

    That is the smallest network that a site is assigned: its clients can use any address in it.
    """
    if address is None:
        return UNIX
    return str(IPv6Network((address, 64), strict=False)) if isinstance(address, IPv6Address) else str(address)


def address_of_peer(peer: Any) -> str:
    """Return what the other end of a connection counts as; used where no proxy is trusted."""
    return limited_address(parsed_address(str(getattr(peer, "host", ""))))


def _ignore(reason: str) -> None:
    """Do not count."""


class OpenConnections:
    """Counts the open connections of one HTTP server by client address, and has its limits.

    ``address_of`` returns what the other end of a connection counts as, ``None`` if it is not limited. ``count`` is called
    with the reason of each rejection: ``connections``, ``head`` or ``body``.
    """

    _log = Logger()

    def __init__(
        self,
        limits: ConnectionLimits | None = None,
        *,
        address_of: Callable[[Any], str | None] = address_of_peer,
        count: Callable[[str], object] = _ignore,
    ) -> None:
        self.limits = limits or ConnectionLimits()
        self.count = count
        self._address_of = address_of
        self._open: Counter[str] = Counter()
        self._logged: set[str] = set()

    def open(self, peer: Any) -> Callable[[], None] | None:
        """Count a connection of ``peer``; return what to call when it is closed, ``None`` if the address has too many."""
        address = self._address_of(peer)
        if address is None:
            return _nothing
        if self._open[address] >= self.limits.max_per_address:
            self.count("connections")
            if address not in self._logged:
                self._logged.add(address)
                self._log.warn(
                    "{address} has {count} open connections; further ones are refused",
                    address=address,
                    count=self._open[address],
                )
            return None
        self._open[address] += 1
        return lambda: self._close(address)

    def _close(self, address: str) -> None:
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
            self._logged.discard(address)

    def open_of(self, address: str) -> int:
        """Return how many connections of ``address`` are open."""
        return self._open.get(address, 0)


def _nothing() -> None:
    """Do nothing: the connection is not counted."""
