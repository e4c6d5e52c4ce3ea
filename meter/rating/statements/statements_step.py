"""The step ``statements`` of the collector's rating: which corrections wait to be billed, and what could be closed and is not."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from typing import Protocol

from meter.completeness.lives.resource_lives import Pausing
from meter.identity_names import IIdentityNames
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.exact import EXACT
from meter.rating.period import BillingPeriod
from meter.rating.rating_store import IRatingStore
from meter.rating.statements.account_rating import AccountRating
from meter.rating.statements.closed_periods import ClosedPeriod
from meter.rating.statements.closed_periods import ClosedPeriods
from meter.rating.statements.closed_periods import DirectoryOf
from meter.rating.statements.closing_problems import end_of_grace
from meter.rating.statements.payers import account_named
from meter.rating.statements.statement_store import StatementSummary

INTERVAL = timedelta(hours=1)
"""How often corrections are computed: they change with samples of closed periods, which are few."""

MAX_STATEMENTS = 100_000
"""Statements of a period that are looked at."""


@dataclass(frozen=True, slots=True)
class WaitingCorrections:
    """Correction lines that wait for the next close, and the sum of their amounts."""

    lines: int = 0
    amount: Decimal = Decimal(0)


class IStatementMetrics(Protocol):
    """Shows the state of statements: :class:`meter.daemon.statement_metrics.StatementMetrics`."""

    def corrections(self, waiting: Mapping[str, WaitingCorrections]) -> None:
        """Show the corrections that wait, by currency."""

    def closing(self, accounts: int, last_close: datetime | None) -> None:
        """Show how many accounts could be closed, and when the last one was."""


class StatementsStep:
    """Looks at the last closed periods by the price directory that ``directory`` returns; nothing is closed or billed."""

    name = "statements"

    def __init__(
        self,
        store: IRatingStore,
        names: IIdentityNames,
        directory: Callable[[], Awaitable[PriceDirectory]],
        directory_of: DirectoryOf,
        metrics: IStatementMetrics,
        *,
        correct_periods: int,
        slices: Pausing | None = None,
    ) -> None:
        self._slices = slices
        self._store = store
        self._names = names
        self._directory = directory
        self._directory_of = directory_of
        self._metrics = metrics
        self._correct_periods = correct_periods
        self._computed_at: datetime | None = None

    async def run(self, now: datetime) -> None:
        """Show what there is; corrections are computed at most once in an :data:`INTERVAL`."""
        directory = await self._directory()
        rating = AccountRating(self._store.usage, self._names, self._slices)
        accounts = 0
        for _, book in sorted(directory.books.items()):
            period = last_period_over(book, now)
            closed = await self._store.statements.summaries(period=period.name, limit=MAX_STATEMENTS)
            accounts += await self._open_accounts(rating, directory, book, period, closed)
        self._metrics.closing(accounts, await self._store.statements.last_close())
        if self._computed_at is None or now - self._computed_at >= INTERVAL:
            self._metrics.corrections(await self._corrections(rating, directory, now))
            self._computed_at = now

    async def _open_accounts(
        self,
        rating: AccountRating,
        directory: PriceDirectory,
        book: PriceBook,
        period: BillingPeriod,
        closed: Sequence[StatementSummary],
    ) -> int:
        """Return how many accounts with usage in ``period`` have no statement of it."""
        done = {each.account_id for each in closed}
        payers = await rating.payers(directory, book, period)
        return sum(1 for each in payers if each.payer.projects and each.payer.account.id not in done)

    async def _corrections(
        self, rating: AccountRating, directory: PriceDirectory, now: datetime
    ) -> Mapping[str, WaitingCorrections]:
        """Return the corrections of all accounts by currency, after the usage of their closed periods was brought up to date."""
        periods = ClosedPeriods(self._store.statements, rating, self._directory_of, self._correct_periods)
        found: dict[str, list[ClosedPeriod]] = {}
        refreshed: set[tuple[str, str]] = set()
        for account_id in await self._closed_accounts(directory, now):
            account = account_named(directory, account_id)
            if account.book not in directory.books:
                continue
            present = BillingPeriod.containing(now, directory.books[account.book].timezone)
            known = await rating.payer(directory, account, present.name)
            found[account_id] = await periods.before(known)
            for each in found[account_id]:
                key = each.book.sha256, each.period.name
                if key not in refreshed:
                    refreshed.add(key)
                    await self._store.usage.refresh(each.book, each.period, now)
        fresh = AccountRating(self._store.usage, self._names, self._slices)
        periods = ClosedPeriods(self._store.statements, fresh, self._directory_of, self._correct_periods)
        waiting: dict[str, WaitingCorrections] = {}
        for closed in found.values():
            if not closed:
                continue
            currency = closed[0].book.currency
            before = waiting.get(currency, WaitingCorrections())
            lines = await periods.corrections(closed)
            amount = before.amount
            for line in lines:
                amount = EXACT.add(amount, line.amount)
            waiting[currency] = WaitingCorrections(before.lines + len(lines), amount)
        return waiting

    async def _closed_accounts(self, directory: PriceDirectory, now: datetime) -> list[str]:
        """Return the accounts that have a statement of one of the last periods."""
        found: set[str] = set()
        for name, book in directory.books.items():
            period = BillingPeriod.containing(now, book.timezone)
            for _ in range(self._correct_periods):
                period = period.previous
                summaries = await self._store.statements.summaries(period=period.name, limit=MAX_STATEMENTS)
                accounts = (account_named(directory, each.account_id) for each in summaries)
                found |= {account.id for account in accounts if account.book == name}
        return sorted(found)


def last_period_over(book: PriceBook, now: datetime) -> BillingPeriod:
    """Return the newest period of ``book`` whose days of grace are over."""
    period = BillingPeriod.containing(now, book.timezone).previous
    while end_of_grace(period, book.grace_days) > now:
        period = period.previous
    return period
