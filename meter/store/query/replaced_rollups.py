"""Samples that are read in place of rollups that cannot serve: those of several metadata, and those that overlap in time.

They are parts of a statement with the tables ``covered`` and ``sample_series``, and ``cutoff``. A store on one server looks the
samples of one rollup up after the other, a spread store those of all of them by one distributed statement.
"""

from __future__ import annotations

from collections.abc import Mapping

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import combined
from meter.store.postgres.sql import filled
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.packed_parts import packed_part
from meter.store.query.sample_rows import samples_by_series
from meter.store.query.sample_rows import wide
from meter.store.query.time_range import TICK

# In place of rollups of samples with different metadata, their samples are read.
OF_MIXED_METADATA = "r.metadata_id = 0 AND {overlap_is_read}"
MIXED_METADATA = """
UNION ALL
SELECT partial.*
FROM covered CROSS JOIN sample_series
CROSS JOIN LATERAL (
    SELECT {names}, {sample_columns}
    FROM rollup r CROSS JOIN LATERAL (
        SELECT s.* FROM {samples}
        WHERE s.timestamp >= r.first AND s.timestamp <= r.last AND {range}
        OFFSET 0
    ) AS s
    WHERE r.hours = covered.hours AND r.series_id = ANY(sample_series.ids) AND r.start >= covered.start AND r.start < covered.finish
        AND {condition}
    OFFSET 0
) AS partial
"""

# In place of overlapping rollups, samples are read until they expire: all of the series in that hour or day, once, for the one
# of its rollups with the lowest metadata_run (0 or 1).
OF_OVERLAPPING = "r.metadata_run <= 1 AND r.overlap > 0 AND (cutoff.before IS NULL OR r.start >= cutoff.before)"
OVERLAPPING = """
UNION ALL
SELECT partial.*
FROM covered CROSS JOIN sample_series LEFT JOIN cutoff ON cutoff.meter_id = sample_series.meter_id
CROSS JOIN LATERAL (
    SELECT {names}, {sample_columns}
    FROM rollup r CROSS JOIN LATERAL (
        SELECT s.* FROM {samples}
        WHERE s.timestamp >= r.start AND s.timestamp < r.start + make_interval(hours => r.hours)
            AND {range}
        OFFSET 0
    ) AS s
    WHERE r.hours = covered.hours AND r.series_id = ANY(sample_series.ids) AND r.start >= covered.start AND r.start < covered.finish
        AND {condition}
    OFFSET 0
) AS partial
"""

# The plain samples of a spread store: the spans of all rollups that are replaced, and with one statement the samples in them.
OF_SPANS = """
UNION ALL (
    WITH span AS MATERIALIZED (
        SELECT {qualified_names}, r.series_id AS span_series_id, {first} AS span_first, {last} AS span_last
        FROM covered CROSS JOIN sample_series LEFT JOIN cutoff ON cutoff.meter_id = sample_series.meter_id
        CROSS JOIN LATERAL (
            SELECT r.* FROM rollup r
            WHERE r.hours = covered.hours AND r.series_id = ANY(sample_series.ids) AND r.start >= covered.start AND r.start < covered.finish
                AND {condition}
            OFFSET 0
        ) AS r
    )
    SELECT {names}, {sample_columns}
    FROM (
        SELECT array_agg(span_series_id) AS series, array_agg(span_first) AS firsts, array_agg(span_last) AS lasts FROM span
    ) AS spans
    CROSS JOIN LATERAL spread_samples_of_spans(spans.series, spans.firsts, spans.lasts, {wide}) s
    JOIN span ON span.span_series_id = s.series_id AND s.timestamp >= span.span_first AND s.timestamp <= span.span_last
    WHERE {range}
)
"""

OF_ROLLUP = "= r.series_id"
"""What the id of a series is compared with."""

END_OF_ROLLUP = "r.start + make_interval(hours => r.hours)"


def samples_of_mixed_metadata(
    columns: tuple[str, ...], bounds: TimeBounds, selection: Mapping[str, Sql | str], *, overlap_is_read: str
) -> Sql:
    """Return what follows the partials of rollups: those of samples with ``columns`` in place of rollups of several metadata.

    ``selection`` are parts of the templates. Only rollups that meet ``overlap_is_read``, a condition on their ``overlap``, are replaced here.
    """
    condition = OF_MIXED_METADATA.format(overlap_is_read=overlap_is_read)
    of_rollup = bounds.within(Sql("r.first"), Sql("r.last"))
    return _both(MIXED_METADATA, columns, of_rollup, of_rollup, condition, selection)


def samples_of_overlapping(columns: tuple[str, ...], bounds: TimeBounds, selection: Mapping[str, Sql | str]) -> Sql:
    """Return what follows the partials of rollups: those of samples with ``columns`` in place of overlapping rollups."""
    start, end = Sql("r.start"), Sql(END_OF_ROLLUP)
    exactly = bounds.within(start, Sql(f"{END_OF_ROLLUP} - {TICK}"))
    return _both(OVERLAPPING, columns, bounds.within(start, end), exactly, OF_OVERLAPPING, selection)


def _both(
    template: str,
    columns: tuple[str, ...],
    bounds: TimeBounds,
    span: TimeBounds,
    condition: str,
    selection: Mapping[str, Sql | str],
) -> Sql:
    """Return ``template`` for the rollups ``r`` that meet ``condition``: for one server, with samples within ``bounds``.

    For a spread store it has the packed ones alone, and beside it are the plain ones in the ``span`` of each rollup, read at once.
    """
    packed = packed_part(columns, bounds, f"p.series_id {OF_ROLLUP}", "true")
    with_series = tuple(dict.fromkeys((*columns, "series_id")))
    names = str(selection["names"]).split(", ")
    parts = {**selection, "condition": condition}
    return combined(
        filled(template, samples=samples_by_series(columns, bounds, series=OF_ROLLUP), **parts),
        filled(
            "{packed}{plain}",
            packed=filled(template, samples=filled("({packed}) s", packed=packed), **parts),
            plain=filled(
                OF_SPANS,
                qualified_names=", ".join(f"sample_series.{name}" for name in names),
                first=span.first,
                last=span.last,
                wide=wide(with_series),
                **{**parts, "names": ", ".join(f"span.{name}" for name in names)},
            ),
        ),
    )
