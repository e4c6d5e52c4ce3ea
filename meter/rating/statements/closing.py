"""Closing: makes the statements of a period final, signs them, and stores each whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from meter.completeness_query import ClosingReason
from meter.completeness_query import ICompletenessLedger
from meter.identity_names import IIdentityNames
from meter.interfaces import Unavailable
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.money.account_projects import AccountProjects
from meter.rating.money.credits import credits_of_projects
from meter.rating.money.credits import credits_used
from meter.rating.money.line_keys import line_key
from meter.rating.money.rated import Rated
from meter.rating.period import BillingPeriod
from meter.rating.rating_store import IRatingStore
from meter.rating.statements.account_rating import AccountRating
from meter.rating.statements.account_rating import KnownPayer
from meter.rating.statements.annex_spool import AnnexSpool
from meter.rating.statements.billed_elsewhere import MAX_STATEMENTS
from meter.rating.statements.billed_elsewhere import BilledElsewhere
from meter.rating.statements.closed_periods import ClosedPeriod
from meter.rating.statements.closed_periods import ClosedPeriods
from meter.rating.statements.closed_periods import DirectoryOf
from meter.rating.statements.closing_act import AccountResult
from meter.rating.statements.closing_act import ClosingAct
from meter.rating.statements.closing_act import Result
from meter.rating.statements.closing_checks import AccountChanged
from meter.rating.statements.closing_checks import distrusted
from meter.rating.statements.closing_checks import failed
from meter.rating.statements.closing_checks import failed_checks
from meter.rating.statements.closing_problems import ClosingProblem
from meter.rating.statements.closing_problems import LedgerReasons
from meter.rating.statements.closing_problems import ledger_problems
from meter.rating.statements.closing_problems import time_problems
from meter.rating.statements.closing_problems import time_zone_problems
from meter.rating.statements.known_account import require_known
from meter.rating.statements.payers import account_named
from meter.rating.statements.payers import same_id_problem
from meter.rating.statements.resource_usage import annex_rows
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import statement_sha256
from meter.rating.statements.statement_draft import DraftTimes
from meter.rating.statements.statement_draft import completeness_of
from meter.rating.statements.statement_draft import draft
from meter.rating.statements.statement_draft import sign
from meter.rating.statements.statement_id import statement_id
from meter.rating.statements.statement_store import ClosingStatement
from meter.rating.statements.verification import quantity_differences

REFRESHES = 10
"""How often usage is brought up to date, while samples of the period still arrive, before the close is given up."""

MAX_BETWEEN = 120
"""Periods between two statements that are looked at: ten years."""

PERIODS_BEFORE_FIRST = 12
"""Periods before an account's first statement in which usage is looked for."""

UTC_ZONE = ZoneInfo("UTC")

Progress = Callable[[str, int, int], object]
"""Is told what is being done, how much of it is done, and of how much."""


def no_progress(_what: str, _done: int, _of: int) -> None:
    """Tell nothing."""


class _Candidate(NamedTuple):
    """An account that can be closed: the ledger's reasons that were accepted, and its earlier periods."""

    known: KnownPayer
    reasons: Sequence[ClosingReason | ClosingProblem]
    closed: Sequence[ClosedPeriod]


class Closing:
    """Closes periods of accounts by the price ``directory``; ``correct_periods`` closed periods are compared with what arrived later."""

    def __init__(
        self,
        store: IRatingStore,
        ledger: ICompletenessLedger,
        names: IIdentityNames,
        directory: PriceDirectory,
        directory_of: DirectoryOf,
        *,
        correct_periods: int,
        progress: Progress = no_progress,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._names = names
        self._directory = directory
        self._directory_of = directory_of
        self._correct_periods = correct_periods
        self._progress = progress

    async def close(
        self, period_name: str, account_ids: Sequence[str] | None, act: ClosingAct, now: datetime
    ) -> list[AccountResult]:
        """Close a period of the accounts with these ids, or of all; return what became of each, in the order of their ids.

        Unless ``act.each_for_itself``, nothing is closed if one account is refused. A repeated close finds closed what is, and goes on
        with the others. Raises ``Unavailable`` if the store is, or if samples of the period keep arriving.

        :raises ValueError: ``period_name`` is not the name of a period, or an account is unknown.
        """
        rating = AccountRating(self._store.usage, self._names)
        closed_periods = ClosedPeriods(self._store.statements, rating, self._directory_of, self._correct_periods)
        results: list[AccountResult] = []
        candidates: list[_Candidate] = []
        ledger = LedgerReasons(self._ledger, now)
        payers = await self._payers(rating, period_name, account_ids, now)
        present = {each.payer.account.id for each in payers}
        if account_ids is None:
            payers += await self._only_corrected(rating, period_name, present)
        for number, known in enumerate(payers):
            self._progress("checking accounts", number, len(payers))
            account_id = known.payer.account.id
            closed: Sequence[ClosedPeriod] = ()
            try:
                problems, reasons, signed = await self._examined(
                    rating, closed_periods.elsewhere, ledger, known, act, now
                )
                if signed is None and not problems:
                    closed = await closed_periods.before(known)
            except Exception as fault:
                problems, reasons, signed = [failed(fault)], [], None
            if signed is not None:
                results.append(_result(account_id, period_name, "already closed", signed))
            elif problems:
                results.append(_refused(known, problems))
            else:
                candidates.append(_Candidate(known, reasons, closed))
        if any(each.result == "refused" for each in results) and not act.each_for_itself:
            results += [_result(each.known.payer.account.id, period_name, "waits for others") for each in candidates]
        elif candidates:
            results += await self._close_all(rating, closed_periods, ledger, candidates, act, now)
        results = [each for each in results if each.account_id in present or each.result != "nothing to bill"]
        return sorted(results, key=lambda each: each.account_id)

    # --- checking ---

    async def _payers(
        self, rating: AccountRating, period_name: str, account_ids: Sequence[str] | None, now: datetime
    ) -> list[KnownPayer]:
        """Return the accounts to be closed, after their usage was brought up to date."""
        directory = self._directory
        periods = {book.name: BillingPeriod.named(period_name, book.timezone) for book in directory.books.values()}
        accounts = None if account_ids is None else [account_named(directory, each) for each in account_ids]
        used = {each.book for each in accounts} if accounts is not None else set(periods)
        for number, name in enumerate(sorted(used & set(periods))):
            self._progress(f"rating days of {name}", number, len(used))
            if now >= periods[name].start:
                await self._store.usage.refresh(directory.books[name], periods[name], now)
        if accounts is not None:
            for each in accounts:
                await require_known(each.id, period_name, directory, rating, self._names, self._store.statements)
            return [await rating.payer(directory, each, period_name) for each in accounts]
        return [
            known
            for name, period in sorted(periods.items())
            for known in await rating.payers(directory, directory.books[name], period)
        ]

    async def _only_corrected(
        self, rating: AccountRating, period_name: str, present: Collection[str]
    ) -> list[KnownPayer]:
        """Return the accounts that pay nothing in the period, but have statements of the last periods, which are corrected."""
        found: set[str] = set()
        period = BillingPeriod.named(period_name, UTC_ZONE)
        for _ in range(self._correct_periods):
            period = period.previous
            summaries = await self._store.statements.summaries(period=period.name, limit=MAX_STATEMENTS)
            found |= {each.account_id for each in summaries}
        accounts = [account_named(self._directory, each) for each in sorted(found - set(present))]
        payers = [
            await rating.payer(self._directory, each, period_name)
            for each in accounts
            if each.book in self._directory.books
        ]
        # They have no usage: the ledger is not asked about them.
        return [each._replace(payer=replace(each.payer, projects=())) for each in payers]

    async def _examined(
        self,
        rating: AccountRating,
        elsewhere: BilledElsewhere,
        ledger: LedgerReasons,
        known: KnownPayer,
        act: ClosingAct,
        now: datetime,
    ) -> tuple[list[ClosingProblem], list[ClosingReason | ClosingProblem], SignedStatement | None]:
        """Return all that speaks against closing an account, what was accepted of it, and its statement if it is closed."""
        payer = known.payer
        account, period = payer.account, payer.period
        # Before the statement with this id is looked for: it would be that of the other account.
        same_id = same_id_problem(self._directory, account)
        if not same_id:
            signed = await self._store.statements.statement(statement_id(period.name, account.id))
            latest = await self._store.statements.latest(account.id)
            doubts = distrusted(signed, statement_id(period.name, account.id), act.key, act.public_keys)
            if latest is not None and latest != signed:
                newest = statement_id(latest.statement.period.name, account.id)
                doubts = [*doubts, *distrusted(latest, newest, act.key, act.public_keys)]
            if signed is not None or doubts:
                return doubts, [], None if doubts else signed
        problems = list(time_problems(payer, now))
        if same_id:
            problems.append(ClosingProblem("ambiguous account", same_id))
        elif billed := await elsewhere.problem(known):
            problems.append(billed)
        order = [*await self._order_problems(rating, elsewhere, known, now), *await self._charge_problems(known)]
        problems += [each for each in order if not (each.acceptable and act.accept_gaps)]
        reasons = [each for each in await ledger.of(payer) if each.code != "period not over"]
        problems += [each for each in ledger_problems(reasons) if not (each.acceptable and act.accept_gaps)]
        return problems, [*reasons, *(each for each in order if each.acceptable)], None

    async def _order_problems(
        self, rating: AccountRating, elsewhere: BilledElsewhere, known: KnownPayer, now: datetime
    ) -> list[ClosingProblem]:
        """Return whether a later period is closed, or an earlier one with lines is not, although one before it is."""
        payer = known.payer
        latest = await self._store.statements.latest(payer.account.id)
        if latest is None:
            return await self._unbilled_before(rating, elsewhere, known, now)
        newest = latest.statement.period.name
        if newest > payer.period.name:
            text = f"{newest} is closed already: what belongs to {payer.period.name} is corrected on a later statement"
            first = await self._store.statements.first_period(payer.account.id)
            if first is not None and first > payer.period.name:
                text = f"{first} is the account's first closed period: what belongs to {payer.period.name} is on no statement"
            return [ClosingProblem("later period closed", text)]
        problems, period = [], payer.period.previous
        for _ in range(MAX_BETWEEN):
            if period.name <= newest:
                break
            between = await rating.payer(known.directory, payer.account, period.name)
            if _is_billable(await rating.rated(between, without=await elsewhere.days(between))):
                text = f"{period.name} is not closed, and has something to bill: close it first"
                problems.append(ClosingProblem("earlier period open", text))
            period = period.previous
        return [*time_zone_problems(payer, latest.statement), *problems[::-1]]

    async def _unbilled_before(
        self, rating: AccountRating, elsewhere: BilledElsewhere, known: KnownPayer, now: datetime
    ) -> list[ClosingProblem]:
        """Return the last periods with usage before the account's first close: that close decides that they are never billed."""
        payer, problems = known.payer, []
        members = {each.id for each in payer.account.projects}
        period = payer.period.previous
        await self._store.usage.refresh(payer.book, period, now)
        for _ in range(PERIODS_BEFORE_FIRST):
            used = set(await rating.projects(payer.book, period))
            if used & members or (used and payer.account.domains):
                before = await rating.payer(known.directory, payer.account, period.name)
                rated = await rating.rated(before, without=await elsewhere.days(before))
                if any(each.kind == "usage" for each in rated.lines) or rated.unpriced:
                    text = f"{period.name} is not closed, and has usage, which is on no statement once {payer.period.name} is closed"
                    problems.append(ClosingProblem("earlier period open", text, acceptable=True))
            period = period.previous
        return problems[::-1]

    async def _charge_problems(self, known: KnownPayer) -> list[ClosingProblem]:
        """Return the one-time charges that are dated in a period that was closed without them."""
        payer, statements = known.payer, self._store.statements
        first = await statements.first_period(payer.account.id)
        dated = [each for each in payer.book.fixed_charges if not each.recurring and each.validity.since is not None]
        if first is None or not dated:
            return []
        owned = AccountProjects(known.directory, payer.account, known.history.domain_of)
        problems = []
        for charge in dated:
            since = charge.validity.since
            assert since is not None
            period = since.strftime("%Y-%m")
            if not first <= period < payer.period.name or not owned.account_in_scope(charge.scope, since):
                continue
            signed = await statements.statement(statement_id(period, payer.account.id))
            key = line_key("fixed", charge.id)
            if signed is None or all(each.key != key for each in signed.statement.lines):
                text = f"the charge {charge.id} is dated {since}, and {period} was closed without it: date it in {payer.period.name}"
                problems.append(ClosingProblem("charge in a closed period", text))
        return problems

    # --- closing ---

    async def _close_all(
        self,
        rating: AccountRating,
        closed_periods: ClosedPeriods,
        ledger: LedgerReasons,
        candidates: Sequence[_Candidate],
        act: ClosingAct,
        now: datetime,
    ) -> list[AccountResult]:
        as_of = await self._bring_up_to_date(candidates, now)
        results = []
        for number, candidate in enumerate(candidates):
            self._progress("closing", number, len(candidates))
            try:
                results.append(await self._close(rating, closed_periods, candidate, act, ledger, as_of, now))
            except Exception as fault:
                results.append(_refused(candidate.known, [failed(fault)]))
        self._progress("closing", len(candidates), len(candidates))
        return results

    async def _bring_up_to_date(self, candidates: Sequence[_Candidate], now: datetime) -> datetime:
        """Bring all usage up to date, and return a time so that exactly the samples that were recorded until then are in it."""
        usage = self._store.usage
        pairs: dict[tuple[str, str], tuple[PriceBook, BillingPeriod]] = {}
        for known, _, closed in candidates:
            for book, period in (
                (known.payer.book, known.payer.period),
                *((each.book, each.period) for each in closed),
            ):
                pairs[book.sha256, period.name] = book, period
        for attempt in range(REFRESHES):
            for number, (book, period) in enumerate(pairs.values()):
                self._progress(f"rating days of {period.name}", number, len(pairs))
                await usage.refresh(book, period, now)
            as_of = await self._store.statements.settled_time()
            changed = [day for book, period in pairs.values() for day in await usage.changed_days(book, period)]
            if not changed:
                return as_of
            self._progress("waiting for samples that are arriving", attempt, REFRESHES)
        days = ", ".join(sorted({day.isoformat() for day in changed}))
        raise Unavailable(f"samples of {days} keep arriving: nothing was closed; try again")

    async def _close(
        self,
        rating: AccountRating,
        closed_periods: ClosedPeriods,
        candidate: _Candidate,
        act: ClosingAct,
        ledger: LedgerReasons,
        as_of: datetime,
        now: datetime,
    ) -> AccountResult:
        known, statements, payer = candidate.known, self._store.statements, candidate.known.payer
        account, period = payer.account, payer.period
        # Again: others may have been closed since the accounts were examined. What is found now is compared as the statement is stored.
        others = closed_periods.elsewhere.looks()
        if billed := await closed_periods.elsewhere.problem(known):
            return _refused(known, [billed])
        corrections = await closed_periods.corrections(candidate.closed)
        used = await statements.credits_used(account.id, period.name, credits_of_projects(payer.book), now)
        rated = await rating.rated(known, corrections=corrections, credits_used=used)
        with AnnexSpool() as annex:
            owned = AccountProjects(known.directory, account, known.history.domain_of)
            async for row in annex_rows(self._store.usage, payer, owned):
                annex.add(row)
            annex.finish()
            if not _is_billable(rated) and not annex.digest.rows:
                return _result(account.id, period.name, "nothing to bill")
            latest = await statements.latest(account.id)
            statement = draft(
                payer,
                rated,
                known.history,
                completeness_of(
                    await ledger.rows(period),
                    payer.projects,
                    candidate.reasons,
                    act.accept_gaps if candidate.reasons else "",
                ),
                DraftTimes(as_of=as_of, closed_at=now),
                annex_sha256=annex.digest.sha256,
                previous_sha256="" if latest is None else statement_sha256(latest.statement),
            )
            if differences := list(quantity_differences(statement, annex.digest)):
                raise AccountChanged(f"usage of {account.id} changed during the close: {differences[0]}; try again")
            signed = sign(statement, act.key)
            if faults := failed_checks(signed, act.key):
                return _refused(known, faults)
            skus = {sku for _, sku in annex.digest.quantities}
            projects = {project for project, _ in annex.digest.quantities}
            projects |= {each.project_id for each in rated.lines if each.project_id}
            projects |= {each.project_id for each in rated.unmetered}
            closing = ClosingStatement(
                signed=signed,
                book_text=payer.book.text,
                projects=tuple(sorted(projects)),
                closed_by=act.closed_by,
                usage_skus=tuple(sorted(skus)),
                others=others,
                credits=credits_used(rated.lines),
                audit_keys=act.audit_keys,
                audit_details=act.audit_details,
            )
            if not await statements.add(closing, annex.pages()):  # another process was faster
                return _result(account.id, period.name, "already closed", await statements.latest(account.id))
        return _result(account.id, period.name, "closed", signed)


def _result(account_id: str, period: str, result: Result, signed: SignedStatement | None = None) -> AccountResult:
    return AccountResult(account_id=account_id, period=period, result=result, signed=signed)


def _refused(known: KnownPayer, problems: Sequence[ClosingProblem]) -> AccountResult:
    payer = known.payer
    return AccountResult(
        account_id=payer.account.id, period=payer.period.name, result="refused", problems=tuple(problems)
    )


def _is_billable(rated: Rated) -> bool:
    """Whether there is anything that a statement would say."""
    return bool(rated.lines or rated.unpriced or rated.unmetered)
