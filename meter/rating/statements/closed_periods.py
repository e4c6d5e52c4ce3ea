"""Corrections: what the last closed periods of an account cost now, by their own price books, less what was billed for them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.money.corrections import correction_lines
from meter.rating.money.rated import RatedLine
from meter.rating.period import BillingPeriod
from meter.rating.statements.account_rating import AccountRating
from meter.rating.statements.account_rating import KnownPayer
from meter.rating.statements.billed_elsewhere import BilledElsewhere
from meter.rating.statements.payers import account_named
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import StatementLine
from meter.rating.statements.statement_id import statement_id
from meter.rating.statements.statement_store import IStatementStore

DirectoryOf = Callable[[str], PriceDirectory]
"""Returns the price directory that the text of a stored book describes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedPeriod:
    """A closed period of an account: how it was rated, what its statement had, and the corrections that later statements had.

    Without a statement, because there was nothing to bill, there are no ``billed`` lines.
    """

    directory: PriceDirectory
    account: Account
    book: PriceBook
    period: BillingPeriod
    billed: tuple[StatementLine, ...]
    corrections: tuple[StatementLine, ...]

    @property
    def statement_id(self) -> str:
        """The id of its statement, also if there is none."""
        return statement_id(self.period.name, self.account.id)


class ClosedPeriods:
    """The last ``count`` closed periods of accounts, for one operation."""

    def __init__(
        self, statements: IStatementStore, rating: AccountRating, directory_of: DirectoryOf, count: int
    ) -> None:
        self._statements = statements
        self._rating = rating
        self._directory_of = directory_of
        self._count = count
        self._directories: dict[str, PriceDirectory] = {}
        self.elsewhere = BilledElsewhere(statements, self.directory)
        """What other accounts were billed for."""

    async def before(self, known: KnownPayer) -> list[ClosedPeriod]:
        """Return the closed periods before that of ``known``, the oldest first.

        Periods before the account's first statement are not closed. Those in another currency than the account has now cannot be
        corrected on its statement: they are left out.
        """
        payer = known.payer
        first = await self._statements.first_period(payer.account.id) if self._count else None
        periods = [each for each in _before(payer.period, self._count) if first is not None and each.name >= first]
        if not periods:
            return []
        closed = await self._statements.of_account(payer.account.id, periods[0].name, periods[-1].name)
        found = []
        for period in periods:
            signed = next((each for each in closed if each.statement.period.name == period.name), None)
            later = [each for each in closed if each.statement.period.name > period.name]
            of_period = await self.closed_period(known, period, signed, later)
            if of_period.book.currency == payer.book.currency:
                found.append(of_period)
        return found

    async def closed_period(
        self,
        known: KnownPayer,
        period: BillingPeriod,
        signed: SignedStatement | None,
        later: Iterable[SignedStatement],
    ) -> ClosedPeriod:
        """Return the period of a statement, or one without; it was rated by the book that is stored with the statement.

        One without was passed over when the first of the ``later`` statements was closed, because by the book of that one there was
        nothing to bill. What the files say since then, such as a new charge, was not so.
        """
        account_id = known.payer.account.id
        later = sorted(later, key=lambda each: each.statement.period.name)
        directory, book = known.directory, known.payer.book
        if rated_by := next(iter([signed] if signed is not None else later), None):
            stated = rated_by.statement.book
            directory = await self.directory(stated.sha256)
            book = directory.books[stated.name]
        return ClosedPeriod(
            directory=directory,
            account=account_named(directory, account_id),
            book=book,
            period=BillingPeriod.named(period.name, book.timezone),
            billed=() if signed is None else signed.statement.lines,
            corrections=tuple(line for each in later for line in each.statement.lines if line.kind == "correction"),
        )

    async def directory(self, sha256: str) -> PriceDirectory:
        """Return the price directory that a stored book describes; ``ValueError`` if it is not stored."""
        if sha256 not in self._directories:
            text = await self._statements.book(sha256)
            if text is None:
                raise ValueError(f"the price book {sha256} is not stored, although a closed statement names it")
            self._directories[sha256] = self._directory_of(text)
        return self._directories[sha256]

    async def corrections(self, closed: Sequence[ClosedPeriod]) -> list[RatedLine]:
        """Return the lines by which what was billed for these periods differs from what they cost now."""
        lines: list[RatedLine] = []
        for each in closed:
            known = await self._rating.payer(each.directory, each.account, each.period.name)
            # A period without a statement is rated by later files: what they say of it was not so when others were billed.
            without = {} if each.billed else await self.elsewhere.days(known)
            now = await self._rating.rated(known, without=without)
            lines += correction_lines(each.statement_id, now.lines, each.billed, each.corrections)
        return lines


def _before(period: BillingPeriod, count: int) -> list[BillingPeriod]:
    """Return ``count`` periods before ``period``, the oldest first."""
    found = [period]
    for _ in range(count):
        found.append(found[-1].previous)
    return found[:0:-1]
