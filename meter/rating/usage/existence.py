"""Usage of the kind *exists*: how long a resource existed on a day, from the segments of its life. docs/usage.rst has the rules."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from meter.completeness.lives.kinds import OFF
from meter.completeness.lives.observation import UNKNOWN
from meter.completeness.lives.observation import LifeSegment
from meter.rating.book.price_book import Sku
from meter.rating.exact import quantity
from meter.rating.exact import shortest
from meter.rating.usage.sku_definition import LONGEST_VALUE
from meter.rating.usage.sku_definition import number_text

MICROSECOND = timedelta(microseconds=1)
STARTED_MICROSECONDS: Mapping[str | None, int] = {"minute": 60_000_000, "hour": 3_600_000_000}

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A project, and the values that prices match on, by name."""


@dataclass(slots=True)
class ExistingTime:
    """What one resource used on a day for a project with the same values; ``exact`` is in the unit of the SKU."""

    exact: Fraction = Fraction(0)
    unmetered_microseconds: int = 0


def existence(
    sku: Sku, segments: Iterable[LifeSegment], start: datetime, finish: datetime
) -> dict[Key, tuple[Decimal, int]]:
    """Return the quantity, and the unmetered seconds, that a resource with ``segments`` used from ``start`` until ``finish`` of a day.

    A clock hour or minute that was begun counts once, for whoever and with the values with which it began to count.
    """
    found: dict[Key, ExistingTime] = {}
    counted_until = 0
    begun = STARTED_MICROSECONDS.get(sku.started)
    for segment in sorted(segments, key=lambda each: each.began):
        first = max(segment.began, start)
        last = finish if segment.ended is None else min(segment.ended, finish)
        if first >= last:
            continue
        key = segment.project_id or "", segment_values(sku, segment)
        if not _is_metered(sku, segment):
            found.setdefault(key, ExistingTime()).unmetered_microseconds += (last - first) // MICROSECOND
            continue
        if sku.states and segment.state not in sku.states:
            continue
        if begun is None:
            microseconds = (last - first) // MICROSECOND
        else:
            since = max(counted_until, (first - start) // MICROSECOND // begun)
            counted_until = -(-((last - start) // MICROSECOND) // begun)
            microseconds = max(0, counted_until - since) * begun
        size = Fraction(shortest(float(segment.size or 0))) if sku.times_size else Fraction(1)
        found.setdefault(key, ExistingTime()).exact += Fraction(microseconds, 1_000_000) * size * sku.factor
    return {
        key: (rounded_up(quantity(each.exact), sku.round_up_to), each.unmetered_microseconds // 1_000_000)
        for key, each in found.items()
        if each.exact or each.unmetered_microseconds >= 1_000_000
    }


def _is_metered(sku: Sku, segment: LifeSegment) -> bool:
    """Return whether it is known what to bill: that the resource existed, its state if states are selected, its size."""
    if segment.state == UNKNOWN and (sku.states or segment.began_told_by == "silence"):
        return False
    return segment.size is not None or not sku.times_size


def segment_values(sku: Sku, segment: LifeSegment) -> tuple[tuple[str, str], ...]:
    """Return the values that prices match on, by name; "" for what is not known."""
    values = {
        "flavor": segment.flavor or "",
        "state": segment.state,
        "size": "" if segment.size is None else number_text(shortest(float(segment.size))),
    }
    return tuple((name, values.get(name, "")[:LONGEST_VALUE]) for name in sorted(sku.by))


def rounded_up(value: Decimal, multiple: Decimal | None) -> Decimal:
    """Return ``value``, of 9 decimals, rounded up to a multiple of ``multiple``."""
    if multiple is None or not value:
        return value
    number = Fraction(value) / Fraction(multiple)
    return quantity(-(-number.numerator // number.denominator) * Fraction(multiple))


@dataclass(frozen=True, slots=True)
class ExistenceSpan:
    """A time in which a resource existed for one project; ``ended`` is ``None`` while it lasts. ``is_off``: as an instance that is off."""

    project_id: str
    began: datetime
    ended: datetime | None
    is_off: bool = False


def existence_spans(segments: Sequence[LifeSegment]) -> list[ExistenceSpan]:
    """Return when a resource with ``segments`` existed and for whom, and when it was off, oldest first."""
    spans: list[ExistenceSpan] = []
    for segment in sorted(segments, key=lambda each: each.began):
        project = segment.project_id or ""
        began, is_off = segment.began, segment.state in OFF
        if spans and (spans[-1].ended is None or spans[-1].ended >= segment.began):
            last = spans[-1]
            if last.ended is None or (segment.ended is not None and segment.ended <= last.ended):
                continue
            if (last.project_id, last.is_off) == (project, is_off):
                spans[-1] = replace(last, ended=segment.ended)
                continue
            began = last.ended
        spans.append(ExistenceSpan(project, began, segment.ended, is_off))
    return spans
