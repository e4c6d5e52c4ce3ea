"""SQL that finds the time of the first sample: windows begin there where a question names no start."""

from __future__ import annotations

from meter.store.packing.packed_rows import overlaps
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.partials import GAPS
from meter.store.query.sample_rows import OF_ANY_SERIES
from meter.store.query.sample_rows import first_of_series

# The first rollup of each series that has not expired, and samples of the times before it that are not final and have any.
# OFFSET 0 makes each lookup one walk along an index.
FIRST_SAMPLE = """
WITH cutoff AS MATERIALIZED (
    SELECT m.id AS meter_id, max(c.before) AS before FROM retention_cutoff c JOIN meter m ON c.meter IN (m.name, '')
    GROUP BY m.id
), aggregated AS MATERIALIZED (
    SELECT coalesce(min(r.first), 'infinity') AS first
    FROM {rolled_up} x LEFT JOIN cutoff ON cutoff.meter_id = x.meter_id
    CROSS JOIN LATERAL (
        SELECT r.first FROM rollup r
        WHERE r.hours = 1 AND r.series_id = x.id AND r.start >= coalesce(cutoff.before, '-infinity')
            AND EXISTS (SELECT FROM final_period p WHERE p.hours = 1 AND p.start = r.start OFFSET 0)
        ORDER BY r.start, r.metadata_run LIMIT 1
    ) AS r
), sampled_gap AS MATERIALIZED (
    SELECT gap.start, least(gap.finish, aggregated.first) AS finish
    FROM aggregated CROSS JOIN LATERAL ({gaps}) AS gap
    WHERE gap.start < aggregated.first AND (EXISTS ({plain}) OR EXISTS (
        SELECT FROM packed_samples p WHERE {of_any_series} AND {overlaps} OFFSET 0
    ))
)
SELECT nullif(least(aggregated.first, (
    SELECT min(s.timestamp)
    FROM sampled_gap CROSS JOIN {sampled} x LEFT JOIN cutoff ON cutoff.meter_id = x.meter_id
    CROSS JOIN LATERAL ({oldest}) AS s
)), 'infinity') AS first
FROM aggregated
"""

PLAIN = f"""
        SELECT FROM sample s
        WHERE {IN_ORDER_OF_TIME} AND s.timestamp >= gap.start AND s.timestamp < least(gap.finish, aggregated.first)
        OFFSET 0
"""
SPREAD = """
        SELECT FROM spread_samples_in_order(NULL, gap.start, least(gap.finish, aggregated.first), true, 0, 1, false) s
        WHERE s.timestamp < least(gap.finish, aggregated.first)
"""

OLDEST = first_of_series(
    ("timestamp", "message_id"),
    TimeBounds(Sql("greatest(sampled_gap.start, cutoff.before)"), Sql("sampled_gap.finish")),
    series="x.id",
    condition="s.timestamp >= greatest(sampled_gap.start, cutoff.before) AND s.timestamp < sampled_gap.finish",
    limit=1,
    oldest=True,
)

HOURS_BEFORE = "(SELECT p.start, p.hours FROM final_period p WHERE p.hours = 1 AND p.start < aggregated.first)"


def first_sample(sampled: Sql, rolled_up: Sql) -> Sql:
    """Return the statement whose row is the time of the first sample of the series ``sampled``; null if there is none.

    Expired samples do not count. ``rolled_up`` are the series whose rollups have these samples. Both are subqueries.
    """
    return filled(
        FIRST_SAMPLE,
        sampled=sampled,
        rolled_up=rolled_up,
        gaps=GAPS.format(spans=HOURS_BEFORE),
        plain=alternative(PLAIN, SPREAD),
        of_any_series=OF_ANY_SERIES,
        overlaps=overlaps("gap.start", "least(gap.finish, aggregated.first)"),
        oldest=OLDEST,
    )
