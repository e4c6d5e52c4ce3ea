"""Retention of single meters in packed weeks: rows that have expired are deleted, those that have partly expired are shortened once a day.

Archived rows are deleted when they have expired as a whole; what their archive server has of them is removed after that.
"""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

from meter.store.packing.packed_ids import MONDAY
from meter.store.packing.packed_rows import IS_ARCHIVED
from meter.store.packing.packed_rows import SAMPLE_COLUMNS
from meter.store.packing.packed_rows import unpacked
from meter.store.packing.packing_sql import INSERT_PACKED
from meter.store.packing.packing_sql import WORKING_TABLE
from meter.store.postgres.pool import Session

_COLUMNS = ", ".join(SAMPLE_COLUMNS)
_OF_METER = (
    "p.series_id = ANY(ARRAY(SELECT x.id FROM series x JOIN meter m ON m.id = x.meter_id WHERE m.name = %(meter)s))"
)
_PARTLY = f"{_OF_METER} AND p.first < %(day)s AND p.last >= %(day)s AND NOT {IS_ARCHIVED}"
_EXPIRED = f"{_OF_METER} AND p.last < %(before)s"

DELETE_EXPIRED = f"DELETE FROM packed_samples p WHERE {_EXPIRED}"

REMOVE_EXPIRED = f"""
INSERT INTO archive_removal (server, week, series_ids)
SELECT w.server, w.week, array_agg(DISTINCT p.series_id)
FROM archived_week w JOIN packed_samples p ON p.first >= {MONDAY.format("w.week")} AND p.first < {MONDAY.format("w.week + 7")}
WHERE {_EXPIRED} AND {IS_ARCHIVED} AND w.lost_at IS NULL
GROUP BY w.server, w.week
"""

ANY_ARCHIVED = "SELECT FROM archived_week LIMIT 1"

ANY_PARTLY = f"SELECT FROM packed_samples p WHERE {_PARTLY} LIMIT 1"

COPY_REST = f"""
INSERT INTO packing ({_COLUMNS})
SELECT {_COLUMNS} FROM ({unpacked(SAMPLE_COLUMNS, first="%(day)s::timestamptz", last="'infinity'::timestamptz")} WHERE {_PARTLY}) AS s
WHERE s.timestamp >= %(day)s
"""

DELETE_PARTLY = f"DELETE FROM packed_samples p WHERE {_PARTLY}"


async def delete_packed(session: Session, meter: str, before: datetime) -> None:
    """Delete the packed samples of ``meter`` before ``before``, in a transaction that has locked packed samples.

    Of rows that have later samples, too, only those before the day of ``before`` are deleted: such a row is written again at most once
    a day. They are all of one week, the week of that day.
    """
    day = before.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    parameters = {"meter": meter, "before": before, "day": day}
    if await session.rows(ANY_ARCHIVED):
        await session.count(REMOVE_EXPIRED, parameters)
    await session.count(DELETE_EXPIRED, parameters)
    if await session.rows(ANY_PARTLY, parameters):
        await session.count(WORKING_TABLE)
        await session.count(COPY_REST, parameters)
        await session.count(DELETE_PARTLY, parameters)
        await session.count(INSERT_PACKED)
