"""The step ``usage`` of the collector's rating: it keeps the usage of the present period, and of those before while they may be closed."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from datetime import datetime
from datetime import timedelta

from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.period import BillingPeriod
from meter.rating.period import periods_in_grace
from meter.rating.usage.usage_store import IUsage

AFTER_GRACE = timedelta(days=2)
"""So long after the days of grace the usage of a period is still kept up to date; who closes it later does that."""


class UsageStep:
    """Refreshes ``usage`` for every book of the price directory, which ``directory`` returns."""

    name = "usage"

    def __init__(self, usage: IUsage, directory: Callable[[], Awaitable[PriceDirectory]]) -> None:
        self._usage = usage
        self._directory = directory

    async def run(self, now: datetime) -> int:
        """Return how many days were computed. A book that fails does not stop the others: the first error is raised at the end."""
        directory = await self._directory()
        failed: Exception | None = None
        days = 0
        for book in directory.books.values():
            for period in periods_to_refresh(book, now):
                try:
                    days += await self._usage.refresh(book, period, now)
                except Exception as error:
                    failed = failed or error
        if failed is not None:
            raise failed
        return days


def periods_to_refresh(book: PriceBook, now: datetime) -> list[BillingPeriod]:
    """Return the present period of ``book``, after those before that are not closed yet by their days of grace."""
    return periods_in_grace(now, book.timezone, timedelta(days=book.grace_days) + AFTER_GRACE)
