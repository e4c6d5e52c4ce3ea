"""What a period would have cost by another price book, by project; nothing is stored or changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Collection
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from meter.identity_names import IIdentityNames
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.exact import EXACT
from meter.rating.money.rated import RatedLine
from meter.rating.period import BillingPeriod
from meter.rating.rating_store import IRatingStore
from meter.rating.statements.account_rating import AccountRating
from meter.rating.statements.account_rating import KnownPayer
from meter.rating.statements.account_rating import rating_of
from meter.rating.statements.statement import StatementLine
from meter.rating.statements.statement_id import statement_id
from meter.rating.usage.usage_atom import UsageAtom

COMPARED_KINDS = frozenset(("usage", "fixed", "discount", "minimum"))
"""Kinds of lines that follow from a period's usage and its book: no credits, taxes or corrections of other periods."""

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectDifference:
    """What a project costs by the present and by the other book; ``closed``: the former is what was billed.

    ``project_id`` is "" for what is charged to the account. An amount is ``None`` if no account of the book has the project.
    ``unpriced``: usage that the other book has no price for.
    """

    account_id: str
    project_id: str
    project_name: str
    currency: str
    old: Decimal | None
    new_currency: str
    new: Decimal | None
    closed: bool
    unpriced: bool

    @property
    def difference(self) -> Decimal | None:
        """``new`` less ``old``; ``None`` if the currencies differ."""
        if self.old is not None and self.new is not None and self.currency != self.new_currency:
            return None
        return EXACT.subtract(self.new or ZERO, self.old or ZERO)


@dataclass(slots=True)
class _Costs:
    account_id: str
    name: str
    currency: str
    amount: Decimal = ZERO
    closed: bool = False
    unpriced: bool = False


_Key = tuple[str, str]
"""Account and project; the account is "" for the projects that are compared across accounts."""

_CostsByCurrency = dict[_Key, dict[str, _Costs]]


class BookComparison:
    """Compares two price directories over one period."""

    def __init__(self, store: IRatingStore, names: IIdentityNames, old: PriceDirectory, new: PriceDirectory) -> None:
        self._store = store
        self._rating = AccountRating(store.usage, names)
        self._old = old
        self._new = new

    async def compare(self, period_name: str, now: datetime) -> list[ProjectDifference]:
        """Return the difference of each project with anything to bill, and of each account for what is of no project.

        What was billed for a closed period is compared as it was closed. Usage of SKUs that the other book measures in another way is
        computed from samples, that of others is the kept one.

        :raises ValueError: ``period_name`` is not the name of a period.
        """
        old = await self._costs(self._old, period_name, now, billed=True)
        new = await self._costs(self._new, period_name, now, billed=False)
        found = []
        for key in sorted({*old, *new}):
            for before, after in _pairs(old.get(key, {}), new.get(key, {})):
                known = before or after
                assert known is not None
                found.append(
                    ProjectDifference(
                        account_id=known.account_id,
                        project_id=key[1],
                        project_name=known.name,
                        currency=known.currency,
                        old=None if before is None else before.amount,
                        new_currency=(after or known).currency,
                        new=None if after is None else after.amount,
                        closed=before is not None and before.closed,
                        unpriced=after is not None and after.unpriced,
                    )
                )
        return found

    async def _costs(
        self, directory: PriceDirectory, period_name: str, now: datetime, *, billed: bool
    ) -> _CostsByCurrency:
        costs: _CostsByCurrency = {}
        for _, book in sorted(directory.books.items()):
            period = BillingPeriod.named(period_name, book.timezone)
            for known in await self._payers(directory, book, period):
                account_id = known.payer.account.id
                signed = None
                if billed:
                    signed = await self._store.statements.statement(statement_id(period_name, account_id))
                if signed is not None:
                    _add(costs, known, signed.statement.lines, signed.statement.currency, closed=True)
                    continue
                rating = rating_of(known)
                async for atom in self._usage(known, now):
                    rating.add(atom)
                rated = rating.result()
                _add(costs, known, rated.lines, book.currency)
                for each in rated.unpriced:
                    _cost(costs, known, each.project_id, book.currency).unpriced = True
        return costs

    async def _payers(self, directory: PriceDirectory, book: PriceBook, period: BillingPeriod) -> list[KnownPayer]:
        """Return the accounts; the projects with usage are those of the books that are in use."""
        projects = {id for each in self._old.books.values() for id in await self._rating.projects(each, period)}
        return await self._rating.payers(directory, book, period, also=projects)

    async def _usage(self, known: KnownPayer, now: datetime) -> AsyncIterator[UsageAtom]:
        """Yield the usage of an account, SKU by SKU: the kept one where a book in use measures the SKU in the same way."""
        book, period, projects = known.payer.book, known.payer.period, known.payer.projects
        if not projects:
            return
        for id, sku in sorted(book.skus.items()):
            of_sku = replace(book, skus={id: sku})
            if self._is_kept(book, id):
                usage = self._store.usage.totals(of_sku, period, projects)
            else:
                usage = self._store.usage.computed(of_sku, period, projects, min(now, await self._time()))
            async for atom in usage:
                yield atom

    async def _time(self) -> datetime:
        return await self._store.statements.settled_time()

    def _is_kept(self, book: PriceBook, sku: str) -> bool:
        return any(
            each.timezone.key == book.timezone.key and book.skus[sku] in each.skus.values()
            for each in self._old.books.values()
        )


def _add(
    costs: _CostsByCurrency,
    known: KnownPayer,
    lines: Iterable[RatedLine | StatementLine],
    currency: str,
    *,
    closed: bool = False,
) -> None:
    for line in lines:
        if line.kind in COMPARED_KINDS:
            cost = _cost(costs, known, line.project_id, currency)
            cost.amount = EXACT.add(cost.amount, line.amount)
            cost.closed = closed


def _pairs(old: dict[str, _Costs], new: dict[str, _Costs]) -> list[tuple[_Costs | None, _Costs | None]]:
    """Return what is compared; amounts of a project in several currencies, because its account changed, each with the same."""
    if len(old) <= 1 and len(new) <= 1:
        return [(next(iter(old.values()), None), next(iter(new.values()), None))]
    return [(old.get(each), new.get(each)) for each in sorted({*old, *new})]


def _cost(costs: _CostsByCurrency, known: KnownPayer, project_id: str, currency: str) -> _Costs:
    account_id = known.payer.account.id
    key = ("", project_id) if project_id else (account_id, "")
    name = known.history.name_at(project_id, known.payer.period.end) if project_id else ""
    return costs.setdefault(key, {}).setdefault(currency, _Costs(account_id, name, currency))


def totals(differences: Collection[ProjectDifference]) -> dict[str, tuple[Decimal, Decimal]]:
    """Return the sums of old and new amounts by currency."""
    sums: dict[str, tuple[Decimal, Decimal]] = {}
    for each in differences:
        if each.old is not None:
            old, new = sums.get(each.currency, (ZERO, ZERO))
            sums[each.currency] = EXACT.add(old, each.old), new
        if each.new is not None:
            old, new = sums.get(each.new_currency, (ZERO, ZERO))
            sums[each.new_currency] = old, EXACT.add(new, each.new)
    return sums
