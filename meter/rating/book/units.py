"""Units of SKUs, in the form that FOCUS has for them (*Unit Format*), and whether one fits the way in which usage is measured.

A unit is one or two base units, such as ``Hours``, ``GB``, ``Requests``, ``GiB-Hours`` or ``Core-Hours``, maybe with a number
before (``1000 Requests``) and, for a rate, a unit of time after a slash (``Mb/Second``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from meter.completeness.lives.kinds import KINDS
from meter.rating.book.price_book import UsageKind

BYTES: dict[str, int] = {"B": 1}
BITS: dict[str, int] = {"b": 1}
for _power, _letter in enumerate("KMGTPE", 1):
    for _names, _base in ((BYTES, "B"), (BITS, "b")):
        _names[f"{_letter}{_base}"] = 1000**_power
        _names[f"{_letter}i{_base}"] = 1024**_power
"""Units of data, with what they are in bytes or bits."""

SECONDS: dict[str, int] = {"Second": 1, "Minute": 60, "Hour": 3600, "Day": 86400}
"""Units of time that always have the same length, with it."""

TIMES = (*SECONDS, "Millisecond", "Microsecond", "Month", "Year")
COUNTS = ("Count", "Unit", "Request", "Token", "Connection", "Certificate", "Domain", "Core")

Dimension = Literal["data", "time", "count"]

_UNIT = re.compile(r"(?:([1-9]\d{0,17}) )?([^-/]+)(?:-([^-/]+))?(?:/(?:([1-9]\d{0,17}) )?([^-/]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: ``number`` of ``base``, for the duration ``duration``, ``per`` a time."""

    number: int
    base: str
    duration: str | None = None
    per: str | None = None

    @property
    def dimension(self) -> Dimension:
        """What the base unit measures."""
        if self.base in BYTES or self.base in BITS:
            return "data"
        return "time" if self.base in TIMES or self.base.removesuffix("s") in TIMES else "count"

    @property
    def time(self) -> str | None:
        """The singular of the unit of time that multiplies the quantity: that of the duration, or of a time alone."""
        name = self.duration or (self.base if self.dimension == "time" else None)
        return None if name is None else name.removesuffix("s")


def read_unit(text: str) -> Unit:
    """Return the unit that ``text`` states.

    :raises ValueError: it does not have the form of a unit; the text says what would be right.
    """
    match = _UNIT.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is no unit such as "Hours", "GiB-Hours", "1000 Requests" or "Mb/Second"')
    number, base, duration, _, per = match.groups()
    if duration is not None:
        _check(text, base, plural=False)
        _check_time(text, duration, plural=True)
    else:
        _check(text, base, plural=True)
    if per is not None:
        _check_time(text, per, plural=match[4] is not None)
    return Unit(int(number or 1), base, duration, per)


def _check(text: str, base: str, *, plural: bool) -> None:
    if base in BYTES or base in BITS:
        return
    times = [f"{each}s" if plural else each for each in TIMES]
    counts = [f"{each}s" if plural else each for each in COUNTS]
    if base in times or base in counts:
        return
    known = {each.casefold(): each for each in (*times, *counts)}
    known |= {each.casefold(): each for each in (*BITS, *BYTES) if each.casefold() != "b"}
    folded = base.casefold()
    for candidate in (folded, f"{folded}s", folded.removesuffix("s")):
        if candidate in known:
            raise ValueError(f"{text!r} is no unit of FOCUS: write {known[candidate]} instead of {base}")
    if not base[0].isalpha() or base.islower() or base != base.strip():
        raise ValueError(f"{text!r} is no unit of FOCUS: a unit is written with a capital letter, as Requests or GiB")


def _check_time(text: str, name: str, *, plural: bool) -> None:
    singular = name.removesuffix("s").capitalize()
    if name.removesuffix("s") in TIMES and name.endswith("s") == plural:
        return
    if singular in TIMES:
        raise ValueError(f"{text!r} is no unit of FOCUS: write {singular}{'s' if plural else ''} instead of {name}")
    raise ValueError(f"{text!r} is no unit of FOCUS: {name} is no time such as {'Hours' if plural else 'Second'}")


def unit_problem(unit: Unit, usage: UsageKind, *, sized: bool) -> str | None:
    """Return why a quantity that is measured by ``usage`` cannot have ``unit``, ``None`` if it can."""
    if usage in ("exists", "integral") and unit.per is None:
        if unit.time is None:
            return f"usage {usage} is a duration: write a unit such as Hours or GiB-Hours"
        if unit.time not in SECONDS:
            return f"a {unit.time} has no fixed length: write Hours, and per_month = true in the price"
        if usage == "exists" and sized != (unit.duration is not None) and (sized or unit.dimension == "data"):
            return (
                "times_size multiplies by the size: write a unit such as GiB-Hours"
                if sized
                else "without times_size the size is not in the quantity: write Hours, or times_size = true"
            )
    elif unit.per is not None:
        if usage not in ("maximum", "percentile95"):
            return f"usage {usage} is no rate: write a unit without a slash"
    elif unit.duration is not None and unit.dimension == "data":
        return f'usage {usage} has no duration: write {unit.base}, or usage = "integral"'
    return None


def factor_of(unit: Unit, usage: UsageKind, *, resource_kind: str | None, sized: bool) -> Fraction | None:
    """Return the factor from what is measured to ``unit``, if it follows from the unit; ``None`` if it has to be stated.

    Of *exists* it does: seconds are measured, or seconds times a size whose unit is that of the kind of resource.
    """
    if usage != "exists" or unit.time not in SECONDS:
        return None
    seconds = Fraction(1, SECONDS[unit.time] * unit.number)
    if not sized:
        return seconds
    measured = KINDS[resource_kind].unit if resource_kind is not None and resource_kind in KINDS else None
    if measured in BYTES and unit.base in BYTES:
        return seconds * Fraction(BYTES[measured], BYTES[unit.base])
    return None


def factor_problem(unit: Unit, usage: UsageKind, factor: Fraction, expected: Fraction | None) -> str | None:
    """Return why ``factor`` cannot lead to ``unit``, ``None`` if it can; ``expected`` is the one that follows from the unit."""
    if expected is None or factor == expected:
        return None
    if unit.duration is not None and unit.dimension == "count" and usage == "exists":
        return None  # 4 cores for each hour of an instance
    return f"leads to another unit: it must be {expected}, or be left out"
