"""Pieces: what samples of a series amount to, be it one sample, an hour or a day of them, and how pieces make larger ones.

A piece tells ``count``, ``smallest``, ``largest``, ``total`` and ``deviation`` (the sum of the squared distances from
the mean) of its volumes, the ``first`` and ``last`` time with their volumes, and of the steps within: ``increase`` and
``integral`` (see :mod:`meter.reckoning`). Pieces of a series that follow one another in time add up to one piece
exactly, but for the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from datetime import datetime
from datetime import timedelta

from meter.store.pool import Session

HOUR, DAY = 1, 24
"""How many hours a rollup may tell."""

LOCKS = 0x6D657466
"""First key of the advisory locks that writers share with each other, and with nobody who settles."""

BUCKETS = 64
"""An hour's lock is one of so many: a batch from all over time takes no more."""

HOLD = f"SELECT pg_advisory_xact_lock_shared({LOCKS}, bucket) FROM unnest(%s::int[]) AS bucket"
HOLD_ALONE = f"SELECT pg_advisory_xact_lock({LOCKS}, bucket) FROM unnest(%s::int[]) AS bucket"

COLUMNS = "first, last, count, smallest, largest, total, deviation, first_volume, last_volume, increase, integral"

OF_SAMPLE = (
    "s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS smallest, s.volume AS largest,"
    " s.volume AS total, 0::float8 AS deviation, s.volume AS first_volume, s.volume AS last_volume,"
    " 0::float8 AS increase, 0::float8 AS integral, s.message_id AS tie"
)
"""The piece that one row ``s`` of ``sample`` is; ``tie`` orders those of one moment."""

OF_ROLLUP = (
    "r.first, r.last, r.count::float8 AS count, r.smallest, r.largest, r.total, r.deviation, r.first_volume, r.last_volume,"
    " r.increase, r.integral, NULL::uuid AS tie"
)
"""The piece that a row ``r`` of ``rollup`` tells. Whole numbers are doubles here: sums of ``bigint`` take twice the time."""

GROWN = (
    "CASE WHEN first_volume >= volume_before THEN first_volume - volume_before"
    " WHEN before IS NOT NULL THEN first_volume END"
)
"""What a counter grew from the piece before to this one."""

GONE = (
    "SELECT x.id FROM series x JOIN meter m ON m.id = x.meter_id JOIN horizon h ON h.meter IN (m.name, '')"
    " WHERE h.before > %(start)s"
)
"""Series whose samples since ``start`` may have been let go: what their rollups tell is all there is."""

ADD_UP = f"""
INSERT INTO rollup (start, hours, series_id, {COLUMNS})
SELECT %(start)s, %(hours)s, series_id, min(first), max(last), sum(count), min(smallest), max(largest), sum(total),
    sum(deviation + count * (total / count - mean) ^ 2),
    (array_agg(first_volume ORDER BY first, tie))[1], (array_agg(last_volume ORDER BY first DESC, tie DESC))[1],
    sum(increase) + coalesce(sum({GROWN}), 0),
    sum(integral) + coalesce(sum(volume_before * (extract(epoch FROM first - before)::float8 / 3600)), 0)
FROM (
    SELECT *, lag(last) OVER step AS before, lag(last_volume) OVER step AS volume_before,
        sum(total) OVER whole / sum(count) OVER whole AS mean
    FROM ({{pieces}}) AS piece
    WINDOW step AS (PARTITION BY series_id ORDER BY first, tie), whole AS (PARTITION BY series_id)
) AS piece
GROUP BY series_id
"""

WITHIN = "%(start)s AND {} < %(start)s::timestamptz + make_interval(hours => %(hours)s)"

FROM_SAMPLES = ADD_UP.format(
    pieces=f"SELECT s.series_id, {OF_SAMPLE} FROM sample s WHERE s.timestamp >= {WITHIN.format('s.timestamp')}"
    f" AND s.series_id NOT IN ({GONE})"
)
FROM_HOURS = ADD_UP.format(
    pieces=f"SELECT r.series_id, {OF_ROLLUP} FROM rollup r WHERE r.hours = 1 AND r.start >= {WITHIN.format('r.start')}"
)

TANGLED = """
SELECT coalesce(bool_or(mixed), false) FROM (
    SELECT lag(r.last) OVER (PARTITION BY m.name, m.unit, x.resource_id ORDER BY r.first) >= r.first AS mixed
    FROM rollup r JOIN series x ON x.id = r.series_id JOIN meter m ON m.id = x.meter_id
    WHERE r.hours = %(hours)s AND r.start = %(start)s
) AS _
"""

GAPS = """
SELECT start, finish FROM (
    SELECT finish AS start, coalesce(lead(start) OVER (ORDER BY start, finish), 'infinity') AS finish
    FROM (
        SELECT start, start + make_interval(hours => hours) AS finish FROM {spans} AS span
        UNION ALL SELECT '-infinity', '-infinity'
    ) AS _
) AS gap WHERE start < finish
"""
"""The ranges of time before, between and after the hours and days in ``spans``, which do not overlap."""

UNSETTLED = f"""
SELECT date_trunc('hour', earliest.timestamp)
FROM ({GAPS.format(spans="(SELECT start, hours FROM settled WHERE hours = 1)")}) AS gap
CROSS JOIN LATERAL (
    SELECT s.timestamp FROM sample s
    WHERE s.timestamp >= greatest(gap.start, %(since)s) AND s.timestamp < least(gap.finish, %(until)s)
    ORDER BY s.timestamp LIMIT 1
) AS earliest
WHERE gap.finish > greatest(gap.start, %(since)s) AND gap.start < %(until)s
ORDER BY 1 LIMIT 1
"""
"""The first hour with samples that is not settled, from ``since`` until before ``until``."""

UNSETTLED_DAYS = """
SELECT DISTINCT date_trunc('day', h.start) FROM settled h
WHERE h.hours = 1 AND h.start < %s
AND NOT EXISTS (SELECT FROM settled d WHERE d.hours = 24 AND d.start = date_trunc('day', h.start))
ORDER BY 1
"""


def buckets(moments: Iterable[datetime]) -> list[int]:
    """Return the locks of the hours of ``moments``, in the order in which they must be taken."""
    return sorted({int(moment.timestamp() // 3600) % BUCKETS for moment in moments})


def start_of(moment: datetime, hours: int) -> datetime:
    """Return the start of the hour, or of the day, that ``moment`` lies in."""
    moment = moment.astimezone(UTC)
    return moment.replace(hour=0 if hours == DAY else moment.hour, minute=0, second=0, microsecond=0)


async def settle(session: Session, start: datetime, hours: int) -> bool:
    """Have rollups tell all samples of the ``hours`` from ``start``; return whether they do now.

    A day is told by its hours. While this goes on nobody can write samples of that time; whoever does so later finds
    the mark in ``settled`` and takes it away.
    """
    span = {"start": start, "hours": hours}
    locks = buckets(start + timedelta(hours=n) for n in range(hours))
    await session.rows(HOLD_ALONE, [locks])
    if await session.rows("SELECT FROM settled WHERE (hours, start) = (%(hours)s, %(start)s)", span):
        return True
    if hours == DAY:
        [[until]] = await session.rows("SELECT %(start)s::timestamptz + make_interval(hours => %(hours)s)", span)
        if await unsettled_hour(session, start, until) is not None:
            return False
    stale = "DELETE FROM rollup WHERE hours = %(hours)s AND start = %(start)s"
    await session.count(stale if hours == DAY else f"{stale} AND series_id NOT IN ({GONE})", span)
    await session.count(FROM_HOURS if hours == DAY else FROM_SAMPLES, span)
    await session.count(f"INSERT INTO settled (hours, start, tangled) VALUES (%(hours)s, %(start)s, ({TANGLED}))", span)
    return True


async def unsettled_hour(session: Session, since: datetime, until: datetime) -> datetime | None:
    """Return the first hour from ``since`` and before ``until`` that has samples and is not settled."""
    for [hour] in await session.rows(UNSETTLED, {"since": since, "until": until}):
        found: datetime = hour
        return found
    return None


async def unsettled_days(session: Session, until: datetime) -> list[datetime]:
    """Return the days before ``until`` that are not settled, though some of their hours are."""
    return [day for [day] in await session.rows(UNSETTLED_DAYS, [until])]


async def hold_all_hours(session: Session) -> None:
    """Wait until nobody writes, and keep everybody from writing until the end of the transaction."""
    await session.rows(HOLD_ALONE, [list(range(BUCKETS))])
