"""MemoryStatements: closed statements in memory, with the constraints of the tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from zope.interface import implementer

from meter.query import AuditEntry
from meter.rating.exact import EXACT
from meter.rating.statements.annex import AnnexPage
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import read_statement
from meter.rating.statements.statement import signed_document
from meter.rating.statements.statement import statement_sha256
from meter.rating.statements.statement_store import ClosingStatement
from meter.rating.statements.statement_store import IStatementStore
from meter.rating.statements.statement_store import NotFollowing
from meter.rating.statements.statement_store import StatementSummary

if TYPE_CHECKING:
    from meter.testing.memory_store import MemoryStore


@implementer(IStatementStore)
class MemoryStatements:
    """Statements beside the samples of ``store``."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._closed: dict[str, ClosingStatement] = {}
        self._documents: dict[str, bytes] = {}
        self._annexes: dict[str, list[AnnexPage]] = {}

    async def add(self, closing: ClosingStatement, annex: AsyncIterator[AnnexPage]) -> bool:
        """Store a closed statement; see ``IStatementStore.add``."""
        self._store._check()
        statement = closing.signed.statement
        pages = [page async for page in annex]
        closed = self._of(statement.account.id)
        if any(each.statement.period.name == statement.period.name for each in closed):
            return False
        newest = statement_sha256(closed[-1].statement) if closed else ""
        if newest != statement.previous_sha256:
            raise NotFollowing(
                f"another statement of the account {statement.account.id} was closed meanwhile: try again"
            )
        for each in closing.others:
            summaries = await self.summaries(project_ids=each.projects, period=each.period, limit=len(self._closed))
            ids = {other.statement_id for other in summaries if other.account_id != statement.account.id}
            if ids != each.statement_ids:
                raise NotFollowing(
                    f"a statement of {each.period} with a project of the account {statement.account.id} was closed meanwhile: try again"
                )
        self._closed[statement.statement_id] = closing
        self._documents[statement.statement_id] = signed_document(closing.signed)
        self._annexes[statement.statement_id] = pages
        if closing.audit_keys:
            self._record(closing)
        return True

    def _record(self, closing: ClosingStatement) -> None:
        log, statement = self._store.audit_log, closing.signed.statement
        log.append(
            AuditEntry(
                seq=len(log) + 1,
                at=self._now(),
                who=closing.closed_by,
                action="statement.close",
                reason=statement.completeness.accepted,
                details=f'{{"statement":"{statement.statement_id}"}}',
                key_id=closing.audit_keys[0].id,
                previous="",
                hash="",
            )
        )

    async def settled_time(self) -> datetime:
        """Return a time; see ``IStatementStore.settled_time``."""
        self._store._check()
        return self._now()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._store._clock.seconds(), UTC)

    async def summaries(
        self,
        account_id: str | None = None,
        project_ids: Sequence[str] | None = None,
        period: str | None = None,
        limit: int = 1000,
    ) -> Sequence[StatementSummary]:
        """Return closed statements; see ``IStatementStore.summaries``."""
        self._store._check()
        found = [
            _summary(each)
            for each in self._closed.values()
            if account_id in (None, each.signed.statement.account.id)
            and period in (None, each.signed.statement.period.name)
            and (project_ids is None or set(project_ids) & set(each.projects))
        ]
        found.sort(key=lambda each: each.account_id)
        found.sort(key=lambda each: each.period, reverse=True)
        return found[:limit]

    async def statement(self, statement_id: str) -> SignedStatement | None:
        """Return a closed statement; see ``IStatementStore.statement``."""
        self._store._check()
        body = self._documents.get(statement_id)
        return None if body is None else read_statement(body)

    async def has_project(self, statement_id: str, project_id: str) -> bool:
        """Return whether there is something of a project; see ``IStatementStore.has_project``."""
        self._store._check()
        return statement_id in self._closed and project_id in self._closed[statement_id].projects

    async def latest(self, account_id: str) -> SignedStatement | None:
        """Return the newest statement; see ``IStatementStore.latest``."""
        self._store._check()
        return next(iter(reversed(self._of(account_id))), None)

    async def of_account(self, account_id: str, first: str, last: str) -> Sequence[SignedStatement]:
        """Return statements; see ``IStatementStore.of_account``."""
        self._store._check()
        return [each for each in self._of(account_id) if first <= each.statement.period.name <= last]

    async def first_period(self, account_id: str) -> str | None:
        """Return a period; see ``IStatementStore.first_period``."""
        self._store._check()
        return next((each.statement.period.name for each in self._of(account_id)), None)

    async def last_close(self) -> datetime | None:
        """Return a time; see ``IStatementStore.last_close``."""
        self._store._check()
        return max((_summary(each).closed_at for each in self._closed.values()), default=None)

    async def credits_used(
        self,
        account_id: str,
        before: str | None = None,
        of_projects: Mapping[str, str] | None = None,
        closed_before: datetime | None = None,
    ) -> Mapping[str, Decimal]:
        """Return amounts; see ``IStatementStore.credits_used``."""
        self._store._check()
        shared = of_projects or {}
        used: dict[str, Decimal] = {}
        for each in self._closed.values():
            statement = each.signed.statement
            own = statement.account.id == account_id
            if own and not (before is None or statement.period.name < before):
                continue
            if not own and not (closed_before is None or _summary(each).closed_at < closed_before):
                continue
            for credit, amount in each.credits.items():
                if own or shared.get(credit) in each.projects:
                    used[credit] = EXACT.add(used.get(credit, Decimal(0)), amount)
        return dict(sorted(used.items()))

    async def annex(self, statement_id: str, project_id: str | None = None) -> AsyncIterator[AnnexRow]:
        """Yield the annex; see ``IStatementStore.annex``."""
        async for page in self.annex_pages(statement_id, project_id):
            for row in page.annex_rows():
                yield row

    async def annex_pages(self, statement_id: str, project_id: str | None = None) -> AsyncIterator[AnnexPage]:
        """Yield the pages of the annex; see ``IStatementStore.annex_pages``."""
        self._store._check()
        for page in self._annexes.get(statement_id, ()):
            if project_id in (None, page.project_id):
                yield page

    async def book(self, sha256: str) -> str | None:
        """Return the text of a book; see ``IStatementStore.book``."""
        self._store._check()
        books = ((each.signed.statement.book.sha256, each.book_text) for each in self._closed.values())
        return next((text for known, text in books if known == sha256), None)

    def _of(self, account_id: str) -> list[SignedStatement]:
        """The account's statements, the oldest first."""
        found = [read_statement(body) for body in self._documents.values()]
        return sorted(
            (each for each in found if each.statement.account.id == account_id),
            key=lambda each: each.statement.period.name,
        )


def _summary(closing: ClosingStatement) -> StatementSummary:
    statement = closing.signed.statement
    assert statement.closed_at is not None
    return StatementSummary(
        statement_id=statement.statement_id,
        account_id=statement.account.id,
        account_name=statement.account.name,
        period=statement.period.name,
        currency=statement.currency,
        total=format(statement.total, "f"),
        closed_at=statement.closed_at.astimezone(UTC),
        closed_by=closing.closed_by,
        projects=tuple(sorted(closing.projects)),
    )
