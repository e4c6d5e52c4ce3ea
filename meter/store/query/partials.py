"""Partial aggregates: mergeable summaries of consecutive samples of a series.

A partial is one sample, or a rollup. It has ``count``, ``min_volume``, ``max_volume``, ``sum_volume`` and ``squared_deviations``
(the sum of squared distances from the mean) of its volumes, the times and volumes of its ``first`` and ``last`` sample, and
``increase`` and ``integral`` between these (:mod:`meter.testing.statistics` defines them). Partials of a series that follow
one another in time merge to one partial, exactly except for the rounding of sums. :mod:`meter.store.query.partials_query` has
the statements that read them.
"""

from __future__ import annotations

from collections.abc import Iterable

from meter.counter_runs import INTERVALS_CARRIED
from meter.counter_runs import RunKind

PARTIAL_COLUMNS = {
    "first": ("s.timestamp", "r.first"),
    "last": ("s.timestamp", "r.last"),
    "count": ("1::float8", "r.count::float8"),
    "min_volume": ("s.volume", "r.min_volume"),
    "max_volume": ("s.volume", "r.max_volume"),
    "sum_volume": ("s.volume", "r.sum_volume"),
    "squared_deviations": ("0::float8", "r.squared_deviations"),
    "first_volume": ("s.volume", "r.first_volume"),
    "last_volume": ("s.volume", "r.last_volume"),
    "increase": ("0::float8", "r.increase"),
    "integral": ("0::float8", "r.integral"),
    "tie": ("s.message_id", "NULL::uuid"),
}
"""The columns of a partial, each as SQL over a row ``s`` of ``sample`` and over a row ``r`` of ``rollup``.

``tie`` orders samples with the same timestamp. Counts are doubles because sums of ``bigint`` take twice the time.
"""

METADATA_ID = "metadata_id"
"""One more column, for queries about metadata: 0 in a rollup of samples with different metadata."""

METADATA_RUN = "metadata_run"
"""One more column, which orders rollups with the same ``first``."""

ALL_COLUMNS = {
    **PARTIAL_COLUMNS,
    METADATA_ID: ("s.metadata_id", "r.metadata_id"),
    METADATA_RUN: ("0::smallint", "r.metadata_run"),
}


def partial_from_sample(columns: Iterable[str] = PARTIAL_COLUMNS) -> str:
    """Return the select list that makes a partial with ``columns`` of a row ``s`` of ``sample``."""
    return ", ".join(f"{ALL_COLUMNS[column][0]} AS {column}" for column in columns)


def partial_from_rollup(columns: Iterable[str] = PARTIAL_COLUMNS) -> str:
    """Return the select list that makes a partial with ``columns`` of a row ``r`` of ``rollup``."""
    return ", ".join(f"{ALL_COLUMNS[column][1]} AS {column}" for column in columns)


def partial_from_minute(columns: Iterable[str]) -> str:
    """Return the select list that makes a partial with ``columns`` of a row ``minute``."""
    return ", ".join(f"minute.{column}{'::float8' if column == 'count' else ''} AS {column}" for column in columns)


INCREASE_BETWEEN = (
    "CASE WHEN first_volume >= volume_before THEN first_volume - volume_before"
    f" WHEN before IS NOT NULL THEN CASE WHEN run_kind = {RunKind.DECLARED:d} THEN 0 ELSE first_volume END END"
)
"""The increase of a counter from the previous partial of the same run to this one; null if there is none.

``before`` and ``volume_before`` are the previous partial's ``last`` and ``last_volume``.
"""


def carried_hours(elapsed: str, *, within_run: str) -> str:
    """Return SQL for the hours for which a volume is carried forward to the next sample, which comes ``elapsed`` later.

    ``within_run`` is a condition: that sample or a later one belongs to the same run.
    """
    return f"""(least(extract(epoch FROM {elapsed})::float8, CASE
        WHEN polling_interval = 0 OR (run_kind = {RunKind.DECLARED:d} AND {within_run}) THEN 'infinity'
        ELSE {INTERVALS_CARRIED} * polling_interval END) / 3600)"""


def overlaps(window: str) -> str:
    """Return the condition that a partial overlaps in time with another one in ``window``, which is ordered by ``first``."""
    return (
        f"coalesce(max(last) OVER ({window} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) >= first, false)"
        f" OR coalesce(lead(first) OVER {window} <= last, false)"
    )


GAPS = """
SELECT start, finish FROM (
    SELECT finish AS start, coalesce(lead(start) OVER (ORDER BY start, finish), 'infinity') AS finish
    FROM (
        SELECT start, start + make_interval(hours => hours) AS finish FROM {spans} AS span
        UNION ALL SELECT '-infinity', '-infinity'
    ) AS _
) AS gap WHERE start < finish
"""
"""The time ranges before, between and after the hours and days in ``spans``, which must not overlap."""

_DAYS = "(SELECT p.start, p.hours FROM final_period p WHERE p.hours = 24)"
SPARSE_GAPS = f"""
SELECT gap.start, gap.finish
FROM ({GAPS.format(spans=_DAYS)}) AS day_gap
CROSS JOIN LATERAL (
    SELECT start, finish FROM (
        SELECT finish AS start, coalesce(lead(start) OVER (ORDER BY start, finish), day_gap.finish) AS finish
        FROM (
            SELECT p.start, p.start + interval '1 hour' AS finish FROM final_period p
            WHERE p.hours = 1 AND p.start >= day_gap.start AND p.start < day_gap.finish
            UNION ALL SELECT day_gap.start, day_gap.start
        ) AS _
    ) AS gap WHERE start < finish
) AS gap
"""
"""The time ranges before, between and after final days and hours. Of the hours, those of final days are not read: that many years have few rows."""

COVERED = """
SELECT hours, min(start) AS start, max(start) + make_interval(hours => hours) AS finish
FROM (SELECT hours, start, row_number() OVER (PARTITION BY hours ORDER BY start) AS n FROM {spans} AS span) AS _
GROUP BY hours, start - n * make_interval(hours => hours)
"""
"""The time ranges that consecutive ``spans`` of equal length cover."""
