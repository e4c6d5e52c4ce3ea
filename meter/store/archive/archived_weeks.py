"""Which weeks are archived, and where; and what is refused for them."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from meter.store.postgres.pool import Session

COLUMNS = "week, server, archived_at IS NOT NULL, (lost_at AT TIME ZONE 'UTC')::date, lost_entry"
OF_WEEK = f"SELECT {COLUMNS} FROM archived_week WHERE week = %s"
LOST = """
SELECT week, server, samples, (lost_at AT TIME ZONE 'UTC')::date, lost_entry FROM archived_week WHERE lost_at IS NOT NULL ORDER BY week
"""
ALL = f"SELECT {COLUMNS} FROM archived_week ORDER BY week"


class ArchivedWeek(NamedTuple):
    """A week on the archive server ``server``; not ``complete`` while some of its rows are still here, or here again.

    ``lost`` is the day on which it was recorded that the server has lost it, under ``entry`` of the audit log; ``None`` if it has not.
    """

    week: date
    server: str
    complete: bool
    lost: date | None = None
    entry: int | None = None

    @property
    def text(self) -> str:
        """Where it is, or that it is lost."""
        if self.lost is not None:
            return f"lost, recorded on {self.lost}, entry {self.entry} of the audit log"
        return self.server if self.complete else f"{self.server}, in part"


class LostWeek(NamedTuple):
    """A week that is lost, the number of its samples, and the entry of the audit log that says so."""

    week: date
    server: str
    samples: int
    since: date
    entry: int


class WeekIsArchived(Exception):
    """What was requested would change samples of an archived week. Nothing was changed; the text says what to do."""

    def __init__(self, archived: ArchivedWeek) -> None:
        if archived.lost is not None:
            super().__init__(f"the samples of the week of {archived.week} are {archived.text}: they cannot be changed")
            return
        super().__init__(
            f"the week of {archived.week} is archived on the server {archived.server}, and its samples cannot be changed there:"
            f" bring it back with meter-db unarchive {archived.week}, and try again"
        )


async def archived_weeks(session: Session) -> list[ArchivedWeek]:
    """Return the weeks that are archived or are being archived, oldest first."""
    return [ArchivedWeek(*row) for row in await session.rows(ALL)]


async def lost_weeks(session: Session) -> list[LostWeek]:
    """Return the weeks that are recorded as lost, oldest first."""
    return [LostWeek(*row) for row in await session.rows(LOST)]


async def archived_week(session: Session, week: date) -> ArchivedWeek | None:
    """Return where ``week`` is archived, ``None`` if it is not."""
    for row in await session.rows(OF_WEEK, [week]):
        return ArchivedWeek(*row)
    return None


async def refuse_archived(session: Session, week: date) -> None:
    """Raise :class:`WeekIsArchived` if ``week`` is archived or is being archived."""
    if found := await archived_week(session, week):
        raise WeekIsArchived(found)
