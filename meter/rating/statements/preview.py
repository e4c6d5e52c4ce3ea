"""Previews: the statements of periods that are not closed, as far as usage is rated, and their forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from meter.completeness.lives.resource_lives import Pausing
from meter.completeness_query import NO_PROJECT
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.completeness_query import ICompletenessLedger
from meter.identity_names import IdentityKey
from meter.identity_names import IIdentityNames
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.money.credits import credits_of_projects
from meter.rating.money.rated import Rated
from meter.rating.period import BillingPeriod
from meter.rating.period import day_of
from meter.rating.project_domains import ProjectDomains
from meter.rating.rating_store import IRatingStore
from meter.rating.statements.account_rating import AccountRating
from meter.rating.statements.account_rating import KnownPayer
from meter.rating.statements.closed_periods import ClosedPeriods
from meter.rating.statements.closed_periods import DirectoryOf
from meter.rating.statements.closing_problems import MAX_PROJECT_ROWS
from meter.rating.statements.known_account import require_known
from meter.rating.statements.payers import account_named
from meter.rating.statements.payers import same_id_problem
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import statement_sha256
from meter.rating.statements.statement_draft import DraftTimes
from meter.rating.statements.statement_draft import completeness_of
from meter.rating.statements.statement_draft import draft
from meter.rating.statements.statement_id import statement_id


class PeriodClosed(ValueError):
    """The account's statement of the period is closed: there is none that is open."""


class PeriodNotBegun(ValueError):
    """The period is in the future: there is no statement of it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewKey:
    """What a preview is computed from, besides usage and prices: two with equal keys say the same at one time.

    ``last_close`` is when any statement was closed last: a close changes credits, corrections and what is open.
    """

    account_id: str
    period: str
    correct_periods: int
    last_close: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementPreview:
    """An open statement, and what the account is expected to pay at the end of the period."""

    statement: Statement
    forecast: Rated


class Previews:
    """Previews by the price ``directory``, of what the store has rated so far; nothing is rated again for them."""

    def __init__(
        self,
        store: IRatingStore,
        ledger: ICompletenessLedger,
        names: IIdentityNames,
        directory: PriceDirectory,
        directory_of: DirectoryOf,
        *,
        correct_periods: int,
        slices: Pausing | None = None,
    ) -> None:
        self._slices = slices
        self._store = store
        self._ledger = ledger
        self._names = names
        self._directory = directory
        self._directory_of = directory_of
        self._correct_periods = correct_periods

    async def account_of(self, project_id: str, now: datetime) -> Account:
        """Return the account to which a project belongs ``now``.

        :raises ValueError: it belongs to none, and a file names an account with its id.
        """
        key = IdentityKey("project", project_id)
        histories = {project_id: (await self._names.histories([key])).get(key, ())}
        timezone = self._directory.books[self._directory.default_book].timezone
        today = day_of(now, timezone)
        account = self._directory.account_of(project_id, ProjectDomains(histories, timezone)(project_id, today), today)
        self._refuse_same_id(account)
        return account

    @property
    def directory(self) -> PriceDirectory:
        """The prices."""
        return self._directory

    async def key(self, account_id: str, now: datetime, period_name: str | None = None) -> PreviewKey:
        """Return what the preview of an account depends on besides usage and prices; the parameters are those of :meth:`preview`."""
        return PreviewKey(
            account_id=account_id,
            period=period_name or self.period_name(account_named(self._directory, account_id), now),
            correct_periods=self._correct_periods,
            last_close=await self._store.statements.last_close(),
        )

    def period_name(self, account: Account, now: datetime) -> str:
        """Return the name of the period of an account's book that contains ``now``."""
        return BillingPeriod.containing(now, self._book(account).timezone).name

    async def preview(self, account_id: str, now: datetime, period_name: str | None = None) -> StatementPreview:
        """Return the preview of an account: of a period, or of the present one.

        :raises ValueError: ``period_name`` is not the name of a period, it has not begun, or the account's statement of it is closed.
        """
        account = account_named(self._directory, account_id)
        rating = AccountRating(self._store.usage, self._names, self._slices)
        known = await rating.payer(self._directory, account, period_name or self.period_name(account, now))
        _require_begun(known.payer.period, now)
        if await self._is_closed(known):
            id = statement_id(known.payer.period.name, account.id)
            raise PeriodClosed(f"{id} is closed, and final: what arrives later is corrected on the next statement")
        return await self._preview(rating, known, now)

    async def previews(self, now: datetime, period_name: str | None = None) -> Sequence[StatementPreview]:
        """Return the previews of all accounts with anything to bill that is not closed: of a period, or of the present one.

        :raises ValueError: ``period_name`` is not the name of a period, or two accounts have one id.
        """
        rating = AccountRating(self._store.usage, self._names, self._slices)
        found = []
        for _, book in sorted(self._directory.books.items()):
            period = BillingPeriod.containing(now, book.timezone)
            if period_name is not None:
                period = BillingPeriod.named(period_name, book.timezone)
                _require_begun(period, now)
            for known in await rating.payers(self._directory, book, period):
                self._refuse_same_id(known.payer.account)
                if await self._is_closed(known):
                    continue
                preview = await self._preview(rating, known, now)
                if preview.statement.lines or preview.statement.unpriced or preview.statement.unmetered:
                    found.append(preview)
        return sorted(found, key=lambda each: each.statement.account.id)

    async def require_known(self, account_id: str, now: datetime, period_name: str | None = None) -> None:
        """Require that the account exists, after the usage of the period was brought up to date; ``ValueError`` if it does not."""
        rating = AccountRating(self._store.usage, self._names)
        period = period_name or self.period_name(account_named(self._directory, account_id), now)
        await require_known(account_id, period, self._directory, rating, self._names, self._store.statements)

    async def refresh_closed(self, account_id: str | None, now: datetime, period_name: str | None = None) -> None:
        """Bring the usage of the closed periods up to date that are corrected: for an account, or for all."""
        rating = AccountRating(self._store.usage, self._names)
        closed = ClosedPeriods(self._store.statements, rating, self._directory_of, self._correct_periods)
        pairs = {}
        for known in await self._payers(rating, account_id, now, period_name):
            for each in await closed.before(known):
                pairs[each.book.sha256, each.period.name] = each.book, each.period
        for book, period in pairs.values():
            await self._store.usage.refresh(book, period, now)

    async def _payers(
        self, rating: AccountRating, account_id: str | None, now: datetime, period_name: str | None
    ) -> list[KnownPayer]:
        if account_id is not None:
            account = account_named(self._directory, account_id)
            return [await rating.payer(self._directory, account, period_name or self.period_name(account, now))]
        found = []
        for _, book in sorted(self._directory.books.items()):
            period = BillingPeriod.containing(now, book.timezone)
            if period_name is not None:
                period = BillingPeriod.named(period_name, book.timezone)
            found += await rating.payers(self._directory, book, period)
        return found

    async def _is_closed(self, known: KnownPayer) -> bool:
        period, account_id = known.payer.period.name, known.payer.account.id
        return bool(await self._store.statements.summaries(account_id=account_id, period=period, limit=1))

    async def _preview(self, rating: AccountRating, known: KnownPayer, now: datetime) -> StatementPreview:
        payer, statements = known.payer, self._store.statements
        closed = ClosedPeriods(statements, rating, self._directory_of, self._correct_periods)
        corrections = await closed.corrections(await closed.before(known))
        shared = credits_of_projects(payer.book)
        used = await statements.credits_used(payer.account.id, payer.period.name, shared, now)
        rated, expected = await rating.rated_with_forecast(
            known, now, corrections=corrections, credits_used=used, without=await closed.elsewhere.days(known)
        )
        before = await statements.latest(payer.account.id)
        if before is not None and before.statement.period.name > payer.period.name:
            earlier = await statements.of_account(payer.account.id, "0000-00", payer.period.previous.name)
            before = earlier[-1] if earlier else None
        statement = draft(
            payer,
            rated,
            known.history,
            completeness_of(await self._completeness(payer.period, payer.projects, now), payer.projects),
            DraftTimes(as_of=now),
            previous_sha256="" if before is None else statement_sha256(before.statement),
        )
        return StatementPreview(statement=statement, forecast=expected)

    async def _completeness(
        self, period: BillingPeriod, projects: Sequence[str], now: datetime
    ) -> dict[str, CompletenessRow]:
        """Return the ledger's numbers of ``projects`` until ``now``."""
        end = min(period.end, now)
        if end <= period.start or not projects:
            return {}
        only = projects[0] if len(projects) == 1 else None
        query = CompletenessQuery(start=period.start, end=end, project_id=only, group="project_id")
        rows = await self._ledger.completeness(query, now, MAX_PROJECT_ROWS)
        return {row.group or NO_PROJECT: row for row in rows}

    def _refuse_same_id(self, account: Account) -> None:
        if problem := same_id_problem(self._directory, account):
            raise ValueError(problem)

    def _book(self, account: Account) -> PriceBook:
        book = self._directory.books.get(account.book)
        if book is None:
            raise ValueError(f"the account {account.id} has no price book: no file has a book {account.book!r}")
        return book


def _require_begun(period: BillingPeriod, now: datetime) -> None:
    if now < period.start:
        raise PeriodNotBegun(f"the period {period.name} has not begun: it has no statement yet")
