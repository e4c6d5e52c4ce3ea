"""What documents of Redfish say: links, chassis, readings. A document is whatever a BMC sends; nothing in it is trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from meter.pollsters.openstack.table import BadItem
from meter.sample import volume_is_valid

JOULES_PER_KWH = 3_600_000
MAX_CHASSIS = 64
MAX_TIME_CHARACTERS = 40
MAX_READING = 1e18

_PATH = re.compile(r"/redfish/v1/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{1,500}")
_ID = re.compile(r"[\x21-\x7e]{1,64}")

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChassisLinks:
    """A chassis, where its readings are, and the chassis that it is in. ``""`` stands for a link that it does not have."""

    id: str
    path: str
    environment: str
    power: str
    inside: str


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """Energy in joules, exactly. ``since`` is when it was 0, as the BMC writes it, ``"lifetime"`` or, if that is unknown, ``""``."""

    joules: int | float
    since: str


def link(document: Document, *names: str) -> str:
    """Return the path of a link in a document, ``""`` if there is none on the same BMC: no other is ever followed."""
    found: Any = document
    for name in (*names, "@odata.id"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return path_of(found)


def path_of(value: Any) -> str:
    """Return ``value`` if it is the path of a resource of Redfish, else ``""``."""
    if not isinstance(value, str) or not _PATH.fullmatch(value) or "//" in value or "/../" in f"{value}/":
        return ""
    return value


def members(collection: Document) -> list[str]:
    """Return the paths of the members of a collection; raise :class:`BadItem`."""
    found = collection.get("Members")
    if not isinstance(found, list):
        raise BadItem("no-chassis", "the collection of chassis has no list of Members")
    paths = [link(each) for each in found if isinstance(each, Mapping)]
    return [each for each in dict.fromkeys(paths) if each]


def same(one: str, other: str) -> bool:
    """Return whether two paths are of one resource: some BMCs end them with a slash, and want to be asked so."""
    return one.rstrip("/") == other.rstrip("/")


def chassis(document: Document, path: str) -> ChassisLinks:
    """Return a chassis; without a proper id it has the last part of its path."""
    id = document.get("Id")
    if not isinstance(id, str) or not _ID.fullmatch(id):
        id = path.rstrip("/").rpartition("/")[2]
    return ChassisLinks(
        id,
        path,
        link(document, "EnvironmentMetrics"),
        link(document, "Power"),
        link(document, "Links", "ContainedBy"),
    )


def watts(environment: Document) -> int | float | None:
    """Return the power in ``EnvironmentMetrics``, ``None`` if it has none; raise :class:`BadItem`."""
    return _reading(environment, "PowerWatts", "Reading")


def watts_of_power_control(power: Document) -> int | float | None:
    """Return the power in ``Power``, which is older: of the first control that is not of a part of the chassis."""
    controls = power.get("PowerControl")
    for each in controls if isinstance(controls, list) else ():
        if isinstance(each, Mapping) and each.get("PhysicalContext") in (None, "Chassis", "SystemBoard"):
            found = number(each.get("PowerConsumedWatts"), "PowerConsumedWatts")
            if found is not None:
                return found
    return None


def energy(environment: Document) -> EnergyReading | None:
    """Return the energy in ``EnvironmentMetrics``, ``None`` if it has none; raise :class:`BadItem`."""
    excerpt = environment.get("EnergykWh")
    return energy_of(excerpt, "EnergykWh") if isinstance(excerpt, Mapping) else None


def energy_of(sensor: Document, name: str) -> EnergyReading | None:
    """Return the energy of a sensor, or of an excerpt of one. What counts all its life is never reset, and so preferred."""
    lifetime = number(sensor.get("LifetimeReading"), f"{name}.LifetimeReading")
    if lifetime is not None:
        return EnergyReading(_joules(lifetime), "lifetime")
    reading = number(sensor.get("Reading"), f"{name}.Reading")
    reset = sensor.get("SensorResetTime")
    known = isinstance(reset, str) and 0 < len(reset) <= MAX_TIME_CHARACTERS and reset.isprintable()
    return None if reading is None else EnergyReading(_joules(reading), str(reset) if known else "")


def energy_sensor(environment: Document) -> str:
    """Return the path of the sensor that the energy is an excerpt of, ``""`` if it is not named."""
    excerpt = environment.get("EnergykWh")
    return path_of(excerpt.get("DataSourceUri")) if isinstance(excerpt, Mapping) else ""


def number(value: Any, name: str) -> int | float | None:
    """Return a number that is not negative, ``None`` for null or nothing; raise :class:`BadItem` for anything else."""
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value < MAX_READING  # NaN is not; math.isfinite() raises an exception for an integer of 400 digits
        or not volume_is_valid(value)
    ):
        raise BadItem("bad-volume", f"{name} should be a number from 0 on, not {value!r:.60}")
    return value


def _reading(document: Document, *names: str) -> int | float | None:
    found: Any = document
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return number(found, ".".join(names))


def _joules(kwh: int | float) -> int | float:
    """Return a reading in kWh in joules: of the decimal that the BMC wrote, not of the nearest binary fraction."""
    exact = Fraction(Decimal(repr(kwh))) * JOULES_PER_KWH
    return exact.numerator if exact.denominator == 1 else float(exact)
