"""The hosts of a broker: those of one cluster, in one URL, of which any may be connected to."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

from twisted.internet.interfaces import IStreamClientEndpoint

from meter.bus.amqp.url import CONNECT_SECONDS
from meter.bus.amqp.url import BrokerAddress
from meter.bus.amqp.url import broker_address
from meter.interfaces import Unavailable

FAILOVER_SECONDS = 10.0
"""How long a host may take to accept a connection, and to complete the handshake, before the next one is tried."""

_AUTHORITY = re.compile(r"(\w+://)([^/?#]*)(.*)", re.DOTALL)

T = TypeVar("T")


def broker_addresses(url: str) -> tuple[BrokerAddress, ...]:
    """Return the address of each host in ``amqp://user:password@host1:5672,host2:5672/vhost``, each once.

    What else is in the URL is true of all hosts: user and password, virtual host and parameters. ``ValueError`` describes
    an invalid URL without the password.
    """
    matched = _AUTHORITY.fullmatch(url)
    if matched is None or "," not in matched[2]:
        return (broker_address(url),)
    scheme, authority, rest = matched.groups()
    user, at, hosts = authority.rpartition("@")
    if "@" in user and "," in user:
        raise ValueError(
            "the URL of the broker must have user and password once, before the first host; in a password, the characters"
            " @ and , must be percent-encoded (%40 %2C)"
        )
    if not all(host.strip() for host in hosts.split(",")):
        # Not the names: they may be a password, where an unescaped / in it ends the host.
        raise ValueError(
            "the URL of the broker has an empty name between the commas of its hosts: give"
            " amqp://user:password@host1:5672,host2:5672/vhost; in a password, the characters / # ? and @ must be"
            " percent-encoded (%2F %23 %3F %40)"
        )
    return tuple(dict.fromkeys(broker_address(f"{scheme}{user}{at}{host.strip()}{rest}") for host in hosts.split(",")))


class BrokerHosts:
    """Addresses of one broker and how to connect to them, tried in turn, from a random one on.

    The random start divides a thousand agents among the nodes of a cluster; the turn leads from a host that was lost to
    another one.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[BrokerAddress, IStreamClientEndpoint]],
        *,
        rng: Callable[[int], int] = random.randrange,
    ) -> None:
        self._hosts = hosts
        self._next = rng(len(hosts))

    @classmethod
    def of(cls, reactor: Any, addresses: Sequence[BrokerAddress]) -> BrokerHosts:
        """Return those at ``addresses``; ``ValueError`` for a file of CAs that cannot be used."""
        seconds = CONNECT_SECONDS if len(addresses) == 1 else FAILOVER_SECONDS
        return cls([(address, address.endpoint(reactor, seconds)) for address in addresses])

    @property
    def several(self) -> bool:
        """Whether there is another host to try."""
        return len(self._hosts) > 1

    def __str__(self) -> str:
        """Return the hosts with their ports, and the virtual host."""
        address = self._hosts[0][0]
        return f"{','.join(host.place for host, _ in self._hosts)}, virtual host {address.vhost}"

    def __iter__(self) -> Iterator[tuple[BrokerAddress, IStreamClientEndpoint]]:
        """Yield each address and how to connect to it."""
        return iter(self._hosts)

    async def first(
        self,
        attempt: Callable[[BrokerAddress, IStreamClientEndpoint], Awaitable[T]],
        *,
        wanted: Callable[[], bool] = lambda: True,
    ) -> tuple[BrokerAddress, T]:
        """Return the first host, of each in turn, for which ``attempt`` does not raise, and what it returned.

        If all fail it raises what the only host raised, or :class:`~meter.interfaces.Unavailable` with the reasons of all.
        No further host is tried once ``wanted`` says that none is.
        """
        failures = []
        for _ in self._hosts:
            address, endpoint = self._hosts[self._next]
            self._next = (self._next + 1) % len(self._hosts)
            try:
                return address, await attempt(address, endpoint)
            except Exception as error:
                if not self.several or not wanted():
                    raise
                failures.append(f"{address.place}: {str(error) or type(error).__name__}")
        raise Unavailable("; ".join(failures))
