"""Partials made of the samples of groups of series: ``sample_series``, a table of the statement with the ``ids`` of each group.

A store on one server looks the groups up one after the other, a spread store all of them with one distributed statement.
"""

from __future__ import annotations

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import filled
from meter.store.postgres.sql import variant
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.packed_parts import archived_part
from meter.store.query.packed_parts import packed_here
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
FROM {all_samples} s
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
FROM gap CROSS JOIN LATERAL {all_samples} s
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
JOIN {all_samples} s ON s.series_id = total_series.member
JOIN sampled_span ON sampled_span.n = total_series.n AND s.timestamp >= sampled_span.start AND s.timestamp <= sampled_span.finish
WHERE s.timestamp >= greatest(sampled_span.start, total_series.before) AND {range}
"""


OF_SPANS = """spread_samples_of_ranges(
    {ids}, (SELECT range_agg(tstzrange(start, finish, '[]')) FROM sampled_span WHERE start <= finish), {wide}
)"""

# Each part of the spans is read once: those of the groups are nearly the same.
ARCHIVED_OF_SPANS = """(
    SELECT s.* FROM (
        SELECT lower(span) AS start, upper(span) AS finish FROM (
            SELECT unnest(range_agg(tstzrange(start, finish, '[]'))) AS span FROM sampled_span WHERE start <= finish
        ) AS spans
    ) AS spans CROSS JOIN LATERAL ({archived}) s
)"""


def both_variants(
    template: str,
    of_all: str,
    columns: tuple[str, ...],
    bounds: TimeBounds,
    bounds_of_all: TimeBounds,
    table: str,
    **parts: Sql | str,
) -> Sql:
    """Return ``template``, which looks the series up one group of ``table`` after the other, and ``of_all`` for what is better read at once.

    ``of_all`` reads the samples of all series within ``bounds_of_all`` with one statement: those on archive servers, and the plain ones of
    a spread store. The former come in the order in which groups are read: sums of numbers depend on it.
    """
    parts["qualified_names"] = ", ".join(f"{table}.{name}" for name in str(parts["names"]).split(", "))
    of_group, of_spans = f"= ANY({table}.ids)", table == "total_series"
    ids = f"ARRAY(SELECT unnest(ids) FROM {table})"
    packed = packed_here(columns, bounds, f"p.series_id {of_group}", "true")
    with_series = tuple(dict.fromkeys((*columns, "series_id")))
    if of_spans:
        plain_of_all = filled(OF_SPANS, ids=ids, wide=wide(columns))
        spans = TimeBounds(Sql("spans.start"), Sql("spans.finish"))
        archived = filled(ARCHIVED_OF_SPANS, archived=archived_part(with_series, bounds_of_all.within(*spans), ids))
    else:
        plain_of_all = filled(
            "spread_samples({ids}, {first}, {last}, {wide})", ids=ids, wide=wide(columns), **bounds_of_all._asdict()
        )
        archived = filled("({archived})", archived=archived_part(with_series, bounds_of_all, ids))
    return filled(
        "{not_archived} UNION ALL ({archived} ORDER BY s.series_id, s.timestamp)",
        not_archived=alternative(
            variant(
                filled(template, samples=samples_by_series(columns, bounds, series=of_group, archived=False), **parts),
                spread=False,
            ),
            filled(
                f"{of_all} UNION ALL {template}",
                samples=filled("({packed}) s", packed=packed),
                all_samples=plain_of_all,
                **parts,
            ),
        ),
        archived=filled(of_all, all_samples=archived, **parts),
    )
