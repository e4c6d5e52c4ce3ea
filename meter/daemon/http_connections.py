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

    ``max_per_address`` is the number of open connections of one client address, and ``max_open`` that of all together, those
    of addresses without a limit included. A request line with its headers has to
    arrive within ``max_head_seconds`` of its first byte, and a body within ``max_body_seconds`` of the end of the headers.
    """

    max_per_address: int = 100
    max_open: int = 800
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


class TooManyConnections(Exception):
    """A connection is refused, with the ``status`` of its response."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class OpenConnections:
    """Counts the open connections of one HTTP server, also by client address, and has its limits.

    ``address_of`` returns what the other end of a connection counts as, ``None`` if its address is not limited. ``count`` is called
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
        self._open: Counter[str | None] = Counter()
        self._all = 0
        self._logged: set[str] = set()

    def open(self, peer: Any) -> Callable[[], None]:
        """Count a connection of ``peer``; return what to call when it is closed, or raise :class:`TooManyConnections`."""
        address = self._address_of(peer)
        most = self.limits.max_per_address
        if address is not None and self._open[address] >= most:
            self._refused(address)
            raise TooManyConnections(429, f"One client address can have {most} open connections.")
        if self._all >= self.limits.max_open:
            self._refused("the server")
            raise TooManyConnections(503, f"The server has {self._all} open connections, as many as it can have.")
        self._open[address] += 1
        self._all += 1
        return lambda: self._close(address)

    def _refused(self, holder: str) -> None:
        self.count("connections")
        if holder not in self._logged:
            self._logged.add(holder)
            count = self._open[holder] or self._all
            self._log.warn(
                "{holder} has {count} open connections; further ones are refused", holder=holder, count=count
            )

    def _close(self, address: str | None) -> None:
        self._open[address] -= 1
        self._all -= 1
        if self._all < self.limits.max_open // 2:  # not with each one that comes and goes at the limit
            self._logged.discard("the server")
        if not self._open[address]:
            del self._open[address]
            self._logged.discard(address or "")

    def open_of(self, address: str) -> int:
        """Return how many connections of ``address`` are open."""
        return self._open.get(address, 0)
