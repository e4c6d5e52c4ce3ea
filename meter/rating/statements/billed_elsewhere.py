"""What closed statements of other accounts have billed: a day of a project is billed once, whoever the price files say pays for it now."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from meter.rating.book.price_book import PriceDirectory
from meter.rating.money.account_projects import AccountProjects
from meter.rating.statements.account_rating import KnownPayer
from meter.rating.statements.closing_problems import ClosingProblem
from meter.rating.statements.payers import account_named
from meter.rating.statements.payers import charged_projects
from meter.rating.statements.statement_store import IStatementStore
from meter.rating.statements.statement_store import OtherStatements

MAX_STATEMENTS = 100_000
"""Statements of a period that are looked at."""

MAX_TOLD = 10
"""Projects that a problem names."""


class BilledDays(NamedTuple):
    """The days of a project that the statement with an id has billed."""

    statement_id: str
    days: Collection[date]


class BilledElsewhere:
    """Looks at the closed ``statements``; ``directory`` returns the price directory that is stored under a SHA-256."""

    def __init__(self, statements: IStatementStore, directory: Callable[[str], Awaitable[PriceDirectory]]) -> None:
        self._statements = statements
        self._directory = directory
        self._looks: list[OtherStatements] = []

    def looks(self) -> list[OtherStatements]:
        """Return a list to which each look is added from now on: what is decided by them holds while the store says the same."""
        self._looks = []
        return self._looks

    async def of(self, known: KnownPayer) -> dict[str, BilledDays]:
        """Return the days of the account's projects with usage or charges that statements of others have billed in the period, by project.

        To whom a project belonged is what the price files said when the statement was closed.
        """
        payer = known.payer
        projects = sorted({*payer.projects, *charged_projects(payer.book)})
        if not projects:
            return {}
        own = AccountProjects(known.directory, payer.account, known.history.domain_of)
        period, found = payer.period.name, dict[str, BilledDays]()
        summaries = await self._statements.summaries(project_ids=projects, period=period, limit=MAX_STATEMENTS)
        others = [each for each in summaries if each.account_id != payer.account.id]
        ids = frozenset(each.statement_id for each in others)
        self._looks.append(OtherStatements(period=period, projects=tuple(projects), statement_ids=ids))
        for other in others:
            signed = await self._statements.statement(other.statement_id)
            assert signed is not None
            directory = await self._directory(signed.statement.book.sha256)
            theirs = AccountProjects(directory, account_named(directory, other.account_id), known.history.domain_of)
            for project_id in sorted({*other.projects} & {*projects}):
                days = {day for day in payer.period.days() if own.has(project_id, day) and theirs.has(project_id, day)}
                if days:
                    before = found.get(project_id)
                    found[project_id] = BilledDays(other.statement_id, days | set(before.days if before else ()))
        return found

    async def days(self, known: KnownPayer) -> Mapping[str, Collection[date]]:
        """Return the days of :meth:`of` by project."""
        return {project_id: each.days for project_id, each in (await self.of(known)).items()}

    async def problem(self, known: KnownPayer) -> ClosingProblem | None:
        """Return that days of the account's projects are on statements of others, ``None`` if none is."""
        billed = await self.of(known)
        if not billed:
            return None
        told = [
            f"{project_id} on {each.statement_id} until {max(each.days)}"
            for project_id, each in list(billed.items())[:MAX_TOLD]
        ]
        if len(billed) > MAX_TOLD:
            told.append(f"{len(billed) - MAX_TOLD} more")
        text = (
            f"projects of the account are billed already: {', '.join(told)}; write from which day on (from) each belongs to the account:"
            " a day after the last that is billed"
        )
        return ClosingProblem("billed already", text)
