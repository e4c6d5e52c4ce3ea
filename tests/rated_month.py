"""The worked month in a store in memory: its usage kept, and its prices as a daemon has them."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from typing import Any

from meter.rating.book.price_book import PriceDirectory
from tests.kept_usage import KeptUsage
from tests.worked_months import CLOUD_MONTH

RATED = datetime(2025, 12, 1, 12, tzinfo=UTC)


class FixedPrices:
    """A price directory that does not change."""

    def __init__(self, directory: PriceDirectory) -> None:
        self.directory = directory

    async def current(self) -> PriceDirectory:
        return self.directory


async def keep_usage(store: Any) -> PriceDirectory:
    """Let ``store`` have the usage of the month, of all books; return the price directory."""
    directory = CLOUD_MONTH.directory()
    kept = KeptUsage()
    for book in sorted(directory.books):
        kept.arrive(CLOUD_MONTH.usage(book), RATED)
    for book in directory.books.values():
        await kept.refresh(book, CLOUD_MONTH.period_of(book), RATED)
    store.rating.usage = kept
    return directory
