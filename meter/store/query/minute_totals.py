"""SQL that reads totals by minute in place of the samples of final hours that a window or an end of the range cuts.

They are read of queries that name no resource and no metadata: of a whole meter, or of its owners where the query selects or
groups by these. Where a minute itself is cut between its first and last sample, and where there are no totals, samples are read.
:mod:`meter.store.maintenance.minute_totals` makes them.
"""

from __future__ import annotations

from collections.abc import Iterable

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import OWNER_SERIES
from meter.store.query.conditions import conjunction
from meter.store.query.partials import COVERED
from meter.store.query.time_range import TimeRange
from meter.store.query.windows import Windows

HOUR_END = "p.start + interval '1 hour'"

# Final hours that are not read as rollups, from the oldest totals on.
CUT_HOURS = """
SELECT p.start, p.hours, p.with_meter_totals FROM final_period p
WHERE p.hours = 1 AND {hour_in_range} AND p.start >= (SELECT min(start) FROM minute_totals)
    AND p.start NOT IN (SELECT start FROM period WHERE hours = 1)
    AND date_trunc('day', p.start) NOT IN (SELECT start FROM period WHERE hours = 24)
"""

SERIES_OF_METERS = """
SELECT {keys}, x.meter_id, 0 AS owner_id, array_agg(x.id) AS ids
FROM {sampled} x JOIN meter m ON m.id = x.meter_id
GROUP BY {key_expressions}, x.meter_id
"""

# An owner without rollups has no totals either: the id -1 has no rows.
SERIES_OF_OWNERS = f"""
SELECT {{keys}}, x.meter_id, coalesce(o.id, -1) AS owner_id, array_agg(x.id) AS ids
FROM {{sampled}} x JOIN meter m ON m.id = x.meter_id
LEFT JOIN {OWNER_SERIES} ON true
GROUP BY {{key_expressions}}, x.meter_id, o.id
"""

# A minute is whole if its first and last sample lie in one window and in the range: the whole minutes of an hour and window are one
# row of minute, and each other one is a row of its own. sampled_span has the times, ends included, of which samples are read.
MINUTES = """, total_series AS MATERIALIZED (
    SELECT row_number() OVER () AS n, total_series.*, cutoff.before
    FROM ({total_series}) AS total_series LEFT JOIN cutoff ON cutoff.meter_id = total_series.meter_id
), cut_range AS MATERIALIZED ({cut_ranges}), minute AS MATERIALIZED (
    SELECT total_series.n, t.*
    FROM cut_range CROSS JOIN total_series CROSS JOIN LATERAL (
        SELECT start, whole, {aggregates}
        FROM (
            SELECT t.*, {is_whole} AS whole, {window} AS window_start
            FROM (
                SELECT t.start, {elements}
                FROM minute_totals t
                WHERE t.meter_id = total_series.meter_id AND t.series_id = total_series.owner_id
                    AND t.start >= greatest(cut_range.start, total_series.before) AND t.start < cut_range.finish
                OFFSET 0
            ) AS t
            OFFSET 0
        ) AS t
        GROUP BY start, whole, window_start, CASE WHEN NOT whole THEN first END
        OFFSET 0
    ) AS t
), sampled_span AS MATERIALIZED (
    SELECT n, first AS start, last AS finish FROM minute WHERE NOT whole AND {minute_in_range}
    UNION ALL
    SELECT n, min(start), max(start) + interval '1 hour' - interval '1 microsecond'
    FROM (
        SELECT n, start, row_number() OVER (PARTITION BY n ORDER BY start) AS hour
        FROM ({aggregated_hours} EXCEPT SELECT n, start FROM minute) AS _
    ) AS without_totals
    GROUP BY n, start - hour * interval '1 hour'
    ORDER BY n, start
)"""

# Hours without rollups of an owner have no samples of it. OFFSET 0 makes each look-up one walk along an index.
HOURS_OF_OWNERS = """
SELECT total_series.n, r.start
FROM cut_range CROSS JOIN total_series CROSS JOIN LATERAL (
    SELECT r.start FROM rollup r
    WHERE r.hours = 1 AND r.series_id = total_series.owner_id AND r.start >= cut_range.start AND r.start < cut_range.finish OFFSET 0
) AS r
"""

# The same of a meter, but for hours that were final before there were totals of meters.
HOURS_OF_METERS = """
SELECT total_series.n, r.start
FROM cut_range CROSS JOIN total_series CROSS JOIN LATERAL (
    SELECT r.start FROM meter_totals r
    WHERE r.hours = 1 AND r.meter_id = total_series.meter_id AND r.start >= cut_range.start AND r.start < cut_range.finish OFFSET 0
) AS r
UNION SELECT total_series.n, cut.start FROM cut CROSS JOIN total_series WHERE NOT cut.with_meter_totals
"""

FROM_MINUTES = """
UNION ALL
SELECT {names}, {minute_columns}
FROM minute JOIN total_series USING (n)
WHERE minute.whole
UNION ALL
{partials_of_span}
"""

AGGREGATES = {
    "first": "min(first)",
    "last": "max(last)",
    "count": "sum(count)",
    "min_volume": "min(min_volume)",
    "max_volume": "max(max_volume)",
    "sum_volume": "sum(sum_volume)",
    "squared_deviations": "(merge_deviations(ARRAY[count, sum_volume, squared_deviations]))[3]",
}
"""How the columns of the totals of several minutes merge to those of one."""


def cut_hours(time_range: TimeRange) -> Sql:
    """Return the statement whose rows are the final hours in the range that are not in ``period``."""
    return filled(f", cut AS MATERIALIZED ({CUT_HOURS})", hour_in_range=time_range.overlaps_span("p.start", HOUR_END))


def minute_tables(
    series: Sql, time_range: TimeRange, windows: Windows | None, columns: Iterable[str], *, by_owner: bool
) -> Sql:
    """Return the common table expressions from which :data:`FROM_MINUTES` reads."""
    in_range = time_range.contains_span("t.first", "t.last")
    elements = dict.fromkeys(["first", "last", *columns])
    return filled(
        MINUTES,
        total_series=series,
        aggregated_hours=HOURS_OF_OWNERS if by_owner else HOURS_OF_METERS,
        cut_ranges=COVERED.format(spans="cut"),
        is_whole=in_range if windows is None else conjunction(in_range, windows.contain("t.first", "t.last")),
        window="NULL::timestamptz" if windows is None else windows.of("t.first"),
        elements=", ".join(f"unnest(t.{column}) AS {column}" for column in elements),
        aggregates=", ".join(f"{AGGREGATES[column]} AS {column}" for column in elements),
        minute_in_range=time_range.overlaps_span("first", "last"),
    )
