"""StoredStatements: closed statements in PostgreSQL, which refuses every change of them (meter/store/migrations/0012_statements.sql)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from meter.rating.statements.annex import AnnexPage
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import signed_document
from meter.rating.statements.statement import statement_sha256
from meter.rating.statements.statement_store import ClosingStatement
from meter.rating.statements.statement_store import IStatementStore
from meter.rating.statements.statement_store import NotFollowing
from meter.rating.statements.statement_store import StatementSummary
from meter.store.audit.log import append
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.query.as_of import wait_for_writers_before

LOCK = 0x6D65746572_07
"""Key of the advisory lock with which one transaction at a time adds a statement."""

LOCK_AND_LOOK = f"""
SELECT pg_advisory_xact_lock({LOCK});
SELECT EXISTS (SELECT FROM statement WHERE account_id = %s AND period = %s),
    coalesce((SELECT sha256 FROM statement WHERE account_id = %s ORDER BY period DESC LIMIT 1), '')
"""

# After the lock: a close that held it is seen, whatever was known before.
OTHERS = """
SELECT DISTINCT p.statement_id FROM statement_project p JOIN statement s ON s.id = p.statement_id
WHERE p.project_id = ANY(%s::text[]) AND s.period = %s AND s.account_id <> %s
"""

INSERT_BOOK = "INSERT INTO price_book (sha256, text) VALUES (%s, %s) ON CONFLICT (sha256) DO NOTHING"

INSERT_PROJECTS = "INSERT INTO statement_project (statement_id, project_id) SELECT %s, unnest(%s::text[])"

INSERT_CREDITS = """
INSERT INTO statement_credit (statement_id, credit, amount) SELECT %s, unnest(%s::text[]), unnest(%s::numeric[])
"""

INSERT_PAGE = "INSERT INTO statement_annex (statement_id, page, rows, project_id, lines) VALUES (%s, %s, %s, %s, %s)"

INSERT_STATEMENT = """
INSERT INTO statement (id, account_id, account_name, period, currency, total, as_of, closed_at, closed_by, book_sha256,
    sha256, previous_sha256, usage_skus, document)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

SUMMARIES = """
SELECT s.id, s.account_id, s.account_name, s.period, s.currency, s.total, s.closed_at, s.closed_by,
    ARRAY(SELECT p.project_id FROM statement_project p WHERE p.statement_id = s.id ORDER BY p.project_id)
FROM statement s
WHERE (%s::text IS NULL OR s.account_id = %s) AND (%s::text IS NULL OR s.period = %s)
AND (%s::text[] IS NULL OR EXISTS (
    SELECT FROM statement_project p WHERE p.statement_id = s.id AND p.project_id = ANY(%s::text[])))
ORDER BY s.period DESC, s.account_id LIMIT %s
"""

DOCUMENT = "SELECT document FROM statement WHERE id = %s"

HAS_PROJECT = "SELECT EXISTS (SELECT FROM statement_project WHERE project_id = %s AND statement_id = %s)"

LATEST = "SELECT document FROM statement WHERE account_id = %s ORDER BY period DESC LIMIT 1"

OF_ACCOUNT = "SELECT document FROM statement WHERE account_id = %s AND period BETWEEN %s AND %s ORDER BY period"

LAST_CLOSE = "SELECT max(closed_at) FROM statement"

FIRST_PERIOD = "SELECT min(period) FROM statement WHERE account_id = %s"

CREDITS_USED = """
SELECT c.credit, sum(c.amount)::text FROM statement_credit c JOIN statement s ON s.id = c.statement_id
WHERE (s.account_id = %s AND (%s::text IS NULL OR s.period < %s))
OR (s.account_id <> %s AND (%s::timestamptz IS NULL OR s.closed_at < %s) AND EXISTS (
    SELECT FROM statement_project p JOIN unnest(%s::text[], %s::text[]) AS o (credit, project_id) USING (project_id)
    WHERE p.statement_id = s.id AND o.credit = c.credit))
GROUP BY c.credit ORDER BY c.credit
"""

PAGES_OF_ANNEX = """
SELECT page, project_id, rows, lines FROM statement_annex
WHERE statement_id = %s AND page > %s AND (%s::text IS NULL OR project_id = %s) ORDER BY page LIMIT %s
"""

PAGES_AT_ONCE = 16
"""Pages of an annex that are read with one statement: some hundred kibibytes."""

_DOCUMENTS = msgspec.json.Decoder(SignedStatement)


@implementer(IStatementStore)
class StoredStatements:
    """Closes over ``work``, which must be the primary, and reads for others over ``readers``."""

    def __init__(self, work: Pool, readers: Pool, clock: IReactorTime) -> None:
        self._work = work
        self._readers = readers
        self._clock = clock

    async def add(self, closing: ClosingStatement, annex: AsyncIterator[AnnexPage]) -> bool:
        """Store a closed statement; see ``IStatementStore.add``."""
        return await self._work.run(_add, closing, annex)

    async def settled_time(self) -> datetime:
        """Return a time; see ``IStatementStore.settled_time``."""
        [[now]] = await self._work.rows("SELECT clock_timestamp()")
        await wait_for_writers_before(self._work, self._clock, now)
        recorded_until: datetime = now.astimezone(UTC)
        return recorded_until

    async def summaries(
        self,
        account_id: str | None = None,
        project_ids: Sequence[str] | None = None,
        period: str | None = None,
        limit: int = 1000,
    ) -> Sequence[StatementSummary]:
        """Return closed statements; see ``IStatementStore.summaries``."""
        projects = None if project_ids is None else list(project_ids)
        parameters = [account_id, account_id, period, period, projects, projects, limit]
        return [
            StatementSummary(
                statement_id=id,
                account_id=account,
                account_name=name,
                period=of,
                currency=currency,
                total=total,
                closed_at=closed_at.astimezone(UTC),
                closed_by=closed_by,
                projects=tuple(found),
            )
            for id, account, name, of, currency, total, closed_at, closed_by, found in await self._readers.rows(
                SUMMARIES, parameters
            )
        ]

    async def statement(self, statement_id: str) -> SignedStatement | None:
        """Return a closed statement; see ``IStatementStore.statement``."""
        return _first(await self._readers.rows(DOCUMENT, [statement_id]))

    async def has_project(self, statement_id: str, project_id: str) -> bool:
        """Return whether there is something of a project; see ``IStatementStore.has_project``."""
        [[found]] = await self._readers.rows(HAS_PROJECT, [project_id, statement_id])
        return bool(found)

    async def latest(self, account_id: str) -> SignedStatement | None:
        """Return the newest statement; see ``IStatementStore.latest``."""
        return _first(await self._work.rows(LATEST, [account_id]))

    async def of_account(self, account_id: str, first: str, last: str) -> Sequence[SignedStatement]:
        """Return statements; see ``IStatementStore.of_account``."""
        return [_decoded(text) for [text] in await self._work.rows(OF_ACCOUNT, [account_id, first, last])]

    async def first_period(self, account_id: str) -> str | None:
        """Return a period; see ``IStatementStore.first_period``."""
        [[period]] = await self._work.rows(FIRST_PERIOD, [account_id])
        return None if period is None else str(period)

    async def last_close(self) -> datetime | None:
        """Return a time; see ``IStatementStore.last_close``."""
        [[at]] = await self._readers.rows(LAST_CLOSE)
        return None if at is None else at.astimezone(UTC)

    async def credits_used(
        self,
        account_id: str,
        before: str | None = None,
        of_projects: Mapping[str, str] | None = None,
        closed_before: datetime | None = None,
    ) -> Mapping[str, Decimal]:
        """Return amounts; see ``IStatementStore.credits_used``."""
        projects = of_projects or {}
        parameters = [account_id, before, before, account_id, closed_before, closed_before]
        rows = await self._work.rows(CREDITS_USED, [*parameters, list(projects), list(projects.values())])
        return {credit: Decimal(amount) for credit, amount in rows}

    async def annex(self, statement_id: str, project_id: str | None = None) -> AsyncIterator[AnnexRow]:
        """Yield the annex; see ``IStatementStore.annex``."""
        async for page in self.annex_pages(statement_id, project_id):
            for row in page.annex_rows():
                yield row

    async def annex_pages(self, statement_id: str, project_id: str | None = None) -> AsyncIterator[AnnexPage]:
        """Yield the pages of the annex; see ``IStatementStore.annex_pages``."""
        last = -1
        while True:
            parameters = [statement_id, last, project_id, project_id, PAGES_AT_ONCE]
            pages = await self._readers.rows(PAGES_OF_ANNEX, parameters)
            for page, project, rows, lines in pages:
                last = page
                yield AnnexPage(project, rows, bytes(lines))
            if len(pages) < PAGES_AT_ONCE:
                return

    async def book(self, sha256: str) -> str | None:
        """Return the text of a book; see ``IStatementStore.book``."""
        rows = await self._readers.rows("SELECT text FROM price_book WHERE sha256 = %s", [sha256])
        return str(rows[0][0]) if rows else None


async def _add(session: Session, closing: ClosingStatement, annex: AsyncIterator[AnnexPage]) -> bool:
    signed = closing.signed
    statement = signed.statement
    account, period, id = statement.account, statement.period.name, statement.statement_id
    [[closed, newest]] = await session.rows(LOCK_AND_LOOK, [account.id, period, account.id])
    if closed:
        return False
    if newest != statement.previous_sha256:
        raise NotFollowing(f"another statement of the account {account.id} was closed meanwhile: try again")
    for each in closing.others:
        others = await session.rows(OTHERS, [list(each.projects), each.period, account.id])
        if {other for [other] in others} != each.statement_ids:
            raise NotFollowing(
                f"a statement of {each.period} with a project of the account {account.id} was closed meanwhile: try again"
            )
    sha256 = statement_sha256(statement)
    await session.count(INSERT_BOOK, [statement.book.sha256, closing.book_text])
    await session.count(INSERT_PROJECTS, [id, list(closing.projects)])
    if closing.credits:
        await session.count(INSERT_CREDITS, [id, list(closing.credits), list(closing.credits.values())])
    number = 0
    async for page in annex:
        await session.count(INSERT_PAGE, [id, number, page.rows, page.project_id, page.lines])
        number += 1
    values: list[Any] = [id, account.id, account.name, period, statement.currency, format(statement.total, "f")]
    values += [statement.as_of, statement.closed_at, closing.closed_by, statement.book.sha256]
    values += [sha256, statement.previous_sha256, list(closing.usage_skus), signed_document(signed).decode()]
    await session.count(INSERT_STATEMENT, values)
    if closing.audit_keys:
        details = {"statement": id, "total": values[5], "currency": statement.currency, "sha256": sha256}
        await append(
            session,
            closing.audit_keys,
            who=closing.closed_by,
            action="statement.close",
            reason=statement.completeness.accepted,
            details={**details, **closing.audit_details},
        )
    return True


def _first(rows: Sequence[Sequence[str]]) -> SignedStatement | None:
    return _decoded(rows[0][0]) if rows else None


def _decoded(document: str) -> SignedStatement:
    return _DOCUMENTS.decode(document)
