"""From a ``[[sku]]`` of a file to its record."""

from __future__ import annotations

from collections.abc import Iterator

from meter.completeness.lives.kinds import KINDS
from meter.rating.book.book_problem import suggestion
from meter.rating.book.price_book import Sku
from meter.rating.book.tables import SkuTable
from meter.rating.book.units import factor_of
from meter.rating.book.units import factor_problem
from meter.rating.book.units import read_unit
from meter.rating.book.units import unit_problem

LIFE_VALUES = ("flavor", "state", "size")
"""Values of a life that prices of *exists* can match on."""

SkuProblem = tuple[str, str]
"""The key that is wrong, and the text."""


def sku_record(table: SkuTable, problems: list[SkuProblem]) -> Sku | None:
    """Return the record of ``table``; ``None``, with ``problems``, if it contradicts itself."""
    before = len(problems)
    problems += _usage_problems(table)
    try:
        unit = read_unit(table.unit)
    except ValueError as fault:
        problems.append(("unit", f"unit {fault}"))
        return None
    if len(problems) > before:
        return None
    factor = table.factor
    if text := unit_problem(unit, table.usage, sized=table.times_size):
        problems.append(("unit", f"unit {table.unit} does not fit: {text}"))
    else:
        expected = factor_of(unit, table.usage, resource_kind=table.resource_kind, sized=table.times_size)
        factor = table.factor if table.factor is not None else expected
        if factor is None:
            example = 'what one unit of the meter is in units of the SKU, such as "1/1073741824" from B to GiB'
            problems.append(("factor", f"factor is missing: {example}"))
        elif text := factor_problem(unit, table.usage, factor, expected):
            problems.append(("factor", f"factor {factor} does not fit: it {text}"))
    if len(problems) > before or factor is None:
        return None
    return Sku(
        id=table.id,
        name=table.name or table.id,
        service=table.service or table.category,
        category=table.category,
        usage=table.usage,
        unit=table.unit,
        factor=factor,
        meter=table.meter,
        resource_kind=table.resource_kind,
        states=tuple(sorted(set(table.states))),
        times_size=table.times_size,
        by=tuple(sorted(set(table.by))),
        started=table.started,
        round_up_to=table.round_up_to,
        minimum=table.minimum,
        tax_category=table.tax_category,
    )


def _usage_problems(table: SkuTable) -> Iterator[SkuProblem]:
    if table.usage != "exists":
        if table.meter is None:
            yield "usage", f"meter is missing: usage {table.usage} measures samples of a meter"
        for key in ("resource_kind", "states", "times_size", "started"):
            if getattr(table, key):
                yield key, f"{key} is for usage exists only"
        return
    if table.meter is not None:
        yield "meter", "meter is not for usage exists, which measures the lives of resources: write resource_kind"
    if table.resource_kind is None:
        yield "usage", f"resource_kind is missing; known: {', '.join(KINDS)}"
    elif table.resource_kind not in KINDS:
        yield (
            "resource_kind",
            f"unknown resource_kind {table.resource_kind!r}{suggestion(table.resource_kind, list(KINDS), shown=20)}",
        )
    elif table.times_size and not KINDS[table.resource_kind].sizing:
        yield "times_size", f"times_size: resources of the kind {table.resource_kind} have no size"
    for key in table.by:
        if key not in LIFE_VALUES:
            yield "by", f"by: {key!r} is no value of a life; known: {', '.join(LIFE_VALUES)}"
