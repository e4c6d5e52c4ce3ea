"""What ``nft -j list table`` says of Meter's table: its counters, and whether chains still have their rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import msgspec

MAX_COUNT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets and their bytes."""

    packets: int = 0
    bytes: int = 0

    def is_below(self, other: Traffic) -> bool:
        """Return whether one of the two is less than in ``other``."""
        return self.packets < other.packets or self.bytes < other.bytes


@dataclass(frozen=True, slots=True)
class TableListing:
    """The table: the values of its counters, its sets, and the counter in each rule of each chain, ``""`` for none."""

    counters: Mapping[str, Traffic] = field(default_factory=dict)
    sets: frozenset[str] = frozenset()
    chains: Mapping[str, list[str]] = field(default_factory=dict)


class UnexpectedListing(ValueError):
    """What ``nft`` wrote is not a list of a table; the text says what is wrong."""


class _NamedObject(msgspec.Struct, gc=False):
    name: str


class _NamedCounter(msgspec.Struct, gc=False):
    name: str
    packets: int
    bytes: int


class _Statement(msgspec.Struct, gc=False):
    """A part of a rule. A counter with a name is a text, one without is an object; other parts are not decoded."""

    counter: Any = None


class _ListedRule(msgspec.Struct, gc=False):
    chain: str
    expr: list[_Statement]


class _ListedObject(msgspec.Struct, gc=False):
    counter: _NamedCounter | None = None
    set: _NamedObject | None = None
    chain: _NamedObject | None = None
    rule: _ListedRule | None = None


class _Listed(msgspec.Struct, gc=False):
    nftables: list[_ListedObject]


_decoder = msgspec.json.Decoder(_Listed)


def read_listing(body: bytes) -> TableListing:
    """Return the content of the table; raise :class:`UnexpectedListing`."""
    try:
        listed = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnexpectedListing(f"nft has not written a list of the table: {error}") from None
    counters: dict[str, Traffic] = {}
    sets = set()
    chains: dict[str, list[str]] = {}
    for each in listed.nftables:
        if each.counter is not None:
            counter = each.counter
            if not (0 <= counter.packets <= MAX_COUNT and 0 <= counter.bytes <= MAX_COUNT):
                raise UnexpectedListing(f"the counter {counter.name} has an impossible value")
            counters[counter.name] = Traffic(counter.packets, counter.bytes)
        elif each.set is not None:
            sets.add(each.set.name)
        elif each.chain is not None:
            chains.setdefault(each.chain.name, [])
        elif each.rule is not None:
            chains.setdefault(each.rule.chain, []).append(_counter_in(each.rule.expr))
    return TableListing(counters, frozenset(sets), chains)


def _counter_in(expression: list[_Statement]) -> str:
    return next((each.counter for each in expression if isinstance(each.counter, str)), "")
