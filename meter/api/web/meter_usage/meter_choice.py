"""The meters that a page offers, and the one that its URL names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meter.api.auth.visibility import VisibleStore
from meter.query import SampleFilter
from meter.query import StoredMeter
from meter.sample import SampleType

MAX_OFFERED_METERS = 300
"""Meters that a page offers in a list; of more, the name of a meter has to be typed."""

USUAL_METERS = ("cpu", "instance", "vcpus", "memory")
"""Meters that are shown, if there are such, before one is chosen."""


@dataclass(frozen=True, slots=True)
class OfferedMeter:
    """A meter by its name, with all types and units of its samples."""

    name: str
    types: tuple[SampleType, ...]
    units: tuple[str, ...]

    @property
    def description(self) -> str:
        """Units and types, for people."""
        return ", ".join([" / ".join(each or "no unit" for each in self.units), " / ".join(self.types)])


@dataclass(frozen=True, slots=True)
class MeterChoice:
    """The meters that the requester may see, ``None`` if they are too many to offer, and the chosen one.

    Without a chosen one, ``name`` is that of the URL, of which there are no samples.
    """

    offered: Sequence[OfferedMeter] | None
    chosen: OfferedMeter | None
    name: str | None


async def meter_choice(store: VisibleStore, name: str | None) -> MeterChoice:
    """Return the meters, and the one with ``name``; without a name one of the usual meters, else the first one."""
    rows = await store.meters(SampleFilter(), MAX_OFFERED_METERS + 1, True)
    too_many = len(rows) > MAX_OFFERED_METERS
    offered = offered_meters(rows)
    if name is None:
        names = {each.name: each for each in offered}
        usual = next((names[each] for each in USUAL_METERS if each in names), offered[0] if offered else None)
        return MeterChoice(None if too_many else offered, usual, None if usual is None else usual.name)
    if too_many:
        offered = offered_meters(await store.meters(SampleFilter(equals={"meter": name}), MAX_OFFERED_METERS, True))
    chosen = next((each for each in offered if each.name == name), None)
    return MeterChoice(None if too_many else offered, chosen, name)


def offered_meters(rows: Sequence[StoredMeter]) -> list[OfferedMeter]:
    """Return unique meters, which have one row per type and unit, once per name."""
    types: dict[str, dict[SampleType, None]] = {}
    units: dict[str, dict[str, None]] = {}
    for row in rows:
        types.setdefault(row.name, {})[row.type] = None
        units.setdefault(row.name, {})[row.unit] = None
    return [OfferedMeter(name, tuple(types[name]), tuple(units[name])) for name in types]
