"""Which weeks are archived, and where; and what is refused for them."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from meter.store.postgres.pool import Session

OF_WEEK = "SELECT week, server, archived_at IS NOT NULL FROM archived_week WHERE week = %s"
ALL = "SELECT week, server, archived_at IS NOT NULL FROM archived_week ORDER BY week"


class ArchivedWeek(NamedTuple):
    """A week on the archive server ``server``; not ``complete`` while some of its rows are still here, or here again."""

    week: date
    server: str
    complete: bool


class WeekIsArchived(Exception):
    """What was requested would change samples of an archived week. Nothing was changed; the text says what to do."""

    def __init__(self, archived: ArchivedWeek) -> None:
        super().__init__(
            f"the week of {archived.week} is archived on the server {archived.server}, and its samples cannot be changed there:"
            f" bring it back with meter-db unarchive {archived.week}, and try again"
        )


async def archived_weeks(session: Session) -> list[ArchivedWeek]:
    """Return the weeks that are archived or are being archived, oldest first."""
    return [ArchivedWeek(*row) for row in await session.rows(ALL)]


async def archived_week(session: Session, week: date) -> ArchivedWeek | None:
    """Return where ``week`` is archived, ``None`` if it is not."""
    for row in await session.rows(OF_WEEK, [week]):
        return ArchivedWeek(*row)
    return None


async def refuse_archived(session: Session, week: date) -> None:
    """Raise :class:`WeekIsArchived` if ``week`` is archived or is being archived."""
    if found := await archived_week(session, week):
        raise WeekIsArchived(found)
