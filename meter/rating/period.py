"""Billing periods: a calendar month in a time zone, and its days."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from zoneinfo import ZoneInfo

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_YEARS = range(1970, 9999)
"""Outside of these a period's first and last instants, in UTC, may be outside of what ``datetime`` can represent."""


def timezone_named(name: str) -> ZoneInfo:
    """Return the time zone with a name of the IANA database that anybody may have written; ``ValueError`` if there is none."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{name!r:.80} is no time zone") from error


def start_of_day(day: date, timezone: ZoneInfo) -> datetime:
    """Return the first instant of ``day`` in ``timezone``, in UTC; where midnight does not exist, the instant of the change."""
    return datetime(day.year, day.month, day.day, tzinfo=timezone).astimezone(UTC)


def day_of(time: datetime, timezone: ZoneInfo) -> date:
    """Return the day of ``time`` in ``timezone``: the one whose first instant, as :func:`start_of_day` has it, came last.

    Where the clock goes back over midnight, the date of the clock returns to the day before for a while, but the day does not.
    """
    local = time.astimezone(timezone).date()
    following = local + timedelta(days=1)
    return following if start_of_day(following, timezone) <= time else local


@dataclass(frozen=True, slots=True)
class BillingPeriod:
    """A calendar month in ``timezone``: from the first instant of ``first`` until before that of ``until``."""

    first: date
    timezone: ZoneInfo

    @classmethod
    def named(cls, name: str, timezone: ZoneInfo) -> BillingPeriod:
        """Return the period with a ``name`` such as ``2026-11``.

        :raises ValueError: it is not the name of a month.
        """
        found = _MONTH.fullmatch(name)
        if found is None or int(found[1]) not in _YEARS:
            raise ValueError(f"{name!r} is not a billing period: write year and month, as in 2026-11")
        return cls(date(int(found[1]), int(found[2]), 1), timezone)

    @classmethod
    def containing(cls, time: datetime, timezone: ZoneInfo) -> BillingPeriod:
        """Return the period that contains ``time``."""
        return cls(day_of(time, timezone).replace(day=1), timezone)

    @property
    def name(self) -> str:
        """Year and month: ``2026-11``."""
        return f"{self.first:%Y-%m}"

    @property
    def until(self) -> date:
        """The first day after the period."""
        return (self.first + timedelta(days=32)).replace(day=1)

    @property
    def start(self) -> datetime:
        """The first instant, in UTC."""
        return start_of_day(self.first, self.timezone)

    @property
    def end(self) -> datetime:
        """The first instant after the period, in UTC."""
        return start_of_day(self.until, self.timezone)

    @property
    def seconds(self) -> int:
        """The length; a month with a change of the clock is an hour shorter or longer."""
        return round((self.end - self.start).total_seconds())

    @property
    def next(self) -> BillingPeriod:
        """The period that follows."""
        return BillingPeriod(self.until, self.timezone)

    @property
    def previous(self) -> BillingPeriod:
        """The period before."""
        return BillingPeriod((self.first - timedelta(days=1)).replace(day=1), self.timezone)

    def days(self) -> Iterator[date]:
        """Yield the days in order."""
        for number in range((self.until - self.first).days):
            yield self.first + timedelta(days=number)


def periods_in_grace(now: datetime, timezone: ZoneInfo, grace: timedelta) -> list[BillingPeriod]:
    """Return the present period, after those before that ended less than ``grace`` ago, in order."""
    periods = [BillingPeriod.containing(now, timezone)]
    while now < periods[0].start + grace:
        periods.insert(0, periods[0].previous)
    return periods
