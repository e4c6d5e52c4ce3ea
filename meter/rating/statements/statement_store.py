"""What statements need of a store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from decimal import Decimal
from typing import Any

from zope.interface import Interface

from meter.interfaces import Unavailable
from meter.rating.statements.annex import AnnexPage
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import SignedStatement
from meter.signing_keys import SigningKey


class NotFollowing(Unavailable):
    """Another statement was closed meanwhile, of the account or of a project of it; the same close may succeed if it is repeated."""


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
class OtherStatements:
    """The statements of other accounts, of a period, that had one of ``projects`` when it was decided what an account is billed for them."""

    period: str
    projects: tuple[str, ...]
    statement_ids: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingStatement:
    """All that a close stores, in one transaction: nothing of it, or the whole.

    ``others`` is what was known of other accounts: where more has been closed of them meanwhile, a day could be billed twice.
    ``credits`` are what it used up of each credit, positive amounts by the credit's id. With ``audit_keys``, the accepted
    signing keys, the close is recorded in the audit log, as an act of ``closed_by`` with ``audit_details``.
    """

    signed: SignedStatement
    book_text: str
    projects: tuple[str, ...]
    closed_by: str
    usage_skus: tuple[str, ...]
    others: Sequence[OtherStatements] = ()
    credits: Mapping[str, Decimal] = field(default_factory=dict)
    audit_keys: Sequence[SigningKey] = ()
    audit_details: Mapping[str, Any] = field(default_factory=dict)


class IStatementStore(Interface):
    """Closed statements. They never change: the store refuses it. Methods raise ``Unavailable`` as those of ``IStore`` do."""

    async def add(closing: ClosingStatement, annex: AsyncIterator[AnnexPage]) -> bool:
        """Store a statement with its annex and book; return ``False``, and store nothing, if the account and period have one.

        Raises :class:`NotFollowing`, and stores nothing, if the account's newest statement is not the one that ``previous_sha256`` names,
        or if other accounts have other statements than ``closing.others`` says.
        """

    async def settled_time() -> datetime:
        """Return a present time of the store, after which no more samples appear that were recorded until then."""

    async def summaries(
        account_id: str | None = None,
        project_ids: Sequence[str] | None = None,
        period: str | None = None,
        limit: int = 1000,
    ) -> Sequence[StatementSummary]:
        """Return the closed statements, the newest period first, that match all that is given; ``project_ids``: any of them."""

    async def statement(statement_id: str) -> SignedStatement | None:
        """Return a closed statement."""

    async def has_project(statement_id: str, project_id: str) -> bool:
        """Return whether a closed statement has lines or usage of a project, without reading the statement."""

    async def latest(account_id: str) -> SignedStatement | None:
        """Return the account's statement of the newest period."""

    async def of_account(account_id: str, first: str, last: str) -> Sequence[SignedStatement]:
        """Return the account's statements of the periods from ``first`` to ``last``, both included, the oldest first."""

    async def first_period(account_id: str) -> str | None:
        """Return the period of the account's first statement."""

    async def last_close() -> datetime | None:
        """Return when the last statement was closed, of whatever period."""

    async def credits_used(
        account_id: str,
        before: str | None = None,
        of_projects: Mapping[str, str] | None = None,
        closed_before: datetime | None = None,
    ) -> Mapping[str, Decimal]:
        """Return what the account's statements, those of periods before ``before`` or all, used up of each credit, by its id.

        ``of_projects`` has the project of each credit that is one of a project: a project takes its credit with it when its account
        changes, so what statements of other accounts with the project, those closed before ``closed_before`` or all, used of it counts.
        """

    def annex(statement_id: str, project_id: str | None = None) -> AsyncIterator[AnnexRow]:
        """Yield the annex of a closed statement in its order, of one project or of all."""

    def annex_pages(statement_id: str, project_id: str | None = None) -> AsyncIterator[AnnexPage]:
        """Yield the same as it is stored: the lines of all pages, one after the other, are the file that was hashed."""

    async def book(sha256: str) -> str | None:
        """Return the text of a price book that closed statements were rated by."""
