"""Rating by counting: each unit of usage is one step of a loop. It shares no code with ``meter.rating.money`` and has only whole units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from fractions import Fraction

from meter.rating.book.price_book import Price
from meter.rating.usage.usage_atom import UsageAtom

Cost = tuple[str, str, str, int]
"""Project, values, price and tier."""


def price_on(prices: Sequence[Price], project: str, values: dict[str, str], day: date) -> Price | None:
    """The price of a project on a day: its own, or that of everybody; with the most keys that match."""
    fitting = [
        each
        for each in prices
        if (each.validity.since or date.min) <= day < (each.validity.until or date.max)
        and each.scope.project in (None, project)
        and each.match.items() <= values.items()
    ]
    return max(fitting, key=lambda each: (each.scope.project is not None, len(each.match)), default=None)


def costs(prices: Sequence[Price], usage: Sequence[UsageAtom]) -> dict[Cost, Fraction]:
    """What each line costs, exactly."""
    by_resource = any(each.per == "resource" for each in prices)
    units = []
    for atom in usage:
        place = (atom.day, atom.project_id, atom.resource_id if by_resource else "", sorted(atom.values.items()))
        units += [(place, atom)] * int(atom.quantity)
    units.sort(key=lambda each: each[0])

    def counted(price: Price, per: str, atom: UsageAtom) -> tuple[object, ...]:
        of_whom = {"account": "", "project": atom.project_id, "resource": atom.resource_id}[per]
        return (tuple(sorted(price.match.items())), per, of_whom)

    totals: Counter[tuple[object, ...]] = Counter()
    priced = []
    for _place, atom in units:
        price = price_on(prices, atom.project_id, dict(atom.values), atom.day)
        if price is None:
            continue
        for per in ("account", "project", "resource"):
            totals[counted(price, per, atom)] += 1
        priced.append((price, atom, totals[counted(price, price.per, atom)]))
    result: dict[Cost, Fraction] = {}
    for price, atom, unit in priced:
        free = int(price.free)
        tier, cost = 0, Fraction(0)
        if unit > free:
            tier = 1
            if price.mode in ("graduated", "volume"):
                measure = unit if price.mode == "graduated" else totals[counted(price, price.per, atom)]
                while (up_to := price.tiers[tier - 1].up_to) is not None and measure > up_to:
                    tier += 1
            cost = Fraction(price.tiers[tier - 1].price)
            if price.mode == "package" and (unit - free - 1) % int(price.package_size or 1):
                cost = Fraction(0)
        key = (atom.project_id, str(sorted(atom.values.items())), price.id, tier)
        result[key] = result.get(key, Fraction(0)) + cost
    return result


def to_minor_unit(amount: Fraction, digits: int) -> Fraction:
    """``amount`` in the minor unit of a currency, half away from zero."""
    scaled = abs(amount) * 10**digits
    whole = scaled.numerator // scaled.denominator
    if scaled - whole >= Fraction(1, 2):
        whole += 1
    return Fraction(whole if amount >= 0 else -whole, 10**digits)
