"""Rollups: pieces (:mod:`meter.store.query.partials`) that tell hours and days, kept so that they tell all samples of that time.

A rollup tells a metadata_run: samples of a series that have the same metadata and follow one another, without one of another
series of the same meter, unit and resource in between. So it can tell what metadata are asked about, and the rollups of a
resource follow one another, whatever runs, sources or owners its samples are of. Where metadata change more often than
:data:`MOST_METADATA_RUNS` in an hour, or series alternate more often than :data:`MOST_ALTERNATIONS`, one rollup tells the
whole hour of a series. Its metadata are known to the samples only, and where it overlaps with those of other series, so
are the steps between them: ``overlap`` says so.

Totals are rollups too, of a series without resource: what all resources amount to that a meter, a user, a project and a
source have in common. What is asked about no resource in particular is told by them, however many resources there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from datetime import datetime
from datetime import timedelta

from meter.store.postgres.pool import Session
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.query.access_paths import ROLLUPS_BY_START
from meter.store.query.partials import GAPS
from meter.store.query.partials import INCREASE_BETWEEN
from meter.store.query.partials import PIECE
from meter.store.query.partials import carried_hours
from meter.store.query.partials import overlaps
from meter.store.query.partials import partial_from_rollup
from meter.store.query.partials import partial_from_sample
from meter.store.write.dimensions import SERIES_KEY

HOUR, DAY = 1, 24
"""How many hours a rollup may tell."""

LOCKS = 0x6D657466
"""First key of the advisory locks that writers share with each other, and with nobody who settles."""

BUCKETS = 64
"""An hour's lock is one of so many: a batch from all over time takes no more."""

HOLD = f"SELECT pg_advisory_xact_lock_shared({LOCKS}, bucket) FROM unnest(%s::int[]) AS bucket"
HOLD_ALONE = f"SELECT pg_advisory_xact_lock({LOCKS}, bucket) FROM unnest(%s::int[]) AS bucket"

MOST_METADATA_RUNS = 4
"""So many metadata may follow one another in an hour of a series. If they change with each sample, each had a rollup."""

MOST_ALTERNATIONS = 12
"""Into so many rollups an hour of a series may fall where samples of other series of its resource lie in between."""

COLUMNS = ", ".join(column for column in PIECE if column != "tie")

GONE = (
    "SELECT x.id FROM series x JOIN meter m ON m.id = x.meter_id JOIN retention_cutoff h ON h.meter IN (m.name, '')"
    " WHERE h.before > %(start)s"
)
"""Series whose samples since ``start`` may have been let go: what their rollups tell is all there is."""

COUNTERS = """
SELECT ARRAY(
    SELECT coalesce(m.counter, 0)
    FROM generate_series(1, (SELECT max(id) FROM meter)) AS n
    LEFT JOIN (SELECT id, min(id) OVER (PARTITION BY name, unit) AS counter FROM meter) AS m ON m.id = n
    ORDER BY n
) AS by_meter
"""
"""Meters with the same counter differ in their type only: steps lead from one to the other.

One row, an array by the id of the meter: a join with many rows would be a nested loop where PostgreSQL expects few.
"""

ADD_UP = f"""
WITH counters AS MATERIALIZED ({COUNTERS})
INSERT INTO rollup (start, hours, series_id, metadata_run, metadata_id, {COLUMNS}, overlap)
SELECT %(start)s, %(hours)s, series_id, metadata_run, metadata_id, {COLUMNS}, max(overlap) OVER (PARTITION BY series_id) FROM (
    SELECT added.*, x.meter_id, CASE
        WHEN {overlaps("of_run")} THEN 2
        WHEN {overlaps("of_resource")} THEN 1 ELSE 0 END AS overlap
    FROM (
        SELECT series_id, metadata_run, CASE WHEN metadata_run = 0 THEN 0 ELSE min(metadata_id) END AS metadata_id,
            min(first) AS first, max(last) AS last, sum(count) AS count, min(min_volume) AS min_volume, max(max_volume) AS max_volume,
            sum(sum_volume) AS sum_volume, (merge_deviations(ARRAY[count, sum_volume, squared_deviations]))[3] AS squared_deviations,
            min(first_volume) FILTER (WHERE before IS NULL) AS first_volume,
            min(last_volume) FILTER (WHERE next IS NULL) AS last_volume,
            sum(increase) + coalesce(sum({INCREASE_BETWEEN}), 0) AS increase,
            sum(integral) + coalesce(sum(volume_before * {carried_hours("first - before", within_run="true")}), 0) AS integral
        FROM (
            SELECT *, lag(last) OVER step AS before, lag(last_volume) OVER step AS volume_before,
                lead(first) OVER step AS next
            FROM (
                SELECT *, CASE WHEN max(turn) OVER whole > %(alternations)s OR max(changes) OVER whole >= %(stretches)s
                    THEN 0 ELSE turn END AS metadata_run
                FROM (
                    SELECT *, count(*) FILTER (WHERE broken) OVER of_series AS turn,
                        count(*) FILTER (WHERE changed) OVER of_series AS changes
                    FROM (
                        SELECT *, metadata_id <> lag(metadata_id) OVER of_series AS changed,
                            series_id IS DISTINCT FROM lag(series_id) OVER of_resource
                            OR metadata_id <> lag(metadata_id) OVER of_resource AS broken
                        FROM ({{pieces}}) AS piece
                        WINDOW of_series AS (PARTITION BY series_id ORDER BY first, place, tie),
                            of_resource AS (PARTITION BY counter, resource_id ORDER BY first, place, tie)
                    ) AS piece
                    WINDOW of_series AS (PARTITION BY series_id ORDER BY first, place, tie)
                ) AS piece
                WINDOW whole AS (PARTITION BY series_id)
            ) AS piece
            WINDOW step AS (PARTITION BY series_id, metadata_run ORDER BY first, place, tie)
        ) AS piece
        GROUP BY series_id, metadata_run
    ) AS added JOIN series x ON x.id = added.series_id CROSS JOIN counters
    WINDOW of_run AS (PARTITION BY counters.by_meter[x.meter_id], x.resource_id, x.run_kind, x.run_id ORDER BY added.first),
        of_resource AS (PARTITION BY counters.by_meter[x.meter_id], x.resource_id ORDER BY added.first)
) AS added
ORDER BY meter_id, series_id
"""
"""From the inside: where a metadata_run ends, because metadata changed or another series has a sample of the resource; how many
there are until then; the steps within each; and whether what they make overlaps with the rollups of other series.

Whether rollups overlap is said of all of a series in this time: its samples tell all of them or none. Rows of a meter lie
beside one another: most questions are about one.
"""

KEYS = "counters.by_meter[x.meter_id] AS counter, x.resource_id, x.run_kind, x.polling_interval"

WITHIN = "%(start)s AND {} < %(start)s::timestamptz + make_interval(hours => %(hours)s)"

FROM_SAMPLES = ADD_UP.format(
    pieces=f"SELECT s.series_id, s.metadata_id, 0 AS place, {KEYS}, {partial_from_sample()}"
    " FROM sample s JOIN series x ON x.id = s.series_id CROSS JOIN counters"
    f" WHERE {IN_ORDER_OF_TIME} AND s.timestamp >= {WITHIN.format('s.timestamp')}"
    f" AND s.series_id NOT IN ({GONE})"
)
FROM_HOURS = ADD_UP.format(
    pieces=f"SELECT r.series_id, r.metadata_id, r.metadata_run AS place, {KEYS}, {partial_from_rollup()}"
    " FROM rollup r JOIN series x ON x.id = r.series_id CROSS JOIN counters"
    f" WHERE {ROLLUPS_BY_START.format('r')} AND r.hours = 1 AND r.start >= {WITHIN.format('r.start')} AND x.resource_id > 0"
)

OF_SPAN = f"{ROLLUPS_BY_START.format('r')} AND r.hours = %(hours)s AND r.start = %(start)s AND x.id = r.series_id"

SAME_OWNER = (
    "(o.meter_id, o.resource_id, o.user_id, o.project_id, o.source_id, o.run_kind, o.run_id, o.polling_interval)"
    " = (x.meter_id, 0, x.user_id, x.project_id, x.source_id, 0, 0, 0)"
)

# What is there already is not tried: trying to insert a row takes a number even if there is one.
TOTAL = f"""
DELETE FROM rollup r USING series x WHERE {OF_SPAN} AND x.resource_id = 0;
INSERT INTO series (meter_id, resource_id, user_id, project_id, source_id, retained_until)
SELECT x.meter_id, 0, x.user_id, x.project_id, x.source_id, max(x.retained_until)
FROM rollup r, series x
WHERE {OF_SPAN} AND NOT EXISTS (SELECT FROM series o WHERE {SAME_OWNER} AND o.retained_until >= x.retained_until)
GROUP BY x.meter_id, x.user_id, x.project_id, x.source_id
ORDER BY x.meter_id, x.user_id, x.project_id, x.source_id
ON CONFLICT ({SERIES_KEY})
DO UPDATE SET retained_until = greatest(series.retained_until, excluded.retained_until);
INSERT INTO rollup (start, hours, series_id, metadata_run, metadata_id, {COLUMNS}, overlap)
SELECT %(start)s, %(hours)s, o.id, 0, 0, min(first), max(last), sum(count), min(min_volume), max(max_volume), sum(sum_volume),
    (merge_deviations(ARRAY[count, sum_volume, squared_deviations]))[3], 0, 0, 0, 0, 0
FROM rollup r, series x JOIN series o ON {SAME_OWNER}
WHERE {OF_SPAN}
GROUP BY o.id ORDER BY o.meter_id, o.id
"""
"""Make the totals of an hour or a day of its other rollups. They tell nothing of steps, which lead within a resource."""

NEXT_HOUR_TO_FINALIZE = f"""
SELECT date_trunc('hour', earliest.timestamp)
FROM ({GAPS.format(spans="(SELECT start, hours FROM final_period WHERE hours = 1)")}) AS gap
CROSS JOIN LATERAL (
    SELECT s.timestamp FROM sample s
    WHERE {IN_ORDER_OF_TIME} AND s.timestamp >= greatest(gap.start, %(since)s) AND s.timestamp < least(gap.finish, %(until)s)
    ORDER BY s.timestamp LIMIT 1
) AS earliest
WHERE gap.finish > greatest(gap.start, %(since)s) AND gap.start < %(until)s
ORDER BY 1 LIMIT 1
"""
"""The first hour with samples that is not settled, from ``since`` until before ``until``."""

DAYS_TO_FINALIZE = """
SELECT DISTINCT date_trunc('day', h.start) FROM final_period h
WHERE h.hours = 1 AND h.start < %s
AND NOT EXISTS (SELECT FROM final_period d WHERE d.hours = 24 AND d.start = date_trunc('day', h.start))
ORDER BY 1
"""


def buckets(moments: Iterable[datetime]) -> list[int]:
    """Return the locks of the hours of ``moments``, in the order in which they must be taken."""
    return sorted({int(moment.timestamp() // 3600) % BUCKETS for moment in moments})


def start_of(moment: datetime, hours: int) -> datetime:
    """Return the start of the hour, or of the day, that ``moment`` lies in."""
    moment = moment.astimezone(UTC)
    return moment.replace(hour=0 if hours == DAY else moment.hour, minute=0, second=0, microsecond=0)


async def finalize(session: Session, start: datetime, hours: int) -> bool:
    """Have rollups tell all samples of the ``hours`` from ``start``; return whether they do now.

    A day is told by its hours. While this goes on nobody can write samples of that time; whoever does so later finds
    the mark in ``settled`` and takes it away.
    """
    span = {
        "start": start,
        "hours": hours,
        "stretches": MOST_METADATA_RUNS * hours,
        "alternations": MOST_ALTERNATIONS * hours,
    }
    locks = buckets(start + timedelta(hours=n) for n in range(hours))
    await session.rows(HOLD_ALONE, [locks])
    if await session.rows("SELECT FROM final_period WHERE (hours, start) = (%(hours)s, %(start)s)", span):
        return True
    if hours == DAY:
        [[until]] = await session.rows("SELECT %(start)s::timestamptz + make_interval(hours => %(hours)s)", span)
        if await next_hour_to_finalize(session, start, until) is not None:
            return False
    stale = f"DELETE FROM rollup WHERE {ROLLUPS_BY_START.format('rollup')} AND hours = %(hours)s AND start = %(start)s"
    await session.count(stale if hours == DAY else f"{stale} AND series_id NOT IN ({GONE})", span)
    await session.count(FROM_HOURS if hours == DAY else FROM_SAMPLES, span)
    await session.count(TOTAL, span)
    await session.count("INSERT INTO final_period (hours, start) VALUES (%(hours)s, %(start)s)", span)
    return True


async def next_hour_to_finalize(session: Session, since: datetime, until: datetime) -> datetime | None:
    """Return the first hour from ``since`` and before ``until`` that has samples and is not settled."""
    for [hour] in await session.rows(NEXT_HOUR_TO_FINALIZE, {"since": since, "until": until}):
        found: datetime = hour
        return found
    return None


async def days_to_finalize(session: Session, until: datetime) -> list[datetime]:
    """Return the days before ``until`` that are not settled, though some of their hours are."""
    return [day for [day] in await session.rows(DAYS_TO_FINALIZE, [until])]


async def hold_all_hours(session: Session) -> None:
    """Wait until nobody writes, and keep everybody from writing until the end of the transaction."""
    await session.rows(HOLD_ALONE, [list(range(BUCKETS))])
