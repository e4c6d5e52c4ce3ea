"""Partials made of the samples of groups of series: ``sample_series``, a table of the statement with the ``ids`` of each group.

A store on one server looks the groups up one after the other, a spread store all of them with one distributed statement.
"""

from __future__ import annotations

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import filled
from meter.store.postgres.sql import variant
from meter.store.query.sample_rows import TimeBounds
from meter.store.query.sample_rows import packed_part
from meter.store.query.sample_rows import samples_by_series
from meter.store.query.sample_rows import wide

OF_SERIES = """
SELECT partial.*
FROM sample_series
CROSS JOIN LATERAL (
    SELECT {names}, {sample_columns}
    FROM {samples} {joins}
    WHERE {condition}
    OFFSET 0
) AS partial
"""
SPREAD_OF_SERIES = """
SELECT {qualified_names}, {sample_columns}
FROM spread_samples(ARRAY(SELECT unnest(ids) FROM sample_series), {first}, {last}, {wide}) s
JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id {joins}
WHERE {condition}
"""

# Only series that may have samples so late: the newest gap is read of those that are measured still.
PARTIALS_OF_GAP = """
SELECT partial.*
FROM {gap} AS gap JOIN sample_series ON sample_series.retained_until >= gap.start LEFT JOIN cutoff ON cutoff.meter_id = sample_series.meter_id
CROSS JOIN LATERAL (
    SELECT {names}, {sample_columns}
    FROM {samples}
    WHERE s.timestamp >= greatest(gap.start, cutoff.before) AND s.timestamp < gap.finish
        AND {range}
    OFFSET 0
) AS partial
"""
# All series of a gap are read at once.
SPREAD_OF_GAP = """
SELECT {qualified_names}, {sample_columns}
FROM gap CROSS JOIN LATERAL spread_samples(
    ARRAY(SELECT unnest(ids) FROM sample_series WHERE sample_series.retained_until >= gap.start), {first}, {last}, {wide}
) s
JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id
LEFT JOIN cutoff ON cutoff.meter_id = sample_series.meter_id
WHERE s.timestamp >= greatest(gap.start, cutoff.before) AND s.timestamp < gap.finish AND {range}
"""


PARTIALS_OF_SPAN = """
SELECT partial.*
FROM sampled_span JOIN total_series USING (n)
CROSS JOIN LATERAL (
    SELECT {names}, {sample_columns}
    FROM {samples}
    WHERE s.timestamp >= greatest(sampled_span.start, total_series.before)
        AND s.timestamp <= sampled_span.finish AND {range}
    OFFSET 0
) AS partial
"""
# The spans of all groups are read at once: they are nearly the same.
SPREAD_OF_SPAN = """
SELECT {qualified_names}, {sample_columns}
FROM (SELECT *, unnest(ids) AS member FROM total_series) AS total_series
JOIN spread_samples_of_ranges(
    ARRAY(SELECT unnest(ids) FROM total_series),
    (SELECT range_agg(tstzrange(start, finish, '[]')) FROM sampled_span WHERE start <= finish), {wide}
) s ON s.series_id = total_series.member
JOIN sampled_span ON sampled_span.n = total_series.n AND s.timestamp >= sampled_span.start AND s.timestamp <= sampled_span.finish
WHERE s.timestamp >= greatest(sampled_span.start, total_series.before) AND {range}
"""


def both_variants(
    template: str,
    spread: str,
    columns: tuple[str, ...],
    bounds: TimeBounds,
    bounds_of_all: TimeBounds,
    table: str,
    **parts: Sql | str,
) -> Sql:
    """Return ``template``, which looks the series up one group of ``table`` after the other, and for a spread store ``spread``.

    The latter reads the plain samples of all series within ``bounds_of_all`` with one statement, and the packed ones like ``template``.
    """
    parts["qualified_names"] = ", ".join(f"{table}.{name}" for name in str(parts["names"]).split(", "))
    of_group = f"= ANY({table}.ids)"
    packed = packed_part(columns, bounds, f"p.series_id {of_group}", "true")
    return alternative(
        variant(filled(template, samples=samples_by_series(columns, bounds, series=of_group), **parts), spread=False),
        filled(
            f"{spread} UNION ALL {template}",
            samples=filled("({packed}) s", packed=packed),
            first=bounds_of_all.first,
            last=bounds_of_all.last,
            wide=wide(columns),
            **parts,
        ),
    )
