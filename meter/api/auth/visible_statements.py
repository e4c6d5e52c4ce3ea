"""The statements that a requester may see: all, whole ones of their own project alone, or the extract of their project.

Who pays sees the statement; a project that shares an account with others sees its own part. A statement that has nothing of
the requester's project is as one that does not exist.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from meter.api.auth.requester import Requester
from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.rating.statements.extract import StatementExtract
from meter.rating.statements.extract import extract
from meter.rating.statements.extract import projects_of
from meter.rating.statements.preview import PeriodClosed
from meter.rating.statements.preview import Previews
from meter.rating.statements.preview import StatementPreview
from meter.rating.statements.recent_previews import RecentPreviews
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement_store import IStatementStore
from meter.rating.statements.statement_store import StatementSummary

Authorized = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Runs a query between two checks of the requester's authorization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleStatement:
    """A statement, ``whole`` or as the extract of a project; one of the two is ``None``.

    A preview has neither key nor signature; ``forecast`` is its expected total, where the whole is visible.
    """

    whole: SignedStatement | None = None
    part: StatementExtract | None = None
    forecast: Decimal | None = None


class VisibleStatements:
    """A view of closed statements that is restricted to one requester."""

    def __init__(self, statements: IStatementStore, requester: Requester, authorized: Authorized) -> None:
        self._statements = statements
        self._requester = requester
        self._authorized = authorized

    async def summaries(
        self, account_id: str | None, project_id: str | None, period: str | None, limit: int
    ) -> Sequence[StatementSummary]:
        """Return closed statements; to a tenant those with something of the requester's project."""
        project_id = self.visible_project(project_id)
        projects = None if project_id is None else [project_id]
        found: Sequence[StatementSummary] = await self._authorized(
            lambda: self._statements.summaries(account_id, projects, period, limit)
        )
        return found

    async def statement(self, statement_id: str) -> VisibleStatement | None:
        """Return a closed statement, or what the requester may see of it; ``None`` if that is nothing."""
        # A statement of others is not read: how long that takes would tell that it exists, and its size.
        if not await self._may_see(statement_id):
            return None
        signed: SignedStatement | None = await self._authorized(lambda: self._statements.statement(statement_id))
        if signed is None:
            return None
        if self._requester.is_admin:
            return VisibleStatement(whole=signed)
        projects = await self._projects(signed)
        return self.visible(signed, projects)

    def visible(self, signed: SignedStatement, projects: Collection[str]) -> VisibleStatement | None:
        """Return what the requester may see of a statement that has something of ``projects``."""
        own = self._requester.project_id
        if self._requester.is_admin or (own and set(projects) == {own}):
            return VisibleStatement(whole=signed)
        if own not in projects:
            return None
        return VisibleStatement(part=extract(signed.statement, own or ""))

    async def preview(
        self,
        previews: Previews,
        recent: RecentPreviews,
        accounts: Collection[str],
        account_id: str | None,
        project_id: str | None,
        period: str | None,
        now: datetime,
    ) -> VisibleStatement | None:
        """Return the open statement of an account, or of that of a project; ``None`` if it has nothing that the requester may see.

        ``recent`` has those that were computed moments ago. ``accounts`` are those of the price directory. Any other, which stands for one project, exists if it has usage.

        :raises ValueError: ``period`` is not the name of a period, or nobody is named.
        """
        project_id = self.visible_project(project_id)

        async def find() -> StatementPreview | None:
            payer = account_id
            if project_id is not None:
                payer = (await previews.account_of(project_id, now)).id
            if payer is None:
                raise ValueError("name an account or a project")
            try:
                return await recent.preview(previews, payer, now, period) if account_id in (None, payer) else None
            except PeriodClosed:
                # As if nothing were there: who may not see the account is not told that it has a statement.
                return None

        found: StatementPreview | None = await self._authorized(find)
        if found is None:
            return None
        statement = found.statement
        projects = projects_of(statement)
        if not projects and (not statement.lines or statement.account.id not in accounts):
            return None
        visible = self.visible(SignedStatement(statement=statement, key_id="", signature=""), projects)
        return visible and replace(visible, forecast=None if visible.whole is None else found.forecast.total)

    async def annex(self, statement_id: str) -> AsyncIterator[bytes]:
        """Yield the lines of the annex of a closed statement, many at a time; to a tenant those of the requester's project."""
        if not await self._may_see(statement_id):
            return
        pages = self._statements.annex_pages(statement_id, self.visible_project(None))
        while (page := await self._authorized(lambda: anext(pages, None))) is not None:
            yield page.text()

    def visible_project(self, project_id: str | None) -> str | None:
        """Return the only project that the requester may see, or ``project_id`` of an administrator.

        Raises :class:`HttpError` 403 for a requester without a project, :class:`ApiError` 401 for one who asks for another.
        """
        if self._requester.is_admin:
            return project_id
        own = self._requester.project_id
        if not own:
            raise HttpError(403, "RBAC Authorization Failed: the token is not scoped to a project.")
        if project_id not in (None, own):
            raise ApiError(401, f"Not Authorized to access project {project_id}")
        return own

    async def _may_see(self, statement_id: str) -> bool:
        """Return whether a statement may have something that the requester may see."""
        project_id = self.visible_project(None)
        if project_id is None:
            return True
        found: bool = await self._authorized(lambda: self._statements.has_project(statement_id, project_id))
        return found

    async def _projects(self, signed: SignedStatement) -> set[str]:
        """Return the projects of a statement: of its lines, and those that have usage without a line."""
        statement = signed.statement
        account, period = statement.account.id, statement.period.name
        found: Sequence[StatementSummary] = await self._authorized(
            lambda: self._statements.summaries(account, None, period, 1)
        )
        return projects_of(statement).union(*(each.projects for each in found))
