"""Totals by minute: aggregates of the samples of each minute of a final hour, of an owner and of a whole meter.

Questions whose windows or ends cut hours read these in place of samples (:mod:`meter.store.query.minute_totals`). They are made
together with the rollups of an hour, for the owners of rollups without a resource and for each meter, where at least
:data:`MIN_SAMPLES_PER_MINUTE` samples are in a minute that has any: of fewer, the samples themselves are as cheap to read.

An hour that is finalized again has them made again of the meters that changed, if these have at most
:data:`MAX_SAMPLES_AGGREGATED_AGAIN` samples in that hour. Of more, the totals that changed are deleted: a late sample, which a
tenant may send, does not make a collector aggregate the samples of all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from meter.store.postgres.pool import Session
from meter.store.postgres.sql import Sql
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.query.access_paths import OWNER_SERIES
from meter.store.query.access_paths import ROLLUPS_BY_START
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.sample_rows import OF_ANY_SERIES
from meter.store.query.sample_rows import samples_between

RETAINED_DAYS = 31
"""Totals are made and retained of the newest hours: a month is what bills and reports ask about. Older questions read samples."""

MIN_SAMPLES_PER_MINUTE = 4
"""On the average of the minutes of an hour that have samples: reading a total takes about as long as reading so many samples."""

MAX_SAMPLES_AGGREGATED_AGAIN = 20_000
"""Samples of a meter in an hour whose totals are made again after a late sample: a few hundredths of a second of work."""

IS_RECENT = f"%(start)s::timestamptz > now() - make_interval(days => {RETAINED_DAYS})"

MAKE = """
WITH minute AS MATERIALIZED (
    SELECT x.meter_id, x.user_id, x.project_id, x.source_id, min(s.timestamp) AS first, max(s.timestamp) AS last, count(*) AS count,
        min(s.volume) AS min_volume, max(s.volume) AS max_volume, sum(s.volume) AS sum_volume,
        var_pop(s.volume) * count(*) AS squared_deviations
    FROM ({samples}) AS s JOIN series x ON x.id = s.series_id
    GROUP BY x.meter_id, x.user_id, x.project_id, x.source_id, date_trunc('minute', s.timestamp)
), of_meter AS (
    SELECT meter_id, min(first) AS first, max(last) AS last, sum(count) AS count, min(min_volume) AS min_volume,
        max(max_volume) AS max_volume, sum(sum_volume) AS sum_volume,
        (merge_deviations(ARRAY[count, sum_volume, squared_deviations]))[3] AS squared_deviations
    FROM minute GROUP BY meter_id, date_trunc('minute', first)
), total AS (
    SELECT meter_id, 0 AS series_id, {arrays} FROM of_meter GROUP BY meter_id HAVING {is_worthwhile}
    UNION ALL
    SELECT x.meter_id, o.id, first, last, count, min_volume, max_volume, sum_volume, squared_deviations
    FROM (
        SELECT meter_id, user_id, project_id, source_id, {arrays} FROM minute
        GROUP BY meter_id, user_id, project_id, source_id HAVING {is_worthwhile}
    ) AS x
    CROSS JOIN {owner_series}
)
INSERT INTO minute_totals
    (start, meter_id, series_id, first, last, count, min_volume, max_volume, sum_volume, squared_deviations)
SELECT %(start)s, total.* FROM total ORDER BY meter_id, series_id
"""
"""Makes the totals of an hour from ``samples``. The rows of the array aggregates come in one order, so that elements belong together."""

ARRAYS = ", ".join(
    f"array_agg({column}{'::integer' if column == 'count' else ''}) AS {column}"
    for column in ("first", "last", "count", "min_volume", "max_volume", "sum_volume", "squared_deviations")
)
IS_WORTHWHILE = "sum(count) >= %(min_samples_per_minute)s * count(*)"

WITHIN_HOUR = "s.timestamp >= %(start)s AND s.timestamp < %(start)s::timestamptz + interval '1 hour'"

OF_HOUR_BOUNDS = TimeBounds(Sql("%(start)s::timestamptz"), Sql("%(start)s::timestamptz + interval '1 hour'"))
COLUMNS = ("timestamp", "volume", "series_id")
SAMPLES = samples_between(COLUMNS, OF_HOUR_BOUNDS, plain=IN_ORDER_OF_TIME, packed=OF_ANY_SERIES)
SAMPLES_OF_SERIES = samples_between(COLUMNS, OF_HOUR_BOUNDS, series="p.series_id = x.id")

MAKE_OF_HOUR = MAKE.format(
    samples=f"SELECT s.series_id, s.timestamp, s.volume FROM {SAMPLES} WHERE {WITHIN_HOUR}",
    arrays=ARRAYS,
    is_worthwhile=IS_WORTHWHILE,
    owner_series=OWNER_SERIES,
)

# The rollups of the hour, which have been made before, name its series.
OF_HOUR = f"{ROLLUPS_BY_START.format('r')} AND r.hours = 1 AND r.start = %(start)s"
MAKE_OF_METERS = MAKE.format(
    samples=f"""
        SELECT s.* FROM (
            SELECT DISTINCT x.id FROM rollup r JOIN series x ON x.id = r.series_id
            WHERE {OF_HOUR} AND x.resource_id > 0 AND x.meter_id = ANY(%(meters)s)
        ) AS x CROSS JOIN LATERAL (
            SELECT s.series_id, s.timestamp, s.volume FROM {SAMPLES_OF_SERIES} WHERE s.series_id = x.id AND {WITHIN_HOUR} OFFSET 0
        ) AS s
        OFFSET 0""",
    arrays=ARRAYS,
    is_worthwhile=IS_WORTHWHILE,
    owner_series=OWNER_SERIES,
)

CHANGED_METERS = """
SELECT x.meter_id, sum(r.count) <= %(max_samples)s
FROM (SELECT DISTINCT meter_id FROM series WHERE id = ANY(%(series)s)) AS changed
JOIN series x ON x.meter_id = changed.meter_id AND x.resource_id = 0
JOIN rollup r ON r.series_id = x.id AND r.hours = 1 AND r.start = %(start)s
GROUP BY x.meter_id
"""
"""The meters of the changed series, and whether they have so few samples in the hour that their totals are made again."""

DELETE_OF_HOUR = "DELETE FROM minute_totals WHERE start = %(start)s"
DELETE_OF_METERS = f"{DELETE_OF_HOUR} AND meter_id = ANY(%(meters)s)"
# Each total is looked up by its key (OFFSET 0): PostgreSQL would compare all totals of the hour with all changed series.
DELETE_OF_SERIES = f"""
DELETE FROM minute_totals WHERE ctid = ANY(ARRAY(
    SELECT DISTINCT total.ctid
    FROM (
        SELECT DISTINCT x.meter_id, x.user_id, x.project_id, x.source_id
        FROM unnest(%(series)s::integer[]) AS changed CROSS JOIN LATERAL (SELECT * FROM series WHERE id = changed OFFSET 0) AS x
        OFFSET 0
    ) AS x
    LEFT JOIN {OWNER_SERIES} ON true
    CROSS JOIN (VALUES (true), (false)) AS all_owners (included)
    CROSS JOIN LATERAL (
        SELECT t.ctid FROM minute_totals t
        WHERE t.meter_id = x.meter_id AND t.series_id = CASE WHEN included THEN 0 ELSE o.id END AND t.start = %(start)s
        OFFSET 0
    ) AS total
))
"""
"""Deletes the totals of the meters of the changed series, and of their owners; nobody else changes those of the hour meanwhile."""

DELETE_OLD = f"DELETE FROM minute_totals WHERE start < %s::timestamptz - make_interval(days => {RETAINED_DAYS})"


async def make_minute_totals(session: Session, period: Mapping[str, Any], changed: Sequence[int] | None) -> None:
    """Make the totals of the hour ``start`` of ``period``, whose rollups have been made in the same transaction.

    ``changed`` are the series whose rollups were made again; ``None`` if those of the whole hour were.
    """
    period = {**period, "min_samples_per_minute": MIN_SAMPLES_PER_MINUTE}
    if changed is None:
        await session.count(DELETE_OF_HOUR, period)
        if (await session.rows(f"SELECT {IS_RECENT}", period))[0][0]:
            await session.count(MAKE_OF_HOUR, period)
        return
    of_series = {**period, "series": list(changed), "max_samples": MAX_SAMPLES_AGGREGATED_AGAIN}
    await session.count(DELETE_OF_SERIES, of_series)
    if (await session.rows(f"SELECT {IS_RECENT}", period))[0][0]:
        meters = [meter for meter, is_small in await session.rows(CHANGED_METERS, of_series) if is_small]
        of_meters = {**period, "meters": meters}
        await session.count(DELETE_OF_METERS, of_meters)
        await session.count(MAKE_OF_METERS, of_meters)


async def delete_old_minute_totals(session: Session, now: datetime) -> None:
    """Delete the totals that are older than :data:`RETAINED_DAYS`."""
    await session.count(DELETE_OLD, [now])
