"""What usage needs of a store: the quantities that are kept, by day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Collection
from collections.abc import Sequence
from datetime import date
from datetime import datetime

from zope.interface import Interface

from meter.rating.book.price_book import PriceBook
from meter.rating.period import BillingPeriod
from meter.rating.statements.statement import AnnexRow
from meter.rating.usage.usage_atom import UsageAtom


class IUsage(Interface):
    """The usage of a price book's SKUs. Methods raise ``Unavailable`` as those of ``IStore`` do."""

    async def refresh(book: PriceBook, period: BillingPeriod, now: datetime) -> int:
        """Compute again the days of ``period`` that are new, or that changed since they were computed; return how many.

        It may be killed at any time and repeated. Days after ``now`` are left out; the day of ``now`` counts until ``now``.
        """

    async def projects(book: PriceBook, period: BillingPeriod) -> Sequence[str]:
        """Return the ids of the projects that have usage in ``period``, in order."""

    def totals(
        book: PriceBook, period: BillingPeriod, projects: Collection[str], skus: Collection[str] | None = None
    ) -> AsyncIterator[UsageAtom]:
        """Yield the kept usage of ``projects``, of ``skus`` or of all, summed over resources where no price of the SKU counts per resource.

        The order is that of SKU, day, project, resource and values.
        """

    def atoms(
        book: PriceBook,
        period: BillingPeriod,
        projects: Collection[str],
        resource_id: str | None = None,
        skus: Collection[str] | None = None,
    ) -> AsyncIterator[UsageAtom]:
        """Yield the kept usage of ``projects``, of one resource or of all, in the order of SKU, day, project, resource and values."""

    def computed(
        book: PriceBook, period: BillingPeriod, projects: Collection[str], as_of: datetime
    ) -> AsyncIterator[UsageAtom]:
        """Yield the same as :meth:`atoms`, computed from the samples that were recorded until ``as_of``; nothing is kept."""

    def annex(book: PriceBook, period: BillingPeriod, projects: Collection[str]) -> AsyncIterator[AnnexRow]:
        """Yield the kept usage of ``projects`` with one row for a SKU, resource and values, in the order of project, SKU, resource, values.

        Days without usage are left out, and so are resources without any.
        """

    async def as_of(book: PriceBook, period: BillingPeriod) -> datetime | None:
        """Return until when samples were recorded that the kept usage was computed from: :meth:`computed` gives the same as of then.

        ``None`` if a day has to be computed, or if there is none.
        """

    async def changed_days(book: PriceBook, period: BillingPeriod) -> Sequence[date]:
        """Return the days of ``period`` that :meth:`refresh` would compute again."""
