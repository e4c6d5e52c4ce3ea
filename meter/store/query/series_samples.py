"""Partials made of the samples of groups of series: ``sample_series``, a table of the statement with the ``ids`` of each group.

A store on one server looks the groups up one after the other, a spread store all of them with one distributed statement. There the
workers send one partial for each series and window if nobody needs single samples (:class:`Sums`). Otherwise they send times and volumes as
arrays, and rows only if conditions need more of a sample. Samples on archive servers are read of all groups at once, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import filled
from meter.store.postgres.sql import variant
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import FilterConditions
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.packed_parts import archived_part
from meter.store.query.packed_parts import packed_here
from meter.store.query.sample_rows import sample_columns
from meter.store.query.sample_rows import samples_by_series
from meter.store.query.sample_rows import wide
from meter.store.query.time_range import TICK
from meter.store.query.windows import Windows

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
FROM {source}
JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id {joins}
WHERE {spread_condition}
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
FROM {gap} AS gap CROSS JOIN LATERAL {source}
JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id
LEFT JOIN cutoff ON cutoff.meter_id = sample_series.meter_id
WHERE s.timestamp >= greatest(gap.start, cutoff.before) AND s.timestamp < gap.finish AND {range}
"""

SUMS_OF_SERIES = """
SELECT {qualified_names}, {sums}
FROM spread_partials(ARRAY(SELECT unnest(ids) FROM sample_series), {first}, {last}, {options}) s
JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id
"""
# Series whose samples expire at the same time are read at once.
SUMS_OF_GAP = f"""
SELECT {{qualified_names}}, {{sums}}
FROM {{gap}} AS gap CROSS JOIN (
    SELECT array_agg(member) AS ids, before
    FROM (SELECT unnest(ids) AS member, meter_id FROM sample_series) AS _ LEFT JOIN cutoff USING (meter_id) GROUP BY before
) AS of_cutoff
CROSS JOIN LATERAL spread_partials(
    of_cutoff.ids, greatest(gap.start, of_cutoff.before, {{first}}), least(gap.finish - {TICK}, {{last}}), {{options}}
) s
JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id
"""

SAMPLES = "spread_samples({series}, {first}, {last}, {wide}) s"
VOLUMES = """(
    SELECT v.series_id, v.metadata_id, e.*
    FROM spread_volumes_of({series}, {first}, {last}, {recorded_until}, {by_metadata}, {with_ids}) v
    CROSS JOIN LATERAL unnest(v.times, v.volumes, v.ids) AS e (timestamp, volume, message_id)
) s"""

COLUMNS_OF_VOLUMES = frozenset({"timestamp", "volume", "message_id", "metadata_id", "series_id"})

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
JOIN {source} ON s.series_id = total_series.member
JOIN sampled_span ON sampled_span.n = total_series.n AND s.timestamp >= sampled_span.start AND s.timestamp <= sampled_span.finish
WHERE s.timestamp >= greatest(sampled_span.start, total_series.before) AND {range}
"""

OF_SPANS = """spread_samples_of_ranges(
    {ids}, (SELECT range_agg(tstzrange(start, finish, '[]')) FROM sampled_span WHERE start <= finish), {wide}
) s"""

# Each part of the spans is read once: those of the groups are nearly the same.
ARCHIVED_OF_SPANS = """(
    SELECT s.* FROM (
        SELECT lower(span) AS start, upper(span) AS finish FROM (
            SELECT unnest(range_agg(tstzrange(start, finish, '[]'))) AS span FROM sampled_span WHERE start <= finish
        ) AS spans
    ) AS spans CROSS JOIN LATERAL ({archived}) s
) s"""


@dataclass(frozen=True, slots=True)
class Sums:
    """What the workers of a spread store add up: partials with ``columns`` of each series, each metadata if wanted, and each window.

    ``bounds`` are the first and the last time of the samples exactly, ``recorded_until`` the last time at which they were recorded.
    """

    columns: Iterable[str]
    windows: Windows | None
    bounds: TimeBounds
    recorded_until: Sql = NO_END
    by_metadata: bool = False

    def parts(self) -> dict[str, Sql | str]:
        """Return the parts of the templates of sums."""
        columns = list(self.columns)
        ends = str("first_volume" in columns or "last_volume" in columns).lower()
        return {
            "sums": ", ".join(f"s.{column}" for column in columns),
            "first": self.bounds.first,
            "last": self.bounds.last,
            "options": filled(
                "{recorded_until}, {seconds}, {origin}, {by_metadata}, {ends}",
                recorded_until=self.recorded_until,
                seconds=Sql("%s", (self.windows.seconds,)) if self.windows else "NULL",
                origin=filled("{origin}::timestamptz", origin=self.windows.origin) if self.windows else "NULL",
                by_metadata=str(self.by_metadata).lower(),
                ends=ends,
            ),
        }


def of_samples(
    selection: Mapping[str, Sql | str], conditions: FilterConditions, condition: Sql, sums: Sums | None = None
) -> Sql:
    """Return the statement of the partials of all samples of ``sample_series`` that meet ``condition``, which is of ``conditions``.

    ``sums`` are taken if that is a condition on times alone.
    """
    joins = conditions.joined_for_rest
    read = sample_columns(selection["sample_columns"], joins, condition)
    spread_read, spread_condition, recorded_until = read, condition, NO_END
    by_times = conditions.rest == conditions.as_of
    if by_times and conditions.as_of != TRUE:
        spread_condition, recorded_until = conditions.range, Sql("%s::timestamptz", conditions.as_of.parameters)
        spread_read = sample_columns(selection["sample_columns"], spread_condition)
    if sums:
        sums = replace(sums, recorded_until=recorded_until) if by_times else None
    return both_variants(
        OF_SERIES,
        SPREAD_OF_SERIES,
        read,
        conditions.bounds,
        conditions.bounds,
        "sample_series",
        {**selection, "joins": joins, "condition": condition, "spread_condition": spread_condition},
        sums=(SUMS_OF_SERIES, sums) if sums else None,
        source=_source(spread_read, conditions.bounds, ids_of("sample_series"), recorded_until),
    )


def both_variants(
    template: str,
    of_all: str,
    columns: tuple[str, ...],
    bounds: TimeBounds,
    bounds_of_all: TimeBounds,
    table: str,
    selection: Mapping[str, Sql | str],
    *,
    sums: tuple[str, Sums] | None = None,
    source: Sql | None = None,
) -> Sql:
    """Return ``template``, which looks the series up one group of ``table`` after the other, and ``of_all`` for what is better read at once.

    ``of_all`` reads the samples of all series within ``bounds_of_all`` with one statement: those on archive servers, and the plain ones of
    a spread store, these from ``source`` if that is given, or by a template of ``sums`` and what is added up. The archived ones come in
    the order in which groups are read: sums of numbers depend on it. ``selection`` are parts of all templates.
    """
    names = ", ".join(f"{table}.{name}" for name in str(selection["names"]).split(", "))
    parts = {**selection, "qualified_names": names}
    of_group, of_spans = f"= ANY({table}.ids)", table == "total_series"
    ids = ids_of(table, "retained_until >= gap.start" if "gap" in selection else "")
    packed = packed_here(columns, bounds, f"p.series_id {of_group}", "true")
    with_series = tuple(dict.fromkeys((*columns, "series_id")))
    if of_spans:
        source = filled(OF_SPANS, ids=ids, wide=wide(columns))
        spans = TimeBounds(Sql("spans.start"), Sql("spans.finish"))
        archived = filled(ARCHIVED_OF_SPANS, archived=archived_part(with_series, bounds_of_all.within(*spans), ids))
    else:
        source = source or _source(columns, bounds_of_all, ids)
        archived = filled("({archived}) s", archived=archived_part(with_series, bounds_of_all, ids))
    of_spread, added_up = sums or (of_all, None)
    of_archive = {**parts, "spread_condition": selection["condition"]} if "condition" in selection else parts
    return filled(
        "{not_archived} UNION ALL ({archived} ORDER BY s.series_id, s.timestamp)",
        not_archived=alternative(
            variant(
                filled(template, samples=samples_by_series(columns, bounds, series=of_group, archived=False), **parts),
                spread=False,
            ),
            filled(
                "{plain} UNION ALL {packed}",
                plain=filled(of_spread, source=source, **{**parts, **(added_up.parts() if added_up else {})}),
                packed=filled(template, samples=filled("({packed}) s", packed=packed), **parts),
            ),
        ),
        archived=filled(of_all, source=archived, **of_archive),
    )


def ids_of(table: str, condition: str = "") -> str:
    """Return the array of the ids of all groups of ``table`` that meet ``condition``."""
    return f"ARRAY(SELECT unnest(ids) FROM {table}{f' WHERE {table}.{condition}' if condition else ''})"


def _source(columns: tuple[str, ...], bounds: TimeBounds, ids: str, recorded_until: Sql = NO_END) -> Sql:
    """Return the item ``s`` with the samples that the workers send: those of the series with ``ids``, an array."""
    as_arrays = COLUMNS_OF_VOLUMES.issuperset(columns)
    if not as_arrays and recorded_until is not NO_END:
        missing = ", ".join(sorted({*columns} - COLUMNS_OF_VOLUMES))
        raise ValueError(f"samples as of a time are read as arrays, which have no {missing}")
    return filled(
        VOLUMES if as_arrays else SAMPLES,
        series=ids,
        first=bounds.first,
        last=bounds.last,
        wide=wide(columns),
        recorded_until=recorded_until,
        by_metadata=str("metadata_id" in columns).lower(),
        with_ids=str("message_id" in columns).lower(),
    )
