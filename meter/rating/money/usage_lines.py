"""Lines of usage: quantities, one at a time, to lines by project, SKU, price and tier."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from meter.rating.book.price_book import PriceBook
from meter.rating.exact import EXACT
from meter.rating.exact import plain
from meter.rating.money.account_projects import AccountProjects
from meter.rating.money.priced_usage import Observe
from meter.rating.money.priced_usage import UnpricedSum
from meter.rating.money.priced_usage import Values
from meter.rating.money.priced_usage import as_values
from meter.rating.money.rated import RatedLine
from meter.rating.money.rated import UnmeteredTime
from meter.rating.money.rated import UnpricedUsage
from meter.rating.money.sku_usage import PriceOf
from meter.rating.money.sku_usage import SkuUsage
from meter.rating.money.tiers import ZERO
from meter.rating.period import BillingPeriod
from meter.rating.steps import Steps
from meter.rating.steps import at_once
from meter.rating.usage.usage_atom import UsageAtom


class UsageLines:
    """The lines of the usage of an account. Usage is added in the order of SKU and day; within a day in any order.

    The units of a day get their positions in the order of project, resource and values; resources are taken as one where no price of the
    SKU counts per resource. What is kept is bounded by the lines, the usage of one day, and the positions of one SKU.
    """

    def __init__(
        self,
        book: PriceBook,
        period: BillingPeriod,
        projects: AccountProjects,
        price_of: PriceOf,
        observe: Observe | None = None,
    ) -> None:
        self.lines: list[RatedLine] = []
        self.discounted: dict[tuple[str, str, str], Decimal] = {}
        """The exact amounts to which discounts apply, by discount, project and SKU."""
        self._book = book
        self._period = period
        self._projects = projects
        self._price_of = price_of
        self._observe = observe
        self._unpriced: dict[tuple[str, str, Values], UnpricedSum] = {}
        self._unmetered: dict[tuple[str, str], int] = {}
        self._done: set[str] = set()
        self._sku: SkuUsage | None = None

    def begin(self, sku: str, day: date) -> Steps[None]:
        """End the usage before that of a SKU and day; :meth:`add` does it by itself, but at once.

        :raises ValueError: the SKU is not in the book, or the order is wrong.
        """
        if self._sku is None or self._sku.sku.id != sku:
            yield from self._begin_sku(sku)
        assert self._sku is not None
        yield from self._sku.begin(day)

    def add(self, atom: UsageAtom) -> None:
        """Add usage; that of projects which belong to another account on the day is ignored.

        :raises ValueError: the SKU is not in the book, the day not in the period, or the order is wrong.
        """
        if self._sku is None or self._sku.sku.id != atom.sku:
            at_once(self._begin_sku(atom.sku))
        assert self._sku is not None
        if not self._period.first <= atom.day < self._period.until:
            raise ValueError(f"usage of {atom.day} is not in the period {self._period.name}")
        if not self._projects.has(atom.project_id, atom.day):
            return
        if atom.unmetered_seconds:
            key = (atom.project_id, atom.sku)
            self._unmetered[key] = self._unmetered.get(key, 0) + atom.unmetered_seconds
        self._sku.add(atom)

    def finish(self) -> Steps[None]:
        """End the usage: after it :attr:`lines` and :attr:`discounted` are complete."""
        yield from self._finish_sku()
        self.lines.sort(key=_order)

    @property
    def unpriced(self) -> list[UnpricedUsage]:
        """Usage that no price covers, by project, SKU and values."""
        return [
            UnpricedUsage(
                project_id=project_id,
                sku=sku,
                values=dict(values),
                first=each.first,
                until=each.until,
                quantity=plain(each.quantity),
                unit=self._book.skus[sku].unit,
            )
            for (project_id, sku, values), each in sorted(self._unpriced.items())
            if each.quantity
        ]

    @property
    def unmetered(self) -> list[UnmeteredTime]:
        """Time of which nothing is known, by project and SKU."""
        return [
            UnmeteredTime(project_id=project_id, sku=sku, seconds=seconds)
            for (project_id, sku), seconds in sorted(self._unmetered.items())
        ]

    def _begin_sku(self, sku: str) -> Steps[None]:
        yield from self._finish_sku()
        if sku in self._done:
            raise ValueError(f"usage of SKU {sku!r} comes after that of another SKU: sort it by SKU")
        if sku not in self._book.skus:
            raise ValueError(f"SKU {sku!r} is not in the price book {self._book.name!r}")
        self._sku = SkuUsage(
            self._book,
            self._book.skus[sku],
            self._period,
            self._projects,
            self._price_of,
            self._unpriced,
            self._observe,
        )

    def _finish_sku(self) -> Steps[None]:
        if self._sku is None:
            return
        usage = self._sku
        self._sku = None
        self._done.add(usage.sku.id)
        yield from usage.end()
        for line, discounted in usage.finished():
            self.lines.append(line)
            for discount_id, amount in discounted.items():
                key = (discount_id, line.project_id, usage.sku.id)
                self.discounted[key] = EXACT.add(self.discounted.get(key, ZERO), amount)
            yield


def _order(line: RatedLine) -> tuple[object, ...]:
    return (line.project_id, line.sku, as_values(line.values), line.first, line.price_id, line.tier)
