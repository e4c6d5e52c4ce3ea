"""What is metered of an entry of a listing, as data: each meter, and how its volume is read.

A new meter is a new row in the module of its service, its provider in ``__init__.py`` and its line in ``README.rst``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meter.openstack import Listing
from meter.sample import EXISTED_THROUGHOUT
from meter.sample import MeterDefinition
from meter.sample import with_reserved

Item = Mapping[str, Any]


class BadItem(ValueError):
    """An entry that cannot be metered. ``kind`` is a word to count it by, the text says what is wrong with it."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Measure:
    """A meter and its volume: a function of the entry that raises :class:`BadItem` where there is none.

    ``optional``: not every version of the service says it, so that it may be missing.
    """

    meter: MeterDefinition
    volume: Callable[[Item], int | float]
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A listing and what is metered of each of its entries, under the pollster's name.

    ``resource``, ``project`` and ``user`` are keys of the entry, the first that is there counts; ``metadata`` maps keys
    of the sample's metadata to keys of the entry. ``extension``: a service may be there without this listing.
    ``ids_return``: the name of an entry that is gone may be given to another one.
    """

    name: str
    listing: Listing
    measures: tuple[Measure, ...]
    resource: tuple[str, ...] = ("id",)
    project: tuple[str, ...] = ("project_id", "tenant_id")
    user: tuple[str, ...] = ("user_id",)
    metadata: Mapping[str, str]
    extension: bool = False
    ids_return: bool = False

    def __hash__(self) -> int:
        return hash(self.name)

    def resource_of(self, item: Item) -> str:
        """Return the entry's id as text; :class:`BadItem` where it has none."""
        for key in self.resource:
            value = item.get(key)
            if isinstance(value, int | str) and str(value):
                return str(value)
        raise BadItem("no-id", f"it has no {' nor '.join(self.resource)}")

    def project_of(self, item: Item) -> str | None:
        """Return whose it is."""
        return _text(item, self.project)

    def user_of(self, item: Item) -> str | None:
        """Return who made it, where the service says so."""
        return _text(item, self.user)

    def metadata_of(self, item: Item) -> dict[str, Any]:
        """Return what the sample says beyond its volume."""
        found = {key: item[source] for key, source in self.metadata.items() if source in item}
        return found if self.ids_return else with_reserved(found, run=EXISTED_THROUGHOUT)


def _text(item: Item, keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = item.get(key)
        if isinstance(value, str) and value:
            return value
    return None


def one(_: Item) -> int:
    """Return 1: it exists."""
    return 1


def field_of(item: Item, name: str) -> Any:
    """Return the value at ``name``, whose dots lead into mappings; ``None`` where there is none."""
    value: Any = item
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def amount(name: str, divisor: int = 1) -> Callable[[Item], int | float]:
    """Return a function that reads the amount at ``name``, divided by ``divisor``: a number that is not negative."""

    def volume(item: Item) -> int | float:
        value = number(field_of(item, name), name)
        return value if divisor == 1 else value / divisor

    return volume


def number(value: Any, name: str) -> int | float:
    """Return ``value`` as a number of 0 or more; text that is one will do. :class:`BadItem` names what is wrong."""
    if value is None:
        raise BadItem("no-volume", f"{name} is not known")
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise BadItem("bad-volume", f"{name} should be a number, not {value!r:.40}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadItem("bad-volume", f"{name} should be a finite number, not {value!r:.40}")
    if value < 0:
        raise BadItem("bad-volume", f"{name} should not be negative, as {value!r:.40} is")
    return value


def word(name: str, numbers: Mapping[str, int], other: int = -1) -> Callable[[Item], int]:
    """Return a function that reads the word at ``name`` as its number; ``other`` for a word that is not known."""

    def volume(item: Item) -> int:
        value = field_of(item, name)
        if not isinstance(value, str):
            raise BadItem("no-volume", f"{name} is not known")
        return numbers.get(value.upper(), other)

    return volume


def all_of(*names: str) -> dict[str, str]:
    """Return metadata that is called as the service calls it."""
    return dict(zip(names, names, strict=True))


def gauge(name: str, unit: str) -> MeterDefinition:
    """Return the definition of a gauge: all that is polled here are."""
    return MeterDefinition(name, "gauge", unit)
