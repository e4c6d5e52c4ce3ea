"""Whether archive servers answer, and have the weeks that this store has moved to them."""

from __future__ import annotations

from datetime import date
from datetime import timedelta
from typing import NamedTuple

from meter.archive_unavailable import ArchiveUnavailable
from meter.sample_identity import start_of_week
from meter.store.archive.archive_servers import ArchiveServer
from meter.store.archive.archive_servers import ArchiveServerError
from meter.store.archive.archive_servers import archive_servers
from meter.store.archive.archive_servers import check_server
from meter.store.archive.archive_servers import foreign_table
from meter.store.archive.archive_sql import HAS_WEEK
from meter.store.archive.archive_sql import REFERS_TO_WEEK
from meter.store.archive.archive_sql import WEEKS_OF_SERVER
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Session


class ExpectedWeeks(NamedTuple):
    """The weeks (Mondays) of which an archive server must have rows, and those of them of which it has none."""

    expected: list[date]
    missing: list[date]


class ArchiveHealth(NamedTuple):
    """An archive server, and why questions for its weeks fail: ``problem`` is empty if they do not."""

    server: ArchiveServer
    problem: str


async def weeks_on(session: Session, name: str) -> list[date]:
    """Return the weeks, oldest first, of which this store has moved rows to the archive server ``name``; the server is not asked."""
    weeks = [week for [week] in await session.rows(WEEKS_OF_SERVER, {"name": name})]
    return [week for week in weeks if await _refers_to(session, week)]


async def expected_weeks(session: Session, name: str) -> ExpectedWeeks:
    """Ask the archive server ``name`` for a row of each week that it must have; raises what reading of it raises."""
    statement = HAS_WEEK.format(archive=foreign_table(name))
    weeks, missing = await weeks_on(session, name), []
    for week in weeks:
        # A week that is brought back meanwhile is missing there, and then nothing here refers to it.
        if not await session.rows(statement, _times(week)) and await _refers_to(session, week):
            missing.append(week)
    return ExpectedWeeks(weeks, missing)


async def require_weeks(session: Session, name: str) -> list[date]:
    """Return the weeks that the archive server ``name`` lacks; :class:`ArchiveServerError` if it has none of those that it must have."""
    expected, missing = await expected_weeks(session, name)
    if expected and missing == expected:
        raise ArchiveServerError(no_weeks(name, expected))
    return missing


def no_weeks(name: str, weeks: list[date]) -> str:
    """Return the text about a database that has nothing of the ``weeks`` that the archive server ``name`` must have."""
    return (
        f"this database has no row of the weeks that are archived on {name} ({listed(weeks)}): give the address of the one that has"
        " them, or restore its backup there first. Nothing was changed"
    )


async def archive_health(session: Session) -> list[ArchiveHealth]:
    """Ask each archive server, one after the other, outside of a transaction."""
    return [ArchiveHealth(server, await _problem(session, server.name)) for server in await archive_servers(session)]


async def _problem(session: Session, name: str) -> str:
    try:
        await check_server(session, name)
        missing = (await expected_weeks(session, name)).missing
    except ArchiveUnavailable as error:
        return error.reason
    except (Rejected, TimedOut) as error:
        return str(error)
    return f"has no row of the weeks of {listed(missing)}" if missing else ""


def listed(weeks: list[date]) -> str:
    """Return ``weeks`` as text, not more than five of them."""
    more = [f"{len(weeks) - 5} more"] if len(weeks) > 5 else []
    return ", ".join([*map(str, weeks[:5]), *more])


async def _refers_to(session: Session, week: date) -> bool:
    [[refers]] = await session.rows(REFERS_TO_WEEK, _times(week))
    return bool(refers)


def _times(week: date) -> dict[str, object]:
    return {"start": start_of_week(week), "end": start_of_week(week + timedelta(days=7))}
