"""The types of meters, which Gnocchi does not keep: as the installed plugins declare them, or as the user says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from meter.plugins.registry import find
from meter.sample import SampleType


class BadMeterTypes(ValueError):
    """What the user says about types of meters cannot be read; the text says what is wrong."""


class UnknownMeter(Exception):
    """A meter whose type is not known; the text says what to do."""


class MeterTypes:
    """Types by the name of the meter. ``given`` are the user's; plugins may declare names that end in ``*``."""

    def __init__(self, given: Mapping[str, SampleType]) -> None:
        self._types: dict[str, SampleType | None] = {}
        for decision in find():
            for meter in decision.plugin.meters if decision.plugin is not None else ():
                known = self._types.setdefault(meter.name, meter.type)
                if known != meter.type:
                    self._types[meter.name] = None  # a gauge of one service and a delta of another
        self._types |= given

    def of(self, name: str) -> SampleType:
        """Return the type of the meter ``name``; raises :class:`UnknownMeter`."""
        found = self._types.get(name)
        if found is None and name not in self._types:
            found = next(
                (
                    kind
                    for known, kind in self._types.items()
                    if known.endswith("*") and known != "*" and name.startswith(known[:-1])
                ),
                None,
            )
        if found is None:
            raise UnknownMeter(
                f"no plugin declares the type of this meter; give --types {name}=gauge, =delta or =cumulative"
            )
        return found


def parse_types(text: str | None) -> dict[str, SampleType]:
    """Return the types in ``text``, such as ``cpu_util=gauge,requests=delta``; raises :class:`BadMeterTypes`."""
    types: dict[str, SampleType] = {}
    for each in filter(None, (part.strip() for part in (text or "").split(","))):
        name, _, kind = each.rpartition("=")
        if not name or kind not in get_args(SampleType):
            raise BadMeterTypes(f"--types must have the form NAME=TYPE,… with gauge, delta or cumulative, not {each!r}")
        types[name] = kind  # type: ignore[assignment]
    return types
