"""Rates accounts from the kept usage of a store."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from meter.completeness.lives.resource_lives import Pausing
from meter.identity_names import IIdentityNames
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_index import price_of
from meter.rating.money.account_projects import AccountProjects
from meter.rating.money.forecast import Forecast
from meter.rating.money.priced_usage import Observe
from meter.rating.money.rated import Rated
from meter.rating.money.rated import RatedLine
from meter.rating.money.rating import Rating
from meter.rating.period import BillingPeriod
from meter.rating.statements.payers import Payer
from meter.rating.statements.payers import charged_projects
from meter.rating.statements.payers import payer_of
from meter.rating.statements.payers import payers_of
from meter.rating.statements.project_history import ProjectHistory
from meter.rating.steps import in_slices
from meter.rating.usage.usage_store import IUsage


class KnownPayer(NamedTuple):
    """Who pays, by which directory, and what is known of the projects."""

    directory: PriceDirectory
    payer: Payer
    history: ProjectHistory


class AccountRating:
    """Rates accounts; for one operation, because what it has read is not read again.

    It works in ``slices``, so that the reactor of a daemon runs in between; without them at once.
    """

    def __init__(self, usage: IUsage, names: IIdentityNames, slices: Pausing | None = None) -> None:
        self.usage = usage
        self._slices = slices
        self._names = names
        self._projects: dict[tuple[str, str], Sequence[str]] = {}

    async def projects(self, book: PriceBook, period: BillingPeriod) -> Sequence[str]:
        """Return the projects with usage of the SKUs of ``book`` in ``period``."""
        key = book.sha256, period.name
        if key not in self._projects:
            self._projects[key] = await self.usage.projects(book, period)
        return self._projects[key]

    async def payers(
        self, directory: PriceDirectory, book: PriceBook, period: BillingPeriod, also: Iterable[str] = ()
    ) -> list[KnownPayer]:
        """Return all accounts that pay by ``book`` in ``period``, for the projects with kept usage and for those of ``also``."""
        projects = {*await self.projects(book, period), *also}
        members = {each.id for account in directory.accounts.values() for each in account.projects}
        history = await ProjectHistory.read(self._names, {*projects, *members, *charged_projects(book)}, book.timezone)
        steps = payers_of(directory, book, period, projects, history.domain_of)
        found = await in_slices(steps, self._slices)
        return [KnownPayer(directory, payer, history) for payer in found]

    async def payer(self, directory: PriceDirectory, account: Account, period_name: str) -> KnownPayer:
        """Return one account as a payer; ``ValueError`` if it has no book, or ``period_name`` is not the name of a period."""
        book = directory.books.get(account.book)
        if book is None:
            raise ValueError(f"the account {account.id} has no price book: no file has a book {account.book!r}")
        period = BillingPeriod.named(period_name, book.timezone)
        projects = {each.id for each in account.projects}
        if account.domains:
            projects |= set(await self.projects(book, period))
        history = await ProjectHistory.read(self._names, {*projects, *charged_projects(book)}, book.timezone)
        payer = payer_of(directory, account, period_name, projects, history.domain_of)
        return KnownPayer(directory, payer, history)

    async def rated(
        self,
        known: KnownPayer,
        *,
        corrections: Sequence[RatedLine] = (),
        credits_used: Mapping[str, Decimal] | None = None,
        without: Mapping[str, Collection[date]] | None = None,
    ) -> Rated:
        """Return the lines of an account from its kept usage, ``without`` that of the given days, by project."""
        rating, payer = rating_of(known, charged=await self._is_charged(known)), known.payer
        if payer.projects:
            async for atom in self.usage.totals(payer.book, payer.period, payer.projects):
                if without and atom.day in without.get(atom.project_id, ()):
                    continue
                await in_slices(rating.begin(atom.sku, atom.day), self._slices)
                rating.add(atom)
        return await in_slices(rating.results(corrections=corrections, credits_used=credits_used), self._slices)

    async def _is_charged(self, known: KnownPayer) -> bool:
        payer = known.payer
        used = payer.account.implied and set(payer.projects) & set(await self.projects(payer.book, payer.period))
        return is_charged(known, used=bool(used))

    async def rated_with_forecast(
        self,
        known: KnownPayer,
        now: datetime,
        *,
        corrections: Sequence[RatedLine] = (),
        credits_used: Mapping[str, Decimal] | None = None,
        without: Mapping[str, Collection[date]] | None = None,
    ) -> tuple[Rated, Rated]:
        """Return the lines so far, and those that are expected at the end of the period, ``without`` as for :meth:`rated`."""
        charged, payer = await self._is_charged(known), known.payer
        rating, expected = rating_of(known, charged=charged), Forecast(rating_of(known, charged=charged), now)
        if payer.projects:
            async for atom in self.usage.totals(payer.book, payer.period, payer.projects):
                if without and atom.day in without.get(atom.project_id, ()):
                    continue
                for each in (rating, expected):
                    await in_slices(each.begin(atom.sku, atom.day), self._slices)
                    each.add(atom)
        return (
            await in_slices(rating.results(corrections=corrections, credits_used=credits_used), self._slices),
            await in_slices(expected.results(corrections=corrections, credits_used=credits_used), self._slices),
        )


def is_charged(known: KnownPayer, *, used: bool) -> bool:
    """Whether the files name the account, or its project, which is an account of its own, has usage or a charge of its own."""
    account, book, period = known.payer.account, known.payer.book, known.payer.period
    if used or not account.implied:
        return True
    owned = AccountProjects(known.directory, account, known.history.domain_of)
    return account.id in charged_projects(book) and any(owned.has(account.id, day) for day in period.days())


def rating_of(known: KnownPayer, observe: Observe | None = None, *, charged: bool = True) -> Rating:
    """Return the rating of an account, to which its usage can be added; ``observe`` is called with what is priced.

    Not ``charged`` are accounts that pay nothing in the period: they have no charges and minimums, but may have corrections.
    """
    payer = known.payer
    book = payer.book
    if not charged:
        book = replace(book, fixed_charges=(), minimums=())
    return Rating(
        known.directory,
        book,
        payer.account,
        payer.period,
        domain_of=known.history.domain_of,
        price_of=price_of,
        observe=observe,
    )
