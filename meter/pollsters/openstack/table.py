"""Which meters a listing has, as data: each meter, and how its volume is read from an entry.

A new meter needs a :class:`MeteredListing` in ``services.py``, its provider in ``__init__.py`` and its line in
``README.rst``.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meter.openstack import Listing
from meter.sample import EXISTED_THROUGHOUT
from meter.sample import MAX_VOLUME
from meter.sample import MeterDefinition
from meter.sample import with_reserved

Item = Mapping[str, Any]


class BadItem(ValueError):
    """An entry that cannot be metered. ``kind`` is the reason as a metric label, the text explains it."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Measure:
    """A meter and its volume: a function of an entry that raises :class:`BadItem` if the entry has no volume.

    ``optional``: some versions of the service lack the volume; that is not counted as skipped.
    """

    meter: MeterDefinition
    volume: Callable[[Item], int | float]
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredListing:
    """A listing and the meters of each of its entries; ``name`` is the pollster's.

    ``resource``, ``project`` and ``user`` are keys of the entry, of which the first that exists is used; ``metadata``
    maps keys of the sample's metadata to keys of the entry. ``extension``: some installations of the service lack this
    listing. ``ids_reused``: a later resource may have the id of a deleted one. ``unbilled``: which entries are no
    resources of a project, although the service lists them; they are treated as if it did not.
    """

    name: str
    listing: Listing
    measures: tuple[Measure, ...]
    resource: tuple[str, ...] = ("id",)
    project: tuple[str, ...] = ("project_id", "tenant_id")
    user: tuple[str, ...] = ("user_id",)
    metadata: Mapping[str, str]
    extension: bool = False
    ids_reused: bool = False
    unbilled: Callable[[Item], bool] = lambda _: False

    def __hash__(self) -> int:
        return hash(self.name)

    def resource_of(self, item: Item) -> str:
        """Return the entry's id as text; raise :class:`BadItem` if it has none."""
        for key in self.resource:
            value = item.get(key)
            if isinstance(value, int | str) and str(value):
                return str(value)
        raise BadItem("no-id", f"it has no {' or '.join(self.resource)}")

    def project_of(self, item: Item) -> str | None:
        """Return the id of the entry's project, or ``None``."""
        return _text(item, self.project)

    def user_of(self, item: Item) -> str | None:
        """Return the id of the entry's user, or ``None``."""
        return _text(item, self.user)

    def metadata_of(self, item: Item) -> dict[str, Any]:
        """Return the metadata of the entry's samples."""
        found = {key: item[source] for key, source in self.metadata.items() if source in item}
        return found if self.ids_reused else with_reserved(found, run=EXISTED_THROUGHOUT)


def _text(item: Item, keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = item.get(key)
        if isinstance(value, str) and value:
            return value
    return None


def exists(_: Item) -> int:
    """Return 1, the volume of an existing resource."""
    return 1


def field_of(item: Item, name: str) -> Any:
    """Return the value at ``name``, a path with dots; ``None`` if it does not exist."""
    value: Any = item
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def amount(name: str, divisor: int = 1) -> Callable[[Item], int | float]:
    """Return a function that reads the non-negative number at ``name``, divided by ``divisor``."""

    def volume(item: Item) -> int | float:
        value = number(field_of(item, name), name)
        return value if divisor == 1 else value / divisor

    return volume


def number(value: Any, name: str) -> int | float:
    """Return ``value``, a non-negative number or the text of one, as a number; raise :class:`BadItem`."""
    if value is None:
        raise BadItem("no-volume", f"{name} is missing")
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise BadItem("bad-volume", f"{name} should be a number, not {value!r:.40}") from None
    # NaN is not below the limit; math.isfinite() raises an exception for an integer of 400 digits.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_VOLUME:
        raise BadItem("bad-volume", f"{name} should be a number of at most {MAX_VOLUME:g}, not {value!r:.40}")
    if value < 0:
        raise BadItem("bad-volume", f"{name} should not be negative, as {value!r:.40} is")
    return value


def mapped(name: str, numbers: Mapping[str, int], other: int = -1) -> Callable[[Item], int]:
    """Return a function that maps the text at ``name`` to a number; ``other`` for a text that ``numbers`` lacks."""

    def volume(item: Item) -> int:
        value = field_of(item, name)
        if not isinstance(value, str):
            raise BadItem("no-volume", f"{name} is missing")
        return numbers.get(value.upper(), other)

    return volume


def same_names(*names: str) -> dict[str, str]:
    """Return a mapping of metadata keys to the same keys of the entry."""
    return dict(zip(names, names, strict=True))


def gauge(name: str, unit: str) -> MeterDefinition:
    """Return the definition of a gauge; all meters of this family are gauges."""
    return MeterDefinition(name, "gauge", unit)
