"""Rollups: partial aggregates (:mod:`meter.store.query.partials`) of the samples of an hour or a day, and when they are final.

A rollup covers a metadata run: consecutive samples of a series that have the same metadata, without a sample of another series
of the same meter and resource in between. Queries by metadata can therefore use it, and the rollups of a resource do not
overlap in time, whatever runs, sources or owners its samples have. Where metadata change more often than
:data:`MAX_METADATA_RUNS` in an hour, or series alternate more often than :data:`MAX_ALTERNATIONS`, one rollup covers the whole
hour of a series. Queries by metadata then read the samples, and so do increases between rollups that overlap in time with
those of other series: ``overlap`` marks them.

Owner rollups are rollups of a series without a resource: the totals of all resources with the same meter, user, project and
source. Queries that name no resource read these, however many resources there are. ``meter_totals`` are the totals of all owners
of a meter, for queries that name no owner either.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.store.cluster.visibility import ensure_all_visible
from meter.store.maintenance.minute_totals import make_minute_totals
from meter.store.postgres.pool import Session
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.query.access_paths import OWNER_SERIES
from meter.store.query.access_paths import ROLLUPS_BY_START
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.partials import GAPS
from meter.store.query.partials import INCREASE_BETWEEN
from meter.store.query.partials import PARTIAL_COLUMNS
from meter.store.query.partials import carried_hours
from meter.store.query.partials import overlaps
from meter.store.query.partials import partial_from_rollup
from meter.store.query.partials import partial_from_sample
from meter.store.query.sample_rows import OF_ANY_SERIES
from meter.store.query.sample_rows import sample_columns
from meter.store.query.sample_rows import samples_between
from meter.store.write.dimensions import SERIES_KEY

HOUR, DAY = 1, 24
"""The lengths of the periods that rollups cover, in hours."""

LOCKS = 0x6D657466
"""First key of the advisory locks of hours. Writers of samples share them; finalizing an hour takes its lock exclusively."""

HOUR_LOCKS = 64
"""Number of these locks. Hours share them, so that a batch with samples of many hours takes no more."""

LOCK_HOURS_SHARED = f"SELECT pg_advisory_xact_lock_shared({LOCKS}, lock) FROM unnest(%s::int[]) AS lock"
LOCK_HOURS_EXCLUSIVE = f"SELECT pg_advisory_xact_lock({LOCKS}, lock) FROM unnest(%s::int[]) AS lock"

MAX_METADATA_RUNS = 4
"""Metadata runs of a series in an hour. If metadata change more often, one rollup covers the hour."""

MAX_ALTERNATIONS = 12
"""Rollups of a series in an hour where samples of other series of its resource are in between. Beyond it, one covers the hour."""

MAX_SERIES_AGGREGATED_ALONE = 1000
"""Series whose rollups are made again without those of the others in the hour; for more, the whole hour is aggregated."""

COLUMNS = ", ".join(column for column in PARTIAL_COLUMNS if column != "tie")

EXPIRED_SERIES = """
SELECT x.id FROM retention_cutoff h
CROSS JOIN LATERAL (SELECT m.id FROM meter m WHERE m.name = h.meter OFFSET 0) AS m
CROSS JOIN LATERAL (SELECT x.id FROM series x WHERE x.meter_id = m.id OFFSET 0) AS x
WHERE h.before > %(start)s
UNION ALL SELECT id FROM series WHERE (SELECT max(before) FROM retention_cutoff WHERE meter = '') > %(start)s
"""
"""Series whose samples since ``start`` may have been deleted: their rollups are all that is left, and stay as they are.

The cutoffs come first, of which nearly always none is as late: other meters and series of the store are not read.
"""

COUNTERS = """
SELECT array_agg(id ORDER BY id) AS meters, array_agg(counter ORDER BY id) AS numbers
FROM (
    SELECT used.meter_id AS id, min(used.meter_id) OVER (PARTITION BY m.name) AS counter
    FROM (SELECT DISTINCT x.meter_id FROM (SELECT DISTINCT series_id FROM of_period) AS s JOIN series x ON x.id = s.series_id) AS used
    LEFT JOIN LATERAL (SELECT name FROM meter WHERE id = used.meter_id LIMIT 1) AS m ON true
) AS meter
"""
"""Maps the meters of ``of_period`` to counters: meters with the same name, which differ in their type or unit, are one counter.

It is one row with two arrays, searched by bisection: a join with many rows would be a nested loop where PostgreSQL expects few.
Other meters of the store are not read, however many there are.
"""

COUNTER = "counters.numbers[width_bucket(x.meter_id, counters.meters)]"
"""SQL: the counter of the series ``x``."""

AGGREGATE = f"""
WITH of_period AS MATERIALIZED ({{of_period}}), counters AS MATERIALIZED ({COUNTERS})
INSERT INTO rollup (start, hours, series_id, metadata_run, metadata_id, {COLUMNS}, overlap)
SELECT %(start)s, %(hours)s, series_id, metadata_run, metadata_id, {COLUMNS}, max(overlap) OVER (PARTITION BY series_id) FROM (
    SELECT aggregated.*, x.meter_id, CASE
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
            SELECT *, lag(last) OVER of_metadata_run AS before, lag(last_volume) OVER of_metadata_run AS volume_before,
                lead(first) OVER of_metadata_run AS next
            FROM (
                SELECT *, CASE WHEN max(run_no) OVER of_series > %(max_alternations)s
                    OR max(metadata_changes) OVER of_series >= %(max_metadata_runs)s
                    THEN 0 ELSE run_no END AS metadata_run
                FROM (
                    SELECT *, count(*) FILTER (WHERE run_starts) OVER in_order AS run_no,
                        count(*) FILTER (WHERE metadata_changed) OVER in_order AS metadata_changes
                    FROM (
                        SELECT *, metadata_id <> lag(metadata_id) OVER in_order AS metadata_changed,
                            series_id IS DISTINCT FROM lag(series_id) OVER of_resource
                            OR metadata_id <> lag(metadata_id) OVER of_resource AS run_starts
                        FROM ({{partials}}) AS partial
                        WINDOW in_order AS (PARTITION BY series_id ORDER BY first, run_of_hour, tie),
                            of_resource AS (PARTITION BY counter, resource_id ORDER BY first, run_of_hour, tie)
                    ) AS partial
                    WINDOW in_order AS (PARTITION BY series_id ORDER BY first, run_of_hour, tie)
                ) AS partial
                WINDOW of_series AS (PARTITION BY series_id)
            ) AS partial
            WINDOW of_metadata_run AS (PARTITION BY series_id, metadata_run ORDER BY first, run_of_hour, tie)
        ) AS partial
        GROUP BY series_id, metadata_run
    ) AS aggregated JOIN series x ON x.id = aggregated.series_id CROSS JOIN counters
    WINDOW of_run AS (PARTITION BY {COUNTER}, x.resource_id, x.run_kind, x.run_id ORDER BY aggregated.first),
        of_resource AS (PARTITION BY {COUNTER}, x.resource_id ORDER BY aggregated.first)
) AS aggregated
ORDER BY meter_id, series_id
"""
"""Aggregates partials into rollups. ``of_period``, the rows that partials are made of, is read once, for counters and partials.

Innermost first: mark where a metadata run starts, because metadata changed or another series has a sample of the resource;
number the runs; merge them to run 0 where there are too many; aggregate each run; and mark the rollups that overlap in time
with rollups of other series.

``overlap`` is the same for all rollups of a series in the period, so that a query reads all of its rollups or all of its samples.
Rows of a meter are inserted next to each other: most queries are about one meter.
"""

KEYS = f"{COUNTER} AS counter, x.resource_id, x.run_kind, x.polling_interval"

WITHIN = "%(start)s AND {} < %(start)s::timestamptz + make_interval(hours => %(hours)s)"

SAMPLE_COLUMNS = "s.series_id, s.metadata_id, s.timestamp, s.volume, s.message_id"
OF_PERIOD = TimeBounds(Sql("%(start)s::timestamptz"), Sql("%(start)s::timestamptz + make_interval(hours => %(hours)s)"))
SAMPLES_OF_PERIOD = (
    f"SELECT {SAMPLE_COLUMNS} FROM {samples_between(sample_columns(SAMPLE_COLUMNS), OF_PERIOD, plain=IN_ORDER_OF_TIME, packed=OF_ANY_SERIES)}"
    f" WHERE s.timestamp >= {WITHIN.format('s.timestamp')} AND s.series_id NOT IN ({EXPIRED_SERIES})"
)
PARTIALS_OF_SAMPLES = (
    f"SELECT s.series_id, s.metadata_id, 0 AS run_of_hour, {KEYS}, {partial_from_sample()}"
    " FROM of_period s JOIN series x ON x.id = s.series_id CROSS JOIN counters"
)
FROM_SAMPLES = AGGREGATE.format(of_period=SAMPLES_OF_PERIOD, partials=PARTIALS_OF_SAMPLES)

# OFFSET 0: only a few of the series of the store are concerned, and each is looked up in the index on series and time.
FROM_SAMPLES_OF_SERIES = AGGREGATE.format(
    of_period=f"SELECT s.* FROM unnest(%(series)s::integer[]) AS changed CROSS JOIN LATERAL (SELECT {SAMPLE_COLUMNS}"
    f" FROM {samples_between(sample_columns(SAMPLE_COLUMNS), OF_PERIOD, series='p.series_id = changed')}"
    f" WHERE s.series_id = changed AND s.timestamp >= {WITHIN.format('s.timestamp')} OFFSET 0) AS s",
    partials=PARTIALS_OF_SAMPLES,
)
"""The same for some series, which must be all series of their resources: rollups of one depend on samples of the others."""

HOURS_OF_PERIOD = f"SELECT r.* FROM rollup r WHERE {ROLLUPS_BY_START.format('r')} AND r.hours = 1 AND r.start >= {WITHIN.format('r.start')}"
FROM_HOURS = AGGREGATE.format(
    of_period=HOURS_OF_PERIOD,
    partials=f"SELECT r.series_id, r.metadata_id, r.metadata_run AS run_of_hour, {KEYS}, {partial_from_rollup()}"
    " FROM of_period r JOIN series x ON x.id = r.series_id CROSS JOIN counters WHERE x.resource_id > 0",
)

IN_PERIOD = f"{ROLLUPS_BY_START.format('r')} AND r.hours = %(hours)s AND r.start = %(start)s AND x.id = r.series_id"

# Existing series are filtered out first: an insert takes an id from the sequence even if the row exists.
OWNER_ROLLUPS = f"""
DELETE FROM rollup r USING series x WHERE {IN_PERIOD} AND x.resource_id = 0;
INSERT INTO series (meter_id, resource_id, user_id, project_id, source_id, retained_until)
SELECT x.meter_id, 0, x.user_id, x.project_id, x.source_id, x.retained_until
FROM (
    SELECT x.meter_id, x.user_id, x.project_id, x.source_id, max(x.retained_until) AS retained_until
    FROM rollup r, series x WHERE {IN_PERIOD}
    GROUP BY x.meter_id, x.user_id, x.project_id, x.source_id
) AS x LEFT JOIN {OWNER_SERIES} ON true
WHERE o.id IS NULL OR o.retained_until < x.retained_until
ORDER BY x.meter_id, x.user_id, x.project_id, x.source_id
ON CONFLICT ({SERIES_KEY})
DO UPDATE SET retained_until = greatest(series.retained_until, excluded.retained_until);
INSERT INTO rollup (start, hours, series_id, metadata_run, metadata_id, {COLUMNS}, overlap)
SELECT %(start)s, %(hours)s, o.id, 0, 0, first, last, count, min_volume, max_volume, sum_volume, squared_deviations, 0, 0, 0, 0, 0
FROM (
    SELECT x.meter_id, x.user_id, x.project_id, x.source_id, min(first) AS first, max(last) AS last, sum(count) AS count,
        min(min_volume) AS min_volume, max(max_volume) AS max_volume, sum(sum_volume) AS sum_volume,
        (merge_deviations(ARRAY[count, sum_volume, squared_deviations]))[3] AS squared_deviations
    FROM rollup r, series x WHERE {IN_PERIOD}
    GROUP BY x.meter_id, x.user_id, x.project_id, x.source_id
) AS x CROSS JOIN {OWNER_SERIES}
ORDER BY x.meter_id, o.id
"""
"""Replaces the owner rollups of an hour or a day by the totals of its other rollups, without increase and integral: these are
between samples of one resource."""

# OFFSET 0: a period may have a hundred times as many rollups as owner rollups, which are found by their series.
METER_TOTALS = """
DELETE FROM meter_totals WHERE hours = %(hours)s AND start = %(start)s;
INSERT INTO meter_totals (hours, meter_id, start, first, last, count, min_volume, max_volume, sum_volume, squared_deviations)
SELECT %(hours)s, x.meter_id, %(start)s, min(first), max(last), sum(count), min(min_volume), max(max_volume), sum(sum_volume),
    (merge_deviations(ARRAY[count, sum_volume, squared_deviations]))[3]
FROM series x CROSS JOIN LATERAL (
    SELECT r.* FROM rollup r WHERE r.hours = %(hours)s AND r.series_id = x.id AND r.start = %(start)s OFFSET 0
) AS r
WHERE x.resource_id = 0
GROUP BY x.meter_id ORDER BY x.meter_id
"""
"""Replaces the totals of the meters in an hour or a day by those of its owner rollups."""

SERIES_TO_AGGREGATE = f"""
SELECT (SELECT array_agg(id) FROM (
    SELECT x.id FROM series x WHERE x.resource_id IN (
        SELECT changed.resource_id FROM changed_series t JOIN series changed ON changed.id = t.series_id WHERE t.start = %(start)s
    ) AND x.id NOT IN ({EXPIRED_SERIES}) LIMIT {MAX_SERIES_AGGREGATED_ALONE} + 1
) AS x)
FROM changed_series WHERE start = %(start)s LIMIT 1
"""
"""All series of the resources whose samples changed since an hour was final; no row if the hour never was."""

# Before the mark is deleted: one that another transaction is deleting is still visible, or what that one has noted is.
NOTE_SERIES = """
INSERT INTO changed_series (start, series_id)
SELECT changed.start, changed.series_id
FROM (SELECT DISTINCT date_trunc('hour', timestamp, 'UTC') AS start, series_id FROM chosen WHERE problem IS NULL) AS changed
WHERE EXISTS (SELECT FROM final_period p WHERE p.hours = 1 AND p.start = changed.start)
    OR EXISTS (SELECT FROM changed_series t WHERE t.start = changed.start)
ORDER BY 1, 2
ON CONFLICT DO NOTHING
"""
"""Notes that the rollups of the series of the table ``chosen`` have to be made again, in hours that are final, or were and have changed since."""

_EARLIEST_OF_GAP = alternative(
    f"""
    SELECT s.timestamp FROM sample s
    WHERE {IN_ORDER_OF_TIME} AND s.timestamp >= greatest(gap.start, %(since)s) AND s.timestamp < least(gap.finish, %(until)s)
    ORDER BY s.timestamp LIMIT 1
""",
    """
    SELECT s.timestamp
    FROM spread_samples_in_order(NULL, greatest(gap.start, %(since)s), least(gap.finish, %(until)s), true, 0, 1, false) s
    WHERE s.timestamp < least(gap.finish, %(until)s)
""",
)

NEXT_HOUR_TO_FINALIZE = f"""
SELECT date_trunc('hour', earliest.timestamp)
FROM ({GAPS.format(spans="(SELECT start, hours FROM final_period WHERE hours = 1)")}) AS gap
CROSS JOIN LATERAL ({_EARLIEST_OF_GAP}) AS earliest
WHERE gap.finish > greatest(gap.start, %(since)s) AND gap.start < %(until)s
UNION ALL (
    SELECT t.start FROM changed_series t
    WHERE t.start >= %(since)s AND t.start < %(until)s AND NOT EXISTS (SELECT FROM final_period p WHERE p.hours = 1 AND p.start = t.start)
        AND EXISTS (SELECT FROM packed_week w WHERE w.week = date_trunc('week', t.start AT TIME ZONE 'UTC')::date)
    ORDER BY 1 LIMIT 1
)
ORDER BY 1 LIMIT 1
"""
"""The first hour from ``since`` and before ``until`` that has samples and is not final.

The hours of a week were final when it was packed. One that has changed since may have no other samples than packed ones.
"""

DAYS_TO_FINALIZE = """
SELECT DISTINCT date_trunc('day', h.start) FROM final_period h
WHERE h.hours = 1 AND h.start < %s
AND NOT EXISTS (SELECT FROM final_period d WHERE d.hours = 24 AND d.start = date_trunc('day', h.start))
ORDER BY 1
"""


FORGET_SUMMARIES = """
DELETE FROM completeness_day WHERE level = 0 AND start = date_trunc('day', %(start)s::timestamptz, 'UTC');
DELETE FROM completeness_hour WHERE level = 0 AND start = %(start)s
"""
"""Makes the completeness of the hour and of its day invalid: it was summarized before these samples were final."""


def hour_locks(timestamps: Iterable[datetime]) -> list[int]:
    """Return the second keys of the locks of the hours of ``timestamps``, in the order in which they must be taken."""
    return sorted({hour_lock(timestamp) for timestamp in timestamps})


def hour_lock(timestamp: datetime) -> int:
    """Return the second key of the lock of the hour of ``timestamp``."""
    return int(timestamp.timestamp() // 3600) % HOUR_LOCKS


def start_of(timestamp: datetime, hours: int) -> datetime:
    """Return the start, in UTC, of the hour or the day of ``timestamp``; ``hours`` is :data:`HOUR` or :data:`DAY`."""
    timestamp = timestamp.astimezone(UTC)
    return timestamp.replace(hour=0 if hours == DAY else timestamp.hour, minute=0, second=0, microsecond=0)


async def finalize(session: Session, start: datetime, hours: int) -> bool:
    """Make the rollups of the ``hours`` from ``start`` and mark the period as final; return whether it is final now.

    A day is aggregated from its hours, and is not final before these. Samples of the period cannot be written until the
    transaction ends. A sample that is written later finds the mark in ``final_period``, deletes it and notes its series in
    ``changed_series``: of an hour that was final, only the rollups of the resources that changed are made again.
    """
    period = {
        "start": start,
        "hours": hours,
        "max_metadata_runs": MAX_METADATA_RUNS * hours,
        "max_alternations": MAX_ALTERNATIONS * hours,
    }
    await session.rows(LOCK_HOURS_EXCLUSIVE, [hour_locks(start + timedelta(hours=n) for n in range(hours))])
    if await session.rows("SELECT FROM final_period WHERE (hours, start) = (%(hours)s, %(start)s)", period):
        return True
    if session.spread:
        await ensure_all_visible(session.rows)
    if hours == DAY:
        [[until]] = await session.rows("SELECT %(start)s::timestamptz + make_interval(hours => %(hours)s)", period)
        if await next_hour_to_finalize(session, start, until) is not None:
            return False
    stale = f"DELETE FROM rollup WHERE {ROLLUPS_BY_START.format('rollup')} AND hours = %(hours)s AND start = %(start)s"
    series = await _series_to_aggregate(session, period) if hours == HOUR else None
    if hours == DAY:
        await session.count(stale, period)
        await session.count(FROM_HOURS, period)
    elif series is not None:
        of_series = {**period, "series": series}
        await session.count(f"{stale} AND series_id = ANY(%(series)s)", of_series)
        await session.count(FROM_SAMPLES_OF_SERIES, of_series)
    else:
        await session.count(f"{stale} AND series_id NOT IN ({EXPIRED_SERIES})", period)
        await session.count(FROM_SAMPLES, period)
    if hours == HOUR:
        await session.count("DELETE FROM changed_series WHERE start = %(start)s", period)
    await session.count(OWNER_ROLLUPS, period)
    await session.count(METER_TOTALS, period)
    if hours == HOUR:
        await make_minute_totals(session, period, series)
    await session.count(
        "INSERT INTO final_period (hours, start, with_meter_totals) VALUES (%(hours)s, %(start)s, true)", period
    )
    await session.count(FORGET_SUMMARIES, period)
    return True


async def _series_to_aggregate(session: Session, period: Mapping[str, Any]) -> list[int] | None:
    """Return the series whose rollups of an hour have to be made; ``None`` for all."""
    for [series] in await session.rows(SERIES_TO_AGGREGATE, period):
        ids: list[int] = series or []
        return ids if len(ids) <= MAX_SERIES_AGGREGATED_ALONE else None
    return None


async def next_hour_to_finalize(session: Session, since: datetime, until: datetime) -> datetime | None:
    """Return the first hour from ``since`` and before ``until`` that has samples and is not final."""
    for [hour] in await session.rows(NEXT_HOUR_TO_FINALIZE, {"since": since, "until": until}):
        found: datetime = hour
        return found
    return None


async def days_to_finalize(session: Session, until: datetime) -> list[datetime]:
    """Return the days before ``until`` that are not final, and of which at least one hour is."""
    return [day for [day] in await session.rows(DAYS_TO_FINALIZE, [until])]


async def lock_all_hours(session: Session) -> None:
    """Wait until no transaction is writing samples and all that were written are visible; block writers until the end of this transaction."""
    await session.rows(LOCK_HOURS_EXCLUSIVE, [list(range(HOUR_LOCKS))])
    if session.spread:
        await ensure_all_visible(session.rows)
