"""Usage for tests of statements: atoms that were rated, in the order that a store keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
from datetime import date
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from zope.interface import implementer

from meter.rating.book.price_book import PriceBook
from meter.rating.exact import plain
from meter.rating.money.rating import in_order
from meter.rating.period import BillingPeriod
from meter.rating.statements.statement import AnnexRow
from meter.rating.usage.usage_atom import UsageAtom
from meter.rating.usage.usage_store import IUsage


class ArrivedUsage(NamedTuple):
    """Usage, and when its samples were recorded."""

    atom: UsageAtom
    recorded_at: datetime


@implementer(IUsage)
class KeptUsage:
    """Usage that ``arrives`` is kept from the next refresh on. ``on_refresh`` is called before each."""

    def __init__(self) -> None:
        self.arrived: list[ArrivedUsage] = []
        self._kept: list[UsageAtom] = []
        self.refreshed: list[tuple[str, str]] = []
        self.on_refresh: Callable[[], object] = lambda: None

    def arrive(self, atoms: Iterable[UsageAtom], at: datetime) -> None:
        """Add usage that was recorded ``at`` a time."""
        self.arrived += [ArrivedUsage(atom, at) for atom in atoms]

    async def refresh(self, book: PriceBook, period: BillingPeriod, now: datetime) -> int:
        """Keep what has arrived."""
        self.refreshed.append((book.name, period.name))
        changed = await self.changed_days(book, period)
        self._kept += [each.atom for each in self.arrived[len(self._kept) :]]
        self.on_refresh()
        return len(changed)

    async def projects(self, book: PriceBook, period: BillingPeriod) -> Sequence[str]:
        """Return the projects of what is kept."""
        return sorted({atom.project_id for atom in self._of(self._kept, book, period)})

    async def totals(
        self, book: PriceBook, period: BillingPeriod, projects: Collection[str], skus: Collection[str] | None = None
    ) -> AsyncIterator[UsageAtom]:
        """Yield what is kept, by resource."""
        async for atom in self.atoms(book, period, projects, skus=skus):
            yield atom

    async def atoms(
        self,
        book: PriceBook,
        period: BillingPeriod,
        projects: Collection[str],
        resource_id: str | None = None,
        skus: Collection[str] | None = None,
    ) -> AsyncIterator[UsageAtom]:
        """Yield what is kept."""
        for atom in self._of(self._kept, book, period):
            if (
                atom.project_id in projects
                and resource_id in (None, atom.resource_id)
                and (skus is None or atom.sku in skus)
            ):
                yield atom

    async def annex(self, book: PriceBook, period: BillingPeriod, projects: Collection[str]) -> AsyncIterator[AnnexRow]:
        """Yield what is kept, by resource."""
        days: dict[tuple[str, str, str, tuple[tuple[str, str], ...]], dict[str, Decimal]] = {}
        for atom in self._of(self._kept, book, period):
            if atom.project_id in projects and atom.quantity:
                place = atom.project_id, atom.sku, atom.resource_id, tuple(sorted(atom.values.items()))
                of_day = days.setdefault(place, {})
                key = atom.day.isoformat()
                of_day[key] = plain(of_day.get(key, Decimal(0)) + atom.quantity)
        for (project_id, sku, resource_id, values), used in sorted(days.items()):
            yield AnnexRow(project_id=project_id, sku=sku, resource_id=resource_id, values=dict(values), days=used)

    async def as_of(self, book: PriceBook, period: BillingPeriod) -> datetime | None:
        """Return when the newest kept usage was recorded."""
        return max((each.recorded_at for each in self.arrived[: len(self._kept)]), default=None)

    async def computed(
        self, book: PriceBook, period: BillingPeriod, projects: Collection[str], as_of: datetime
    ) -> AsyncIterator[UsageAtom]:
        """Yield what was recorded until ``as_of``."""
        known = [each.atom for each in self.arrived if each.recorded_at <= as_of]
        for atom in self._of(known, book, period):
            if atom.project_id in projects:
                yield atom

    async def changed_days(self, book: PriceBook, period: BillingPeriod) -> Sequence[date]:
        """Return the days of what has arrived since the last refresh."""
        new = [each.atom for each in self.arrived[len(self._kept) :]]
        return sorted({atom.day for atom in self._of(new, book, period)})

    def _of(self, atoms: Iterable[UsageAtom], book: PriceBook, period: BillingPeriod) -> list[UsageAtom]:
        return in_order(atom for atom in atoms if atom.sku in book.skus and period.first <= atom.day < period.until)
