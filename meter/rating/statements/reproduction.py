"""Computes a closed statement once more, from the samples and the price book of its time, and compares it with what was signed."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from decimal import Decimal

from meter.identity_names import IIdentityNames
from meter.rating.exact import plain
from meter.rating.money.account_projects import AccountProjects
from meter.rating.money.corrections import correction_lines
from meter.rating.money.credits import credits_of_projects
from meter.rating.money.rated import Rated
from meter.rating.money.rated import RatedLine
from meter.rating.money.rating import Rating
from meter.rating.period import BillingPeriod
from meter.rating.rating_store import IRatingStore
from meter.rating.statements.account_rating import AccountRating
from meter.rating.statements.account_rating import KnownPayer
from meter.rating.statements.account_rating import is_charged
from meter.rating.statements.account_rating import rating_of
from meter.rating.statements.annex_spool import AnnexSpool
from meter.rating.statements.closed_periods import ClosedPeriods
from meter.rating.statements.closed_periods import DirectoryOf
from meter.rating.statements.payers import account_named
from meter.rating.statements.resource_usage import ResourceDays
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import StatementLine
from meter.rating.statements.statement import builtins
from meter.rating.statements.statement_draft import statement_line

NOT_COMPARED = ("project_name", "number")
"""Names may be known better now, and numbers follow from the other lines."""


class Reproduction:
    """Computes statements again; nothing is changed."""

    def __init__(self, store: IRatingStore, names: IIdentityNames, directory_of: DirectoryOf) -> None:
        self._store = store
        self._names = names
        self._directory_of = directory_of

    async def differences(self, statement: Statement) -> list[str]:
        """Return in what a statement computed now, ``as_of`` the time of ``statement``, differs; nothing if it is equal.

        :raises ValueError: its price book, or that of a statement that it corrects, is not stored.
        """
        rating = AccountRating(self._store.usage, self._names)
        periods = ClosedPeriods(self._store.statements, rating, self._directory_of, 0)
        known = await self._known(rating, periods, statement)
        corrections = await self._corrections(rating, periods, statement, known)
        used = await self._store.statements.credits_used(
            statement.account.id,
            statement.period.name,
            credits_of_projects(known.payer.book),
            statement.closed_at,
        )
        with AnnexSpool() as annex:
            rated = await self._rated(known, statement, annex, corrections, used)
            annex.finish()
            found = list(_compared(statement, rated))
            if annex.digest.sha256 != statement.annex_sha256:
                found.append(
                    f"the annex has the SHA-256 {annex.digest.sha256}, and the statement was closed with {statement.annex_sha256}"
                )
        return found

    async def _known(self, rating: AccountRating, periods: ClosedPeriods, statement: Statement) -> KnownPayer:
        directory = await periods.directory(statement.book.sha256)
        account = account_named(directory, statement.account.id)
        return await rating.payer(directory, account, statement.period.name)

    async def _rated(
        self,
        known: KnownPayer,
        statement: Statement,
        annex: AnnexSpool | None,
        corrections: Sequence[RatedLine] = (),
        used: Mapping[str, Decimal] | None = None,
    ) -> Rated:
        payer = known.payer
        owned = AccountProjects(known.directory, payer.account, known.history.domain_of)
        days: dict[tuple[str, str], ResourceDays] = {}
        usage = self._store.usage.computed(payer.book, payer.period, payer.projects, statement.as_of)
        rating: Rating | None = None
        async for atom in usage:
            rating = rating or rating_of(known)
            rating.add(atom)
            if annex is not None:
                days.setdefault((atom.project_id, atom.sku), ResourceDays(owned)).add(atom)
        if annex is not None:
            for (project_id, sku), collected in sorted(days.items()):
                for row in collected.rows(project_id, sku):
                    annex.add(row)
        rating = rating or rating_of(known, charged=is_charged(known, used=False))
        return rating.result(corrections=corrections, credits_used=used)

    async def _corrections(
        self, rating: AccountRating, periods: ClosedPeriods, statement: Statement, known: KnownPayer
    ) -> list[RatedLine]:
        """Return the corrections of the periods that ``statement`` corrects, as of its time."""
        amended = sorted({line.amends.statement_id for line in statement.lines if line.amends is not None})
        account, statements = known.payer.account, self._store.statements
        before = known.payer.period.previous.name
        lines: list[RatedLine] = []
        for each in await statements.of_account(account.id, "0000-00", before):
            amends = each.statement
            if amends.statement_id not in amended:
                continue
            amended.remove(amends.statement_id)
            of_period = await self._known(rating, periods, amends)
            rated = await self._rated(of_period, statement, None)
            later = await statements.of_account(account.id, of_period.payer.period.next.name, before)
            corrections = [line for other in later for line in other.statement.lines]
            lines += correction_lines(amends.statement_id, rated.lines, amends.lines, corrections)
        for id in amended:  # periods without a statement
            period = BillingPeriod.named(id.split(".", 1)[0], known.payer.period.timezone)
            later = await statements.of_account(account.id, period.next.name, before)
            closed = await periods.closed_period(known, period, None, later)
            of_period = await rating.payer(closed.directory, closed.account, period.name)
            rated = await self._rated(of_period, statement, None)
            lines += correction_lines(id, rated.lines, (), closed.corrections)
        return lines


def _compared(statement: Statement, rated: Rated) -> Iterator[str]:
    """Yield the differences of lines, and of what no price covers."""
    stated = {line.key: _comparable(line) for line in statement.lines}
    computed = {line.key: _comparable(statement_line(0, line, "")) for line in rated.lines}
    for key in sorted({*stated, *computed}):
        if key not in computed:
            yield f"line {key}: closed with {stated[key]['amount']}, and computed without it"
        elif key not in stated:
            yield f"line {key}: closed without it, and computed with {computed[key]['amount']}"
        else:
            for name, value in stated[key].items():
                if value != computed[key][name]:
                    yield f"line {key}: closed with {name} {value}, and computed with {computed[key][name]}"
    for name in ("net", "tax", "total"):
        if getattr(statement, name) != getattr(rated, name):
            yield f"{name}: closed with {getattr(statement, name)}, and computed with {getattr(rated, name)}"
    yield from _compared_quantities(
        "unpriced",
        {(e.project_id, e.sku): e.quantity for e in statement.unpriced},
        {(e.project_id, e.sku): e.quantity for e in rated.unpriced},
    )
    yield from _compared_quantities(
        "unmetered seconds",
        {(e.project_id, e.sku): Decimal(e.seconds) for e in statement.unmetered},
        {(e.project_id, e.sku): Decimal(e.seconds) for e in rated.unmetered},
    )


def _compared_quantities(
    name: str, stated: dict[tuple[str, str], Decimal], computed: dict[tuple[str, str], Decimal]
) -> Iterator[str]:
    for key in sorted({*stated, *computed}):
        before, now = stated.get(key, Decimal(0)), computed.get(key, Decimal(0))
        if before != now:
            yield f"{name} of {key[1]} of project {key[0]}: closed with {plain(before)}, and computed with {plain(now)}"


def _comparable(line: StatementLine) -> dict[str, object]:
    return {name: value for name, value in builtins(line).items() if name not in NOT_COMPARED}
