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

OF_SAMPLE_SERIES = "= ANY(sample_series.ids)"
"""What the id of a series is compared with."""

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

PARTIALS_OF_GAP = """
SELECT partial.*
FROM gap CROSS JOIN sample_series LEFT JOIN cutoff ON cutoff.meter_id = sample_series.meter_id
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
FROM gap CROSS JOIN LATERAL spread_samples(ARRAY(SELECT unnest(ids) FROM sample_series), {first}, {last}, {wide}) s
JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id
LEFT JOIN cutoff ON cutoff.meter_id = sample_series.meter_id
WHERE s.timestamp >= greatest(gap.start, cutoff.before) AND s.timestamp < gap.finish AND {range}
"""


def both_variants(
    template: str,
    spread: str,
    columns: tuple[str, ...],
    bounds: TimeBounds,
    bounds_of_all: TimeBounds,
    **parts: Sql | str,
) -> Sql:
    """Return ``template``, which looks the series up one group after the other, and for a spread store ``spread``.

    The latter reads the plain samples of all series within ``bounds_of_all`` with one statement, and the packed ones like ``template``.
    """
    parts["qualified_names"] = ", ".join(f"sample_series.{name}" for name in str(parts["names"]).split(", "))
    packed = packed_part(columns, bounds, f"p.series_id {OF_SAMPLE_SERIES}", "true")
    return alternative(
        variant(
            filled(template, samples=samples_by_series(columns, bounds, series=OF_SAMPLE_SERIES), **parts), spread=False
        ),
        filled(
            f"{spread} UNION ALL {template}",
            samples=filled("({packed}) s", packed=packed),
            first=bounds_of_all.first,
            last=bounds_of_all.last,
            wide=wide(columns),
            **parts,
        ),
    )
