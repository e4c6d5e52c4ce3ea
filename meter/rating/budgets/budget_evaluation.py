"""Evaluation of budgets: what was used and is forecast, from the usage that the store keeps."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from datetime import timedelta

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from meter.completeness_query import NO_PROJECT
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import ICompletenessLedger
from meter.daemon.services import Slices
from meter.identity_names import IIdentityNames
from meter.interfaces import Unavailable
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import SpendingBudget
from meter.rating.book.price_index import scope_key
from meter.rating.budgets.account_spending import SpendingCalculation
from meter.rating.budgets.budget_sum import BudgetSum
from meter.rating.budgets.budget_sum import account_scopes
from meter.rating.budgets.budget_sum import last_day
from meter.rating.budgets.budget_sum import project_scopes
from meter.rating.money.account_projects import DomainOf
from meter.rating.period import BillingPeriod
from meter.rating.period import day_of
from meter.rating.period import periods_in_grace
from meter.rating.statements.payers import charged_projects
from meter.rating.statements.project_history import ProjectHistory
from meter.rating.steps import in_slices
from meter.rating.usage.usage_store import IUsage

ACCOUNTS_AT_ONCE = 100
"""How many accounts are rated by one reading of the usage of their projects."""

LEDGER_DELAY = timedelta(hours=1)
"""Samples of this time may still be on their way: they are not missing yet."""

MAX_LEDGER_ROWS = 100_000


class BudgetEvaluation:
    """Evaluates budgets from ``usage``, the domains in ``names`` and the completeness ``ledger``. Methods raise ``Unavailable``."""

    def __init__(self, usage: IUsage, names: IIdentityNames, ledger: ICompletenessLedger, clock: IReactorTime) -> None:
        self._usage = usage
        self._names = names
        self._ledger = ledger
        self._clock = clock

    async def empty_sums(self, directory: PriceDirectory, now: datetime) -> Mapping[str, Sequence[BudgetSum]]:
        """Return empty sums of all budgets, by the name of their period: of the present one, and of those before.

        The usage of a period's last minutes is known after its end, and may reach a threshold: a period is evaluated until
        the days of grace of its book are over, and at least for a day.
        """
        books = await self._books(directory, now)
        sums: dict[str, list[BudgetSum]] = {}
        for budget in directory.budgets.values():
            book = books[budget.id]
            for each in periods_in_grace(now, book.timezone, timedelta(days=max(1, book.grace_days))):
                sums.setdefault(each.name, []).append(BudgetSum(budget, book, each))
        return sums

    async def _books(self, directory: PriceDirectory, now: datetime) -> Mapping[str, PriceBook]:
        """Return the book of the account that pays what a budget counts, or else the default book, by budget id."""
        timezone = directory.books[directory.default_book].timezone
        today = day_of(now, timezone)
        projects = _projects_of(directory.budgets.values())
        domain_of = (await ProjectHistory.read(self._names, projects, timezone)).domain_of
        books: dict[str, PriceBook] = {}
        for budget in directory.budgets.values():
            scope, name = budget.scope, directory.default_book
            if scope.account is not None:
                account = directory.accounts.get(scope.account)
                name = name if account is None else account.book
            elif scope.project is not None:
                name = directory.account_of(scope.project, domain_of(scope.project, today), today).book
            elif scope.domain is not None:
                name = directory.account_of(NO_PROJECT, scope.domain, today).book
            books[budget.id] = directory.books[name]
        return books

    async def fill(self, directory: PriceDirectory, month: str, sums: Sequence[BudgetSum], now: datetime) -> None:
        """Add to ``sums``, those of one period, what was used until ``now`` and what is not known.

        An error of an account or budget becomes :attr:`BudgetSum.error` and does not stop the others.
        """
        slices = Slices(self._clock)
        for book in directory.books.values():
            period = BillingPeriod.named(month, book.timezone)
            projects = await self._usage.projects(book, period)
            # Resources without a project belong to no account. A project without usage can have charges.
            projects = sorted({*projects, *charged_projects(book)} - {NO_PROJECT})
            domain_of = (await ProjectHistory.read(self._names, projects, book.timezone)).domain_of
            payers = _Payers(directory, book, period, domain_of, sums, now)
            for project_id in projects:
                payers.add(project_id)
                if slices.over:
                    await slices.pause()
            for batch in payers.batches():
                await self._add_each_account(directory, book, period, batch, domain_of, now)
        for each in sums:
            each.missing_samples = 0
        await self._add_missing(directory, sums, now)

    async def _add_each_account(
        self,
        directory: PriceDirectory,
        book: PriceBook,
        period: BillingPeriod,
        payers: Sequence[_Payer],
        domain_of: DomainOf,
        now: datetime,
    ) -> None:
        """Add accounts. The error of one is that of the budgets that count it; the others are added one at a time then."""
        try:
            await self._add_accounts(directory, book, period, payers, domain_of, now)
        except (Unavailable, CancelledError):
            raise
        except Exception as error:
            if len(payers) > 1:
                for each in payers:
                    await self._add_each_account(directory, book, period, [each], domain_of, now)
                return
            for budget in payers[0].budgets:
                budget.error = budget.error or error

    async def _add_accounts(
        self,
        directory: PriceDirectory,
        book: PriceBook,
        period: BillingPeriod,
        payers: Sequence[_Payer],
        domain_of: DomainOf,
        now: datetime,
    ) -> None:
        calculations: list[tuple[SpendingCalculation, _Payer]] = []
        by_project: dict[str, list[SpendingCalculation]] = {}
        for payer in payers:
            calculation = SpendingCalculation(directory, book, payer.account, period, now, domain_of)
            calculations.append((calculation, payer))
            for project_id in payer.projects:
                by_project.setdefault(project_id, []).append(calculation)
        slices = Slices(self._clock)
        async for atom in self._usage.totals(book, period, sorted(by_project)):
            for calculation in by_project[atom.project_id]:
                await in_slices(calculation.begin(atom.sku, atom.day), slices)
                calculation.add(atom)
            if slices.over:
                await slices.pause()
        # All results before the first sum changes: an error leaves the sums as they were.
        results = [
            (await in_slices(calculation.results(), slices), payer.budgets) for calculation, payer in calculations
        ]
        for spending, budgets in results:
            for each in budgets:
                try:
                    each.add(spending, domain_of, now)
                except Exception as error:
                    each.error = each.error or error
                if slices.over:
                    await slices.pause()

    async def _add_missing(self, directory: PriceDirectory, sums: Sequence[BudgetSum], now: datetime) -> None:
        """Count what the ledger misses: of the meter of the budget's SKU, or of all meters of the project."""
        by_meter: dict[tuple[BillingPeriod, str | None], list[BudgetSum]] = {}
        for each in sums:
            by_meter.setdefault((each.period, each.meter), []).append(each)
        for (period, meter), some in by_meter.items():
            end = min(period.end, now - LEDGER_DELAY)
            if end <= period.start:
                continue
            query = CompletenessQuery(start=period.start, end=end, meter=meter, group="project_id")
            rows = await self._ledger.completeness(query, now, MAX_LEDGER_ROWS)
            missing = {row.group or NO_PROJECT: row.missing for row in rows if row.missing}
            domain_of = (await ProjectHistory.read(self._names, missing, period.timezone)).domain_of
            today, by_scope = last_day(period, now), _BudgetsByScope(some)
            for project_id, samples in missing.items():
                domain_id = domain_of(project_id, today)
                account = directory.account_of(project_id, domain_id, today)
                for each in by_scope.counting(account.id, project_id, domain_id):
                    each.missing_samples += samples


def _projects_of(budgets: Iterable[SpendingBudget]) -> list[str]:
    return sorted({each.scope.project for each in budgets if each.scope.project is not None})


class _BudgetsByScope:
    """Finds the budgets that count an account or a project, without looking at all of them."""

    def __init__(self, sums: Iterable[BudgetSum]) -> None:
        self._by_scope: dict[tuple[str, str], list[BudgetSum]] = {}
        for each in sums:
            self._by_scope.setdefault(scope_key(each.budget.scope), []).append(each)

    def counting_account(self, account_id: str) -> list[BudgetSum]:
        """Return the budgets that count an account as a whole."""
        return self._of(account_scopes(account_id))

    def counting(self, account_id: str, project_id: str, domain_id: str | None) -> list[BudgetSum]:
        """Return the budgets that count the usage of a project that ``account_id`` pays."""
        return self._of(project_scopes(account_id, project_id, domain_id))

    def _of(self, scopes: Iterable[tuple[str, str]]) -> list[BudgetSum]:
        return [each for scope in scopes for each in self._by_scope.get(scope, ())]


@dataclass(slots=True)
class _Payer:
    """An account with its projects, and the budgets that count some of its usage; both are ordered sets."""

    account: Account
    projects: dict[str, None] = field(default_factory=dict)
    budgets: dict[BudgetSum, None] = field(default_factory=dict)


class _Payers:
    """The accounts of ``book`` whose usage a budget counts."""

    def __init__(
        self,
        directory: PriceDirectory,
        book: PriceBook,
        period: BillingPeriod,
        domain_of: DomainOf,
        sums: Sequence[BudgetSum],
        now: datetime,
    ) -> None:
        self._directory = directory
        self._book = book
        self._days = tuple(period.days())
        self._today = last_day(period, now)
        self._domain_of = domain_of
        self._budgets = _BudgetsByScope(sums)
        self._payers: dict[tuple[str, bool], _Payer] = {}
        for account in directory.accounts.values():  # one without usage can have fixed charges
            self._add(account)

    def add(self, project_id: str) -> None:
        """Add the accounts to which a project belongs on any day."""
        for day in self._days:
            account = self._directory.account_of(project_id, self._domain_of(project_id, day), day)
            payer = self._add(account)
            if payer is None or project_id in payer.projects:
                continue
            payer.projects[project_id] = None
            domain_id = self._domain_of(project_id, self._today)
            payer.budgets.update(dict.fromkeys(self._budgets.counting(account.id, project_id, domain_id)))

    def _add(self, account: Account) -> _Payer | None:
        if account.book != self._book.name:
            return None
        key = account.id, account.implied
        if key not in self._payers:
            budgets = dict.fromkeys(self._budgets.counting_account(account.id))
            self._payers[key] = _Payer(account, budgets=budgets)
        return self._payers[key]

    def batches(self) -> Sequence[Sequence[_Payer]]:
        """Return the accounts that matter, some at a time."""
        wanted = [each for each in self._payers.values() if each.budgets]
        return [wanted[start : start + ACCOUNTS_AT_ONCE] for start in range(0, len(wanted), ACCOUNTS_AT_ONCE)]
