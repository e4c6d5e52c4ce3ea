"""The step that keeps usage: which periods it refreshes, and what one faulty book changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from datetime import datetime

import pytest
import pytest_twisted

from meter.rating.book.price_book import PriceDirectory
from meter.rating.usage.usage_step import UsageStep
from meter.rating.usage.usage_step import periods_to_refresh
from tests.usage_books import book


class FakeUsage:
    def __init__(self, failing=()):
        self.failing = failing
        self.refreshed = []

    async def refresh(self, book, period, now):
        self.refreshed.append((book.timezone.key, period.name))
        if book.timezone.key in self.failing:
            raise ValueError(book.timezone.key)
        return 3


@pytest.mark.parametrize(
    ("now", "periods"),
    [
        (datetime(2026, 11, 7, 23, tzinfo=UTC), ["2026-10", "2026-11"]),
        (datetime(2026, 11, 8, tzinfo=UTC), ["2026-11"]),
        (datetime(2026, 11, 30, tzinfo=UTC), ["2026-11"]),
    ],
)
def test_the_period_before_is_refreshed_until_grace_is_well_over(now, periods):
    assert [each.name for each in periods_to_refresh(book(), now)] == periods


@pytest_twisted.ensureDeferred
async def test_a_book_that_fails_does_not_stop_the_others():
    books = {name: book(timezone=name) for name in ("Europe/Paris", "Asia/Tokyo")}
    usage = FakeUsage(failing={"Europe/Paris"})

    async def directory():
        return PriceDirectory(books=books, accounts={})

    with pytest.raises(ValueError, match="Europe/Paris"):
        await UsageStep(usage, directory).run(datetime(2026, 11, 20, tzinfo=UTC))
    assert usage.refreshed == [("Europe/Paris", "2026-11"), ("Asia/Tokyo", "2026-11")]


def test_all_periods_within_long_days_of_grace_are_refreshed():
    long = replace(book(), grace_days=45)
    names = [each.name for each in periods_to_refresh(long, datetime(2026, 11, 10, tzinfo=UTC))]
    assert names == ["2026-09", "2026-10", "2026-11"]
