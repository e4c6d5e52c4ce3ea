"""SQL that finds the first and the last sample of series by their rollups: without them, each week is a look-up for each series.

A rollup of a final hour has the times of its first and its last sample. What it does not tell of is in hours that are not final: mostly
only the newest. So a series takes two look-ups whatever the number of weeks, and a third one in the hours that are not final.
"""

from __future__ import annotations

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.partials import GAPS
from meter.store.query.sample_rows import EVER
from meter.store.query.sample_rows import first_of_series
from meter.store.query.sample_rows import sample_columns
from meter.store.query.sampled_gaps import MAY_HAVE_SAMPLES

CUTOFF = """cutoff AS MATERIALIZED (
    SELECT m.id AS meter_id, max(c.before) AS before FROM retention_cutoff c JOIN meter m ON c.meter IN (m.name, '')
    GROUP BY m.id
)"""

# The times that have samples and no final hours.
SAMPLED_GAP = """sampled_gap AS MATERIALIZED (
    SELECT gap.start, gap.finish FROM ({gaps}) AS gap WHERE {may_have_samples}
)"""

ENDS_TABLES = filled(
    f"WITH {CUTOFF}, {SAMPLED_GAP}",
    gaps=GAPS.format(spans="(SELECT p.start, p.hours FROM final_period p WHERE p.hours = 1)"),
    may_have_samples=MAY_HAVE_SAMPLES,
)
"""The common table expressions that the subqueries of this module refer to."""

ROLLUP = """
    SELECT r.first, r.last FROM rollup r
    WHERE r.hours = 1 AND r.series_id = x.id
        AND r.start >= coalesce((SELECT cutoff.before FROM cutoff WHERE cutoff.meter_id = x.meter_id), '-infinity')
        AND r.start IN (SELECT p.start FROM final_period p WHERE p.hours = 1)
    ORDER BY r.start {direction}, r.metadata_run {direction} LIMIT 1
"""

# Samples since a constant time come first: PostgreSQL plans and reads only the weeks from then on, and the series of resources that exist have
# some. Those of other series are looked up from their last rollup on.
NEWEST = """
    ({recent})
    UNION ALL
    (
        SELECT s.* FROM (SELECT coalesce((SELECT known.last FROM ({rollup}) AS known), '-infinity') AS last OFFSET 0) AS known
        CROSS JOIN LATERAL ({since_last}) AS s
    )
    LIMIT 1
"""

OLDEST = """
    SELECT least(known.first, (
        SELECT min(s.timestamp) FROM sampled_gap CROSS JOIN LATERAL ({in_gap}) AS s
        WHERE sampled_gap.finish <= coalesce(known.first, 'infinity')
    )) AS timestamp
    FROM (SELECT (SELECT known.first FROM ({rollup}) AS known) AS first OFFSET 0) AS known
"""

IS_PROVED = """EXISTS (
    SELECT FROM rollup r
    WHERE r.hours = 1 AND r.series_id = ANY({ids})
        AND r.start >= coalesce((SELECT cutoff.before FROM cutoff WHERE cutoff.meter_id = {meter}), '-infinity')
    OFFSET 0
)"""
"""The condition that a rollup proves that one of the series ``{ids}``, which are of one meter, has samples: they are voided together."""

WITHIN_GAP = "s.timestamp >= sampled_gap.start AND s.timestamp < sampled_gap.finish"
OF_GAP = EVER.within("sampled_gap.start", "sampled_gap.finish")
SINCE_LAST = EVER.within("known.last", NO_END)


def newest_by_rollups(columns: str, recent: Sql) -> Sql:
    """Return the subquery of the newest sample of the series ``x``, with ``columns`` of ``s``; no row if it has none.

    ``recent`` is a constant time, since which most series are expected to have samples; the answer does not depend on it.
    """
    names = sample_columns(columns)
    return filled(
        NEWEST,
        recent=first_of_series(
            names,
            TimeBounds(recent, NO_END),
            series="x.id",
            condition=filled("s.timestamp >= {recent}", recent=recent),
            limit=1,
        ),
        rollup=ROLLUP.format(direction="DESC"),
        since_last=first_of_series(names, SINCE_LAST, series="x.id", condition="s.timestamp >= known.last", limit=1),
    )


def oldest_by_rollups() -> Sql:
    """Return the subquery whose row has the ``timestamp`` of the oldest sample of the series ``x``; null if it has none."""
    in_gap = first_of_series(
        ("timestamp", "message_id"), OF_GAP, series="x.id", condition=WITHIN_GAP, limit=1, oldest=True
    )
    return filled(OLDEST, rollup=ROLLUP.format(direction="ASC"), in_gap=in_gap)
