"""Records that an archive server has lost weeks for good: its disks are gone, and there is no backup.

Until then every question that needs a sample of these weeks fails, and messages whose id may be that of such a sample wait. Afterwards the
questions still fail, with the reason; rollups and the index of ids, which are here, go on. What is recorded cannot be taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any
from typing import NamedTuple

from meter.archive_unavailable import ArchiveUnavailable
from meter.query import AuditEntry
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.store.archive.archive_servers import IS_USED
from meter.store.archive.archive_servers import ArchiveServerError
from meter.store.archive.archive_servers import foreign_table
from meter.store.archive.archive_servers import require_server
from meter.store.archive.archive_sql import WEEKS_OF_SERVER
from meter.store.audit.log import append
from meter.store.maintenance.rollups import lock_all_hours
from meter.store.maintenance.voiding import Act
from meter.store.packing.packed_partitions import lock_packed_samples
from meter.store.packing.packed_rows import IS_ARCHIVED
from meter.store.postgres.connection import Rejected
from meter.store.postgres.pool import Session
from meter.store.postgres.transaction import in_transaction

_HOUR_NOT_FINAL = """
t.start >= %(start)s AND t.start < %(end)s AND NOT EXISTS (SELECT FROM final_period p WHERE p.hours = 1 AND p.start = t.start)
"""

# A late sample is one beside the packed ones. In hours that are not final it is no part of the rollups, which were made before.
OF_WEEK = f"""
SELECT (SELECT count(*) FROM packed_samples p WHERE p.first >= %(start)s AND p.first < %(end)s AND {IS_ARCHIVED}),
    (SELECT coalesce(sum(p.count), 0) FROM packed_samples p WHERE p.first >= %(start)s AND p.first < %(end)s AND {IS_ARCHIVED}),
    (SELECT coalesce(sum(p.count), 0) FROM packed_samples p WHERE p.first >= %(start)s AND p.first < %(end)s AND NOT {IS_ARCHIVED})
        + (SELECT count(*) FROM sample s WHERE s.timestamp >= %(start)s AND s.timestamp < %(end)s),
    (SELECT count(DISTINCT t.start) FROM changed_series t WHERE {_HOUR_NOT_FINAL})
"""

ROWS_THERE = "SELECT count(*) FROM {archive} a WHERE a.store_id = (SELECT id FROM store_identity) AND a.first >= %(start)s AND a.first < %(end)s"

# The rollups of these hours are those from before the late samples; their days are made of them again.
STAY_FINAL = f"""
WITH kept AS (
    SELECT DISTINCT t.start FROM changed_series t WHERE {_HOUR_NOT_FINAL}
), final AS (
    INSERT INTO final_period (hours, start, with_meter_totals)
    SELECT 1, start, EXISTS (SELECT FROM meter_totals m WHERE m.hours = 1 AND m.start = kept.start) FROM kept
)
DELETE FROM changed_series t USING kept WHERE t.start = kept.start
"""

RECORD = "UPDATE archived_week SET lost_at = %(at)s, lost_entry = %(entry)s WHERE week = %(week)s"
FORGET_REMOVALS = "DELETE FROM archive_removal WHERE server = %(server)s AND week = %(week)s"
FORGET_ALL_REMOVALS = "DELETE FROM archive_removal WHERE server = %(server)s"


class WeekLoss(NamedTuple):
    """What the loss of a week means: how many samples are gone, how many single ones are kept here, and in how many hours late ones do not count."""

    week: date
    samples: int
    kept: int
    hours_without_late_samples: int


class UnexpectedLoss(Exception):
    """Another number of samples would be lost than the administrator expects; nothing was changed."""


async def losses(session: Session, server: str, weeks: Sequence[date]) -> list[WeekLoss]:
    """Return what is lost with the archive server ``server``: all its weeks, or those of ``weeks``, outside of a transaction.

    :class:`ArchiveServerError` if one of ``weeks`` is not there, or is not lost: the server answers and has all its rows;
    or if it has neither weeks nor rows that are still to be deleted.
    """
    await require_server(session, server)
    there = await _weeks_there(session, server, weeks)
    if not there and not (await session.rows(IS_USED, {"name": server}))[0][0]:
        raise ArchiveServerError(
            f"no week of this store is on {server}, or its weeks are recorded as lost already: nothing more can be lost there;"
            f" meter-db archive-server remove {server} forgets the server"
        )
    found, away = [], False
    for week in there:
        loss, rows = await _loss(session, week)
        rows_there = None if away else await _rows_there(session, server, week)
        away = rows_there is None
        if rows_there is not None and rows_there >= rows > 0:
            raise ArchiveServerError(
                f"the archive server {server} answers and has the week of {week}: it is not lost. Name those that are"
            )
        found.append(loss)
    return found


async def record_losses(
    session: Session, server: str, weeks: Sequence[date], act: Act
) -> tuple[list[WeekLoss], AuditEntry]:
    """Record that ``weeks``, or all weeks of ``server``, are lost; return what is lost, and the entry of the audit log.

    :class:`UnexpectedLoss` unless ``act.expected`` samples are.
    """
    await losses(session, server, weeks)
    return await in_transaction(session, _record, session, server, weeks, act)


async def _record(session: Session, server: str, weeks: Sequence[date], act: Act) -> tuple[list[WeekLoss], AuditEntry]:
    await lock_packed_samples(session)
    await lock_all_hours(session)
    # Another administrator may have recorded the loss, or brought a week back, since they were looked at.
    found = [(await _loss(session, week))[0] for week in await _weeks_there(session, server, weeks)]
    samples = sum(each.samples for each in found)
    if samples != act.expected:
        raise UnexpectedLoss(f"{samples} samples are lost, not {act.expected}: nothing was changed")
    details: dict[str, Any] = {
        **act.details,
        "action": "lost",
        "server": server,
        "weeks": [str(each.week) for each in found],
        "samples": samples,
    }
    entry = await append(session, act.keys, who=act.who, action="archive-server", reason=act.reason, details=details)
    for each in found:
        await session.count(STAY_FINAL, _times(each.week))
        await session.count(RECORD, {"week": each.week, "at": entry.at, "entry": entry.seq})
        await session.count(FORGET_REMOVALS, {"server": server, "week": each.week})
    if not weeks:
        await session.count(FORGET_ALL_REMOVALS, {"server": server})
    return found, entry


async def _weeks_there(session: Session, server: str, weeks: Sequence[date]) -> Sequence[date]:
    """Return ``weeks``, or all weeks of ``server``; :class:`ArchiveServerError` if one of ``weeks`` is not there, or is lost already."""
    there = [week for [week] in await session.rows(WEEKS_OF_SERVER, {"name": server})]
    if unknown := sorted({*weeks} - {*there}):
        raise ArchiveServerError(
            f"the week of {unknown[0]} is not archived on {server}, or is recorded as lost already"
        )
    return weeks or there


async def _loss(session: Session, week: date) -> tuple[WeekLoss, int]:
    """Return what the loss of ``week`` means, and the number of its rows that the archive has."""
    [[rows, samples, kept, hours]] = await session.rows(OF_WEEK, _times(week))
    return WeekLoss(week, int(samples), int(kept), int(hours)), int(rows)


async def _rows_there(session: Session, server: str, week: date) -> int | None:
    """Return how many rows of ``week`` the archive server has; ``None`` if it is away."""
    try:
        [[rows]] = await session.rows(ROWS_THERE.format(archive=foreign_table(server)), _times(week))
    except ArchiveUnavailable:
        return None
    except Rejected:  # its table is damaged
        return 0
    return int(rows)


def _times(week: date) -> dict[str, Any]:
    start = start_of_week(week)
    return {"start": start, "end": start + WEEK}
