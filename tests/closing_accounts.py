"""Closing for tests: a store in memory with kept usage, a ledger that says what it is told, and books that are known by their text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from typing import Any

from twisted.internet.task import Clock

from meter.completeness_query import Closable
from meter.completeness_query import ClosingReason
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.statements.closing import Closing
from meter.rating.statements.closing_act import AccountResult
from meter.rating.statements.closing_act import ClosingAct
from meter.rating.statements.preview import Previews
from meter.rating.statements.preview import StatementPreview
from meter.rating.statements.reproduction import Reproduction
from meter.testing import MemoryStore
from tests.kept_usage import KeptUsage
from tests.statements import KEY

IN_DECEMBER = datetime(2026, 12, 6, 12, tzinfo=UTC)
"""Past the grace of the books of tests."""


class ScriptedLedger:
    """Expects 100 samples of each project of ``projects``; ``reasons`` are those against closing, by project."""

    def __init__(self, *projects: str) -> None:
        self.projects = projects
        self.reasons: dict[str, list[ClosingReason]] = {}

    async def closable(self, query: CompletenessQuery, now: datetime) -> Closable:
        if query.project_id is None:
            reasons = list({each.text: each for of in self.reasons.values() for each in of}.values())
        else:
            reasons = self.reasons.get(query.project_id, [])
        return Closable(start=query.start, end=query.end, reasons=reasons)

    def _missing(self, project: str) -> int:
        return sum(each.samples for each in self.reasons.get(project, ()))

    async def completeness(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[CompletenessRow]:
        return [
            CompletenessRow(
                start=query.start,
                end=query.end,
                group=project,
                expected=100,
                received=100 - self._missing(project),
                causes={"unknown": self._missing(project)},
            )
            for project in self.projects
            if query.project_id in (None, project)
        ]


def with_text(book: PriceBook, text: str = "first") -> PriceBook:
    return replace(book, text=text, sha256=hashlib.sha256(text.encode()).hexdigest())


class Accounting:
    """What is needed to close: ``usage`` arrives, and ``directory`` is the present price directory."""

    def __init__(self, directory: PriceDirectory, *projects: str) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.usage = KeptUsage()
        self.store.rating.usage = self.usage
        self.ledger = ScriptedLedger(*projects)
        self.directories: dict[str, PriceDirectory] = {}
        self.correct_periods = 2
        self.recorded: list[tuple[str, Mapping[str, Any]]] = []
        self.audit_log_is_down = False
        self.use(directory)
        self.at(IN_DECEMBER)

    def use(self, directory: PriceDirectory) -> None:
        """Let ``directory`` be the present one. A stored text stands for the directory with its book."""
        self.directory = directory
        for book in directory.books.values():
            self.directories[book.text] = PriceDirectory(books={book.name: book}, accounts=directory.accounts)

    def at(self, now: datetime) -> None:
        """Set the time."""
        self.clock.advance(now.timestamp() - self.clock.seconds())

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.seconds(), UTC)

    async def close(
        self, period: str = "2026-11", accounts: Sequence[str] | None = None, **act: Any
    ) -> list[AccountResult]:
        closing = Closing(
            self.store.rating,
            self.ledger,
            self.store,
            self.directory,
            self.directories.__getitem__,
            correct_periods=self.correct_periods,
        )
        values = {"key": KEY, "closed_by": "ann@billing", **act}
        return await closing.close(period, accounts, ClosingAct(**values), self.now)

    async def preview(self, account: str = "acme", period: str | None = None) -> StatementPreview:
        return await self.previews().preview(account, self.now, period)

    def previews(self) -> Previews:
        return Previews(
            self.store.rating,
            self.ledger,
            self.store,
            self.directory,
            self.directories.__getitem__,
            correct_periods=self.correct_periods,
        )

    async def differences(self, statement_id: str) -> list[str]:
        signed = await self.store.rating.statements.statement(statement_id)
        reproduction = Reproduction(self.store.rating, self.store, self.directories.__getitem__)
        return await reproduction.differences(signed.statement)

    async def annex(self, statement_id: str) -> list[bytes]:
        pages = self.store.rating.statements.annex_pages(statement_id)
        return [line for page in [page async for page in pages] for line in page.text().splitlines(keepends=True)]
