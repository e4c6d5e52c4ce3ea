"""What a unit costs by the rules of a service and group: each combination of values that rules name, for all projects and for single ones.

HashMap computes ``cost = largest flat × product of rates`` for each period, times the quantity, from the mappings that match; rules of a project
take the place of those of all projects with the same value. A price book has one price for each combination instead.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from datetime import datetime
from decimal import Decimal
from decimal import Inexact
from fractions import Fraction
from itertools import product
from math import prod

from meter.rating.book.values import MAX_DECIMALS
from meter.rating.book.values import MAX_INTEGER_DIGITS
from meter.rating.exact import EXACT
from meter.rating.hashmap.metered_services import MeteredService
from meter.rating.hashmap.rules import Rule
from meter.rating.hashmap.rules import RuleGroup

MAX_COMBINATIONS = 2_000
MAX_COMPUTED = 2_000_000
"""Costs that are computed for a group: of each combination, or rule, for each project, from each time at which a rule begins or ends."""

Match = tuple[tuple[str, str], ...]


class NotCarried(Exception):
    """Rules that no price book can have, so that the group is left out; ``reasons`` are clauses."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class EffectivePrice:
    """A price for the values ``match``, by Meter's names, from the day ``start`` on and before ``end``."""

    match: Match
    price: Decimal
    project: str = ""
    start: date | None = None
    end: date | None = None


def effective_prices(
    group: RuleGroup, service: MeteredService, at: datetime, period_seconds: int
) -> list[EffectivePrice]:
    """Return the prices of a unit, for a group that is valid from ``at`` on; raise :class:`NotCarried`."""
    if reasons := list(_reasons(group, service, at)):
        raise NotCarried(reasons)
    found: list[EffectivePrice] = []
    times = sorted({time for rule in group.rules for time in (rule.start, rule.end) if time is not None and time > at})
    projects = len({rule.tenant for rule in group.rules if rule.tenant})
    computed = (len(times) + 1) * (projects + 1) * max(len(group.rules), min(_count(group.rules), MAX_COMBINATIONS))
    if computed > MAX_COMPUTED:
        raise NotCarried(
            [
                f"its {len(group.rules)} rules, for {projects} single projects and with {len(times)} times of change, are too many prices"
            ]
        )
    for begin, end in zip([None, *times], [*times, None], strict=True):
        active = [rule for rule in group.rules if rule.active_at(at if begin is None else begin)]
        for project, match, cost in _costs(active, service):
            price = _price(cost, service, period_seconds)
            found.append(
                EffectivePrice(match, price, project, begin.date() if begin else None, end.date() if end else None)
            )
    return _joined(found)


def _reasons(group: RuleGroup, service: MeteredService, at: datetime) -> Iterator[str]:
    """Yield why the rules cannot be prices."""
    for rule in group.rules:
        if rule.cost < 0:
            yield f"a price is never negative: {rule}"
        if not rule.cost_is_exact:
            yield f"its cost has more than {MAX_DECIMALS} decimals, which a price may have: {rule}"
        if rule.level is not None and rule.field:
            yield f"prices do not depend on the size of {rule.field}, only on values that are named: {rule}"
        elif rule.level is not None and not service.one:
            yield f"it depends on the quantity of one period; tiers of a price count that of the month: {rule}"
        if rule.field and rule.field not in service.fields:
            known = ", ".join(service.fields) or "nothing"
            yield f"prices of this service depend on {known}, not on {rule.field}: {rule}"
        elif rule.field and rule.level is None and not rule.value:
            yield f"it has no value: {rule}"
        for time in (rule.start, rule.end):
            if (
                time is not None
                and time > at
                and (time.hour, time.minute, time.second, time.microsecond) != (0, 0, 0, 0)
            ):
                yield f"a price begins and ends at midnight: {rule}"
    names = [service.fields.get(each) for each in {rule.field for rule in group.rules if rule.field}]
    if len(set(names)) < len(names):
        yield "two of its fields are the same value in Meter"


def _costs(active: Sequence[Rule], service: MeteredService) -> Iterator[tuple[str, Match, Decimal]]:
    """Yield the cost of a unit in a period by project, ``""`` for all, and by values."""
    general = dict(_by_values(active, ""))
    combinations = list(_combinations(active))
    for project in ["", *sorted({rule.tenant for rule in active if rule.tenant})]:
        mappings = general if not project else {**general, **dict(_by_values(active, project))}
        threshold = _threshold(active, project)
        for match in combinations:
            rules = [mappings[key] for key in [("", ""), *match] if key in mappings]
            flats = [rule.cost for rule in rules if rule.kind == "flat"]
            charged = bool(flats) or threshold is not None
            everywhere = any(general[key].kind == "flat" for key in [("", ""), *match] if key in general)
            # What no flat rule covers costs nothing in CloudKitty. Here it is listed as unpriced, unless another price would apply.
            if not charged and not (project and everywhere):
                continue
            rates = [rule.cost for rule in rules if rule.kind == "rate"]
            cost = prod(map(Fraction, rates), start=Fraction(max(flats, default=Decimal(0))))
            if threshold is not None:
                cost = cost * Fraction(threshold.cost) if threshold.kind == "rate" else cost + Fraction(threshold.cost)
            names = tuple(sorted((service.fields[field], value) for field, value in match))
            yield project, names, _exact(cost)


def _by_values(active: Sequence[Rule], project: str) -> Iterator[tuple[tuple[str, str], Rule]]:
    """Yield the mapping of each field and value, ``("", "")`` for that of the service, that are those of ``project``."""
    seen: dict[tuple[str, str], Rule] = {}
    for rule in active:
        if rule.level is None and rule.tenant == project:
            key = (rule.field, rule.value if rule.field else "")
            if key in seen:
                raise NotCarried(
                    [f"two mappings are for the same value, and CloudKitty may take either: {rule}; {seen[key]}"]
                )
            seen[key] = rule
            yield key, rule


def _combinations(active: Sequence[Rule]) -> Iterator[Match]:
    """Yield all combinations of values that mappings name, each field with a value or without one."""
    values = _values(active)
    if (count := _count(active)) > MAX_COMBINATIONS:
        raise NotCarried([f"its values have {count} combinations, more than {MAX_COMBINATIONS}"])
    for chosen in product(*([None, *each] for each in values.values())):
        yield tuple((field, value) for field, value in zip(values, chosen, strict=True) if value is not None)


def _values(rules: Sequence[Rule]) -> Mapping[str, Collection[str]]:
    """Return the values that mappings name, by field, in their order."""
    values: dict[str, dict[str, None]] = {}
    for rule in rules:
        if rule.field and rule.level is None:
            values.setdefault(rule.field, {})[rule.value] = None
    return values


def _count(rules: Sequence[Rule]) -> int:
    """Return the number of combinations of the values that mappings name."""
    return prod(len(each) + 1 for each in _values(rules).values())


def _threshold(active: Sequence[Rule], project: str) -> Rule | None:
    """Return the threshold that applies to the quantity 1, the highest, that of the project first."""
    by_level: dict[Decimal, Rule] = {}
    for tenant in ("", project) if project else ("",):
        for rule in active:
            if rule.level is not None and rule.level <= 1 and rule.tenant == tenant:
                if rule.level in by_level and by_level[rule.level].tenant == tenant:
                    raise NotCarried([f"two thresholds have the same level, and CloudKitty may take either: {rule}"])
                by_level[rule.level] = rule
    return by_level[max(by_level)] if by_level else None


def _price(cost: Decimal, service: MeteredService, period_seconds: int) -> Decimal:
    """Return the price of a unit: a cost of a period is one of an hour, if the quantity is a duration."""
    return _exact(Fraction(cost) * 3600 / period_seconds) if service.timed else cost


def _exact(value: Fraction) -> Decimal:
    try:
        exact = EXACT.divide(Decimal(value.numerator), Decimal(value.denominator))
    except Inexact:
        exact = None
    if exact is None or exact != round(exact, MAX_DECIMALS) or exact >= 10**MAX_INTEGER_DIGITS:
        raise NotCarried(
            [f"the product {float(value):.15g} has more than {MAX_DECIMALS} decimals or {MAX_INTEGER_DIGITS} digits"]
        )
    return exact.normalize(EXACT)


def _joined(prices: Sequence[EffectivePrice]) -> list[EffectivePrice]:
    """Join prices that go on unchanged; the order is by project, values and day."""
    found: dict[tuple[str, Match], list[EffectivePrice]] = {}
    for each in prices:
        earlier = found.setdefault((each.project, each.match), [])
        if earlier and earlier[-1].price == each.price and earlier[-1].end == each.start:
            each = EffectivePrice(each.match, each.price, each.project, earlier.pop().start, each.end)
        earlier.append(each)
    return [each for key in sorted(found) for each in found[key]]


def values_of(prices: Sequence[EffectivePrice]) -> list[str]:
    """Return the names of the values that prices depend on."""
    return sorted({name for each in prices for name, _ in each.match})
