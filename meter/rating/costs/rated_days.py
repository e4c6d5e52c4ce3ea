"""Rated days: what the usage of each day, project, SKU and values cost, in open and closed periods.

A period whose statement is closed is rated by the book that is stored with it, another one by the price directory. Tier positions are
those of the whole account, also where one project of it is asked for. Amounts are exact; discounts, fixed charges, minimums,
credits and taxes are not in them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from meter.completeness.lives.resource_lives import Pausing
from meter.identity_names import IIdentityNames
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.exact import EXACT
from meter.rating.exact import divided_amount
from meter.rating.money.priced_usage import PricedUnits
from meter.rating.money.priced_usage import Values
from meter.rating.money.priced_usage import amount_of
from meter.rating.money.priced_usage import as_values
from meter.rating.money.tiers import FREE_TIER
from meter.rating.money.tiers import ZERO
from meter.rating.period import BillingPeriod
from meter.rating.period import start_of_day
from meter.rating.rating_store import IRatingStore
from meter.rating.statements.account_rating import AccountRating
from meter.rating.statements.account_rating import KnownPayer
from meter.rating.statements.account_rating import rating_of
from meter.rating.statements.closed_periods import DirectoryOf
from meter.rating.statements.payers import account_named
from meter.rating.statements.project_history import ProjectHistory
from meter.rating.steps import in_slices


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedDay:
    """What a project used of a SKU on a day, with the same values, and what it cost. ``start`` and ``end`` are those of the day.

    ``resource_id`` is "" for the sum of all resources.
    """

    day: date
    start: datetime
    end: datetime
    currency: str
    account_id: str
    project_id: str
    resource_id: str
    sku: str
    unit: str
    values: Mapping[str, str]
    quantity: Decimal
    amount: Decimal


@dataclass(slots=True)
class _Cost:
    quantity: Decimal = ZERO
    amount: Decimal = ZERO

    def add(self, quantity: Decimal, amount: Decimal) -> None:
        self.quantity = EXACT.add(self.quantity, quantity)
        self.amount = EXACT.add(self.amount, amount)


_Place = tuple[date, str, str, Values]
"""A day, a project, a SKU and values."""

_Costs = defaultdict[_Place, defaultdict[str, _Cost]]
"""What was used and cost, by resource: "" where the price counts what all resources use."""


class RatedDays:
    """The rated days of the accounts of a price directory, from the kept usage of a store; they are computed in ``slices``."""

    def __init__(
        self,
        store: IRatingStore,
        names: IIdentityNames,
        directory: PriceDirectory,
        directory_of: DirectoryOf,
        slices: Pausing,
    ) -> None:
        self._slices = slices
        self._store = store
        self._names = names
        self._directory = directory
        self._directory_of = directory_of

    async def between(
        self, begin: datetime, end: datetime, project_id: str | None = None, *, by_resource: bool = False
    ) -> AsyncIterator[RatedDay]:
        """Yield the days that start from ``begin`` until before ``end``, of one project or of all, by account and period."""
        async for known in self._payers(begin, end, project_id):
            costs = await self._costs(known, begin, end, project_id)
            if not by_resource:
                for place, cost in sorted(_by_place(costs).items(), key=lambda item: item[0]):
                    await self._pause()
                    yield _rated_day(known, place, "", cost.quantity, cost.amount)
            elif costs:
                async for day in self._of_resources(known, costs, project_id):
                    yield day

    async def _pause(self) -> None:
        if self._slices.over:
            await self._slices.pause()

    async def _payers(self, begin: datetime, end: datetime, project_id: str | None) -> AsyncIterator[KnownPayer]:
        rating = AccountRating(self._store.usage, self._names, self._slices)
        for _, book in sorted(self._directory.books.items()):
            for period in _periods(book, begin, end):
                if project_id is None:
                    for known in await rating.payers(self._directory, book, period):
                        yield await self._by_closed_book(rating, known)
                else:
                    for account in await self._accounts_of(project_id, book, period):
                        yield await self._by_closed_book(
                            rating, await rating.payer(self._directory, account, period.name)
                        )

    async def _accounts_of(self, project_id: str, book: PriceBook, period: BillingPeriod) -> list[Account]:
        """Return the accounts to which a project belongs on any day of ``period``, that pay by ``book``."""
        history = await ProjectHistory.read(self._names, [project_id], book.timezone)
        found: dict[tuple[str, bool], Account] = {}
        for day in period.days():
            account = self._directory.account_of(project_id, history.domain_of(project_id, day), day)
            if account.book == book.name:
                found[account.id, account.implied] = account
        return [found[key] for key in sorted(found)]

    async def _by_closed_book(self, rating: AccountRating, known: KnownPayer) -> KnownPayer:
        """Return ``known`` by the book of its closed statement, if the period has one and its book is another."""
        payer, statements = known.payer, self._store.statements
        closed = await statements.summaries(payer.account.id, None, payer.period.name, 1)
        signed = await statements.statement(closed[0].statement_id) if closed else None
        if signed is None or signed.statement.book.sha256 == payer.book.sha256:
            return known
        text = await statements.book(signed.statement.book.sha256)
        if text is None:
            return known
        directory = self._directory_of(text)
        return await rating.payer(directory, account_named(directory, payer.account.id), payer.period.name)

    async def _costs(self, known: KnownPayer, begin: datetime, end: datetime, project_id: str | None) -> _Costs:
        """Return what each place cost, of each resource alone where the price counts resources."""
        payer = known.payer
        if not payer.projects:
            return defaultdict(lambda: defaultdict(_Cost))
        days = {day for day in payer.period.days() if begin <= start_of_day(day, payer.period.timezone) < end}
        units: list[PricedUnits] = []

        def observe(each: PricedUnits) -> None:
            if each.day in days and project_id in (None, each.project_id):
                units.append(each)

        rating = rating_of(known, observe)
        async for atom in self._store.usage.totals(payer.book, payer.period, payer.projects):
            await in_slices(rating.begin(atom.sku, atom.day), self._slices)
            rating.add(atom)
            await self._pause()
        await in_slices(rating.results(), self._slices)
        costs: _Costs = defaultdict(lambda: defaultdict(_Cost))
        for each in units:
            await self._pause()
            resource_id = each.resource_id if each.price.per == "resource" else ""
            cost = costs[each.day, each.project_id, each.sku, each.values][resource_id]
            price = ZERO if each.tier == FREE_TIER else each.price.tiers[each.tier - 1].price
            cost.add(each.quantity, amount_of(price, each.priced, each.price, payer.period))
        return costs

    async def _of_resources(self, known: KnownPayer, costs: _Costs, project_id: str | None) -> AsyncIterator[RatedDay]:
        """Yield the days of resources: what each cost, or its share by usage of what all cost that day, to 12 decimals."""
        payer = known.payer
        projects = payer.projects if project_id is None else [project_id]
        async for atom in self._store.usage.atoms(payer.book, payer.period, projects):
            await self._pause()
            place = (atom.day, atom.project_id, atom.sku, as_values(atom.values))
            of_place = costs.get(place)
            cost = None if of_place is None else of_place.get(atom.resource_id, of_place.get(""))
            if cost is not None and cost.quantity and atom.quantity:
                amount = divided_amount(Fraction(cost.amount) * Fraction(atom.quantity) / Fraction(cost.quantity))
                yield _rated_day(known, place, atom.resource_id, atom.quantity, amount)


def _by_place(costs: _Costs) -> Mapping[_Place, _Cost]:
    sums: defaultdict[_Place, _Cost] = defaultdict(_Cost)
    for place, of_place in costs.items():
        for cost in of_place.values():
            sums[place].add(cost.quantity, cost.amount)
    return sums


def _periods(book: PriceBook, begin: datetime, end: datetime) -> Iterator[BillingPeriod]:
    period = BillingPeriod.containing(begin, book.timezone)
    while period.start < end:
        yield period
        period = period.next


def _rated_day(known: KnownPayer, place: _Place, resource_id: str, quantity: Decimal, amount: Decimal) -> RatedDay:
    day, project_id, sku, values = place
    payer = known.payer
    return RatedDay(
        day=day,
        start=start_of_day(day, payer.period.timezone),
        end=start_of_day(day + timedelta(days=1), payer.period.timezone),
        currency=payer.book.currency,
        account_id=payer.account.id,
        project_id=project_id,
        resource_id=resource_id,
        sku=sku,
        unit=payer.book.skus[sku].unit,
        values=dict(values),
        quantity=quantity,
        amount=amount,
    )
