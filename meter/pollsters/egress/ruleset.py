"""The commands for nftables: a table of Meter's own, with a chain and counters for each tap. They never drop or change a packet.

Names have all that is known of a chain, so that an agent that was started again recognizes those of the one before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Literal

from meter.pollsters.egress.classes import INTERNET
from meter.pollsters.egress.classes import LOCAL
from meter.pollsters.egress.classes import DestinationClasses
from meter.pollsters.egress.classes import Network

TABLE = "meter_egress"
"""``meter`` is a word of the language of nftables: it cannot be the name of a table."""

PRIORITY = -500
"""Before the chains of others, which may drop or change a packet."""

Command = Mapping[str, Any]
Direction = Literal["outgoing", "incoming"]

ETHERNET_HEADER_BYTES: Mapping[Direction, int] = {"outgoing": 14, "incoming": 0}
"""What a counter lacks of each packet. Where a packet enters the host its Ethernet header is not counted, where it leaves it is."""

_CHAIN = re.compile(r"(outgoing|incoming)-([1-9][0-9]{0,9})-([0-9a-f]{8})-([0-9a-f]{16})-([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class TapChain:
    """The chain of a tap in one direction: what the guest sends enters the host there (*ingress*), what it receives leaves it.

    ``interface`` is the number of the tap, which no other has until the host is booted again, ``boot`` names the boot, ``digest``
    the classes, and ``token`` is a random text: the counters of a chain never begin anew.
    """

    direction: Direction
    interface: int
    boot: str
    digest: str
    token: str

    @classmethod
    def new(cls, direction: Direction, interface: int, boot: str, digest: str) -> TapChain:
        """Return a chain with a name that no other has, or had."""
        return cls(direction, interface, boot, digest, os.urandom(8).hex())

    @classmethod
    def from_name(cls, name: str) -> TapChain | None:
        """Return the chain with this name in nftables; ``None`` for a name of others."""
        match = _CHAIN.fullmatch(name)
        if match is None:
            return None
        direction, interface, boot, digest, token = match.groups()
        return cls("outgoing" if direction == "outgoing" else "incoming", int(interface), boot, digest, token)

    @property
    def name(self) -> str:
        """The name in nftables."""
        return f"{self.direction}-{self.interface}-{self.boot}-{self.digest}-{self.token}"

    def counter(self, class_name: str) -> str:
        """Return the name of the counter of a class."""
        return f"{self.name}.{class_name}"


def add_table(classes: DestinationClasses, existing_sets: Iterable[str] = ()) -> Iterator[Command]:
    """Yield the commands that make the table, and the sets of addresses that it lacks."""
    existing = set(existing_sets)
    yield {"add": {"table": {"family": "netdev", "name": TABLE}}}
    for each in classes.address_sets:
        if classes.set_name(each) not in existing:
            address_type = "ipv4_addr" if each.protocol == "ip" else "ipv6_addr"
            elements = [_element(prefix) for prefix in each.prefixes]
            yield _command(
                "add", "set", name=classes.set_name(each), type=address_type, flags=["interval"], elem=elements
            )


def add_chain(chain: TapChain, device: str, classes: DestinationClasses) -> Iterator[Command]:
    """Yield the commands that make a chain and its counters, all 0."""
    for class_name in classes.names:
        yield _command("add", "counter", name=chain.counter(class_name))
    hook = "ingress" if chain.direction == "outgoing" else "egress"
    yield _command(
        "add", "chain", name=chain.name, type="filter", hook=hook, dev=device, prio=PRIORITY, policy="accept"
    )
    for expression in _rules(chain, classes):
        yield _command("add", "rule", chain=chain.name, expr=expression)


def classes_in_rules(classes: DestinationClasses) -> list[str]:
    """Return the class that each rule of a chain counts, ``""`` for none: what the rules in the table are compared with."""
    return ["", *(each.class_name for each in classes.address_sets), INTERNET, INTERNET, LOCAL]


def delete_chain(chain: TapChain) -> Iterator[Command]:
    """Yield the commands that end a chain; its counters keep their last values."""
    yield _command("flush", "chain", name=chain.name)
    yield _command("delete", "chain", name=chain.name)


def delete_counters(names: Iterable[str]) -> Iterator[Command]:
    """Yield the commands that delete counters, whose chains are deleted."""
    return (_command("delete", "counter", name=name) for name in names)


def delete_sets(names: Iterable[str]) -> Iterator[Command]:
    """Yield the commands that delete sets that no rule uses."""
    return (_command("delete", "set", name=name) for name in names)


def _rules(chain: TapChain, classes: DestinationClasses) -> Iterator[list[Any]]:
    # A chain outlives its tap, and the kernel may attach it to a later one with the same name.
    end = "daddr" if chain.direction == "outgoing" else "saddr"
    interface = {"meta": {"key": "iif" if chain.direction == "outgoing" else "oif"}}
    yield [_match("!=", interface, chain.interface), {"return": None}]
    for each in classes.address_sets:
        address = {"payload": {"protocol": each.protocol, "field": end}}
        yield [_match("==", address, f"@{classes.set_name(each)}"), *_count(chain, each.class_name)]
    for protocol in ("ip", "ip6"):
        yield [_match("==", {"meta": {"key": "protocol"}}, protocol), *_count(chain, INTERNET)]
    yield _count(chain, LOCAL)


def _count(chain: TapChain, class_name: str) -> list[Any]:
    return [{"counter": chain.counter(class_name)}, {"return": None}]


def _match(operator: str, left: Any, right: Any) -> Command:
    return {"match": {"op": operator, "left": left, "right": right}}


def _element(prefix: Network) -> Any:
    if prefix.prefixlen == prefix.max_prefixlen:
        return str(prefix.network_address)
    return {"prefix": {"addr": str(prefix.network_address), "len": prefix.prefixlen}}


def _command(verb: str, kind: str, **members: Any) -> Command:
    return {verb: {kind: {"family": "netdev", "table": TABLE, **members}}}
