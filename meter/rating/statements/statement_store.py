"""What statements need of a store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from zope.interface import Interface

from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import SignedStatement


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementSummary:
    """What a list of statements shows. ``projects`` are those that have lines or usage in it."""

    statement_id: str
    account_id: str
    account_name: str
    period: str
    currency: str
    total: str
    closed_at: datetime
    closed_by: str
    projects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingStatement:
    """All that a close stores, in one transaction: nothing of it, or the whole."""

    signed: SignedStatement
    book_text: str
    projects: tuple[str, ...]
    closed_by: str
    usage_skus: tuple[str, ...]


class IStatementStore(Interface):
    """Closed statements. They never change: the store refuses it. Methods raise ``Unavailable`` as those of ``IStore`` do."""

    async def add(closing: ClosingStatement, annex: AsyncIterator[AnnexRow]) -> bool:
        """Store a statement with its annex and book; return ``False``, and store nothing, if the account and period have one."""

    async def summaries(
        account_id: str | None = None,
        project_ids: Sequence[str] | None = None,
        period: str | None = None,
        limit: int = 1000,
    ) -> Sequence[StatementSummary]:
        """Return the closed statements, the newest period first, that match all that is given; ``project_ids``: any of them."""

    async def statement(statement_id: str) -> SignedStatement | None:
        """Return a closed statement."""

    async def latest(account_id: str) -> SignedStatement | None:
        """Return the account's statement of the newest period."""

    def annex(statement_id: str, project_id: str | None = None) -> AsyncIterator[AnnexRow]:
        """Yield the annex of a closed statement in its order, of one project or of all."""

    async def book(sha256: str) -> str | None:
        """Return the text of a price book that closed statements were rated by."""
