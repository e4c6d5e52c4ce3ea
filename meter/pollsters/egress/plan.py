"""What is to be changed in the table, so that each tap has its chains: computed from what the table has and which taps exist."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from meter.pollsters.egress.classes import DestinationClasses
from meter.pollsters.egress.listing import TableListing
from meter.pollsters.egress.listing import Traffic
from meter.pollsters.egress.ruleset import Command
from meter.pollsters.egress.ruleset import Direction
from meter.pollsters.egress.ruleset import TapChain
from meter.pollsters.egress.ruleset import add_chain
from meter.pollsters.egress.ruleset import add_table
from meter.pollsters.egress.ruleset import classes_in_rules
from meter.pollsters.egress.ruleset import delete_chain
from meter.pollsters.egress.ruleset import delete_counters
from meter.pollsters.egress.ruleset import delete_sets

ByClass = Mapping[str, Traffic]
"""The counters of a chain, by class."""


@dataclass(frozen=True, slots=True)
class TapPort:
    """An interface of a domain, whose device on this host is the tap ``device`` with the number ``interface``."""

    device: str
    interface: int
    uuid: str
    resource_id: str
    metadata: Mapping[str, Any]
    project_id: str | None
    user_id: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall be counted in this boot of the host: ``ports`` by number of the tap. ``interfaces`` are the numbers of all devices."""

    classes: DestinationClasses
    boot: str
    directions: Sequence[Direction]
    ports: Mapping[int, TapPort]
    interfaces: Collection[int]


@dataclass(slots=True)
class KnownCounters:
    """What earlier polls have read: the last values of chains, and the chains that have ended and whose last values were sent."""

    values: dict[TapChain, ByClass] = field(default_factory=dict)
    sent: set[TapChain] = field(default_factory=set)


@dataclass(slots=True)
class Plan:
    """The chains that remain as they are, those that end, and new ones; with the commands for nftables.

    The counters of a chain that ends are read after the commands and deleted by the plan of a later poll, so that no packet is lost.
    """

    remaining: list[TapChain] = field(default_factory=list)
    ending: list[TapChain] = field(default_factory=list)
    new: list[tuple[TapChain, TapPort]] = field(default_factory=list)
    deletions: list[Command] = field(default_factory=list)
    table: list[Command] = field(default_factory=list)
    additions: dict[TapChain, list[Command]] = field(default_factory=dict)
    cleaning: list[Command] = field(default_factory=list)

    def commands(self) -> list[Command]:
        """Return all commands, none if nothing is to be changed."""
        added = [command for commands in self.additions.values() for command in commands]
        return [*self.deletions, *self.table, *added, *self.cleaning]


def counters_by_chain(listing: TableListing) -> dict[str, dict[str, Traffic]]:
    """Return all counters, by name of the chain and by class."""
    found: dict[str, dict[str, Traffic]] = {}
    for name, traffic in listing.counters.items():
        chain, _, class_name = name.rpartition(".")
        found.setdefault(chain, {})[class_name] = traffic
    return found


def make_plan(listing: TableListing, wanted: Wanted, known: KnownCounters) -> Plan:
    """Return what is to be changed. What has other names than Meter gives is left as it is."""
    plan = Plan()
    counters = counters_by_chain(listing)
    expected = classes_in_rules(wanted.classes)
    remaining: set[tuple[Direction, int]] = set()
    for chain in _chains([*listing.chains, *counters]):
        values = counters.get(chain.name, {})
        before = known.values.get(chain, {})
        was_reset = any(values.get(name, Traffic()).is_below(traffic) for name, traffic in before.items())
        intact = (
            (chain.boot, chain.digest) == (wanted.boot, wanted.classes.digest)
            and chain.direction in wanted.directions
            and chain.interface in wanted.interfaces
            and listing.chains.get(chain.name) == [name and chain.counter(name) for name in expected]
            and len(values) == len(wanted.classes.names)
        )
        if intact and not was_reset and (chain.direction, chain.interface) not in remaining:
            remaining.add((chain.direction, chain.interface))
            plan.remaining.append(chain)
            continue
        if chain.name in listing.chains:
            plan.deletions += delete_chain(chain)
        if chain.boot == wanted.boot and chain not in known.sent and not was_reset:
            plan.ending.append(chain)
        else:
            plan.deletions += delete_counters(chain.counter(name) for name in values)
    for interface, port in wanted.ports.items():
        for direction in wanted.directions:
            if (direction, interface) not in remaining:
                chain = TapChain.new(direction, interface, wanted.boot, wanted.classes.digest)
                plan.new.append((chain, port))
                plan.additions[chain] = list(add_chain(chain, port.device, wanted.classes))
    if plan.new:
        plan.table = list(add_table(wanted.classes, listing.sets))
    unused = listing.sets - set(wanted.classes.set_names)
    plan.cleaning = list(delete_sets(sorted(name for name in unused if name.startswith("set-"))))
    return plan


def _chains(names: Iterable[str]) -> list[TapChain]:
    """Return Meter's chains among those with these names, in an order that does not depend on that of the list."""
    found = (TapChain.from_name(name) for name in sorted(set(names)))
    return [chain for chain in found if chain is not None]
