"""Sums and points of costs: rated days, filtered, grouped and paged as CloudKitty's clients ask for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

from meter.rating.costs.rated_days import RatedDay
from meter.rating.exact import EXACT

TIME_GROUPS = ("time", "time-d", "time-w", "time-m", "time-y")
"""Groupings by time: day (twice: a day is the shortest time that is rated), week, month and year of the book's days."""

FIELDS = ("type", "project_id", "id", "currency", "account_id")
"""Names to group and filter by, besides those of values: SKU, project, resource, currency and account."""

MAX_GROUPS = 100_000


class TooManyGroups(ValueError):
    """The sums have more groups than are kept in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostQuery:
    """Days from ``begin`` until before ``end``, and of them what has one of the values of each of ``filters``."""

    begin: datetime
    end: datetime
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    groupby: Sequence[str] = ()
    project_id: str | None = None

    @property
    def by_resource(self) -> bool:
        """Whether single resources matter."""
        return "id" in self.filters or "id" in self.groupby

    def matches(self, day: RatedDay) -> bool:
        """Return whether ``day`` is asked for."""
        return all(value_of(day, name) in values for name, values in self.filters.items())


@dataclass(slots=True)
class CostSum:
    """The sum of a group: from ``begin`` until before ``end``, with the values of what it is grouped by."""

    begin: datetime
    end: datetime
    group: tuple[str | None, ...]
    currencies: set[str] = field(default_factory=set)
    quantity: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)


def value_of(day: RatedDay, name: str) -> str | None:
    """Return the value of ``day`` that ``name`` says, ``None`` if it has none."""
    match name:
        case "type":
            return day.sku
        case "project_id":
            return day.project_id
        case "id":
            return day.resource_id
        case "currency":
            return day.currency
        case "account_id":
            return day.account_id
    return day.values.get(name)


async def cost_sums(days: AsyncIterator[RatedDay], query: CostQuery) -> list[CostSum]:
    """Return the sums by group, ordered by time and group.

    :raises TooManyGroups: there are more than :data:`MAX_GROUPS`.
    """
    names = [name for name in query.groupby if name not in TIME_GROUPS]
    time = next((name for name in query.groupby if name in TIME_GROUPS), None)
    sums: dict[tuple[datetime, tuple[str | None, ...]], CostSum] = {}
    async for day in days:
        if not query.matches(day):
            continue
        begin, end = _span(day, time, query)
        group = tuple(value_of(day, name) for name in names)
        found = sums.get((begin, group))
        if found is None:
            if len(sums) >= MAX_GROUPS:
                raise TooManyGroups(f"there are more than {MAX_GROUPS} groups: group by less, or ask for less time")
            found = sums[begin, group] = CostSum(begin, end, group)
        found.currencies.add(day.currency)
        found.quantity = EXACT.add(found.quantity, day.quantity)
        found.amount = EXACT.add(found.amount, day.amount)
    return sorted(
        sums.values(), key=lambda each: (each.begin, [(value is not None, value or "") for value in each.group])
    )


async def cost_points(
    days: AsyncIterator[RatedDay], query: CostQuery, offset: int, limit: int
) -> tuple[list[RatedDay], int]:
    """Return ``limit`` days of resources from ``offset`` on, and how many there are in all."""
    page: list[RatedDay] = []
    total = 0
    async for day in days:
        if query.matches(day):
            if offset <= total < offset + limit:
                page.append(day)
            total += 1
    return page, total


def _span(day: RatedDay, time: str | None, query: CostQuery) -> tuple[datetime, datetime]:
    """Return the times of the group of ``day``: weeks, months and years are those of its date in the book's time zone."""
    match time:
        case "time" | "time-d":
            return day.start, day.end
        case "time-w":
            monday = day.day - timedelta(days=day.day.weekday())
            return _midnight(monday), _midnight(monday + timedelta(days=7))
        case "time-m":
            first = day.day.replace(day=1)
            return _midnight(first), _midnight((first + timedelta(days=32)).replace(day=1))
        case "time-y":
            return _midnight(date(day.day.year, 1, 1)), _midnight(date(day.day.year + 1, 1, 1))
    return query.begin, query.end


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
