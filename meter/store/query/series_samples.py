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

from meter.store.packing.packed_rows import ANY_ARCHIVED
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

# The ends of an archived row are here, too, and are read here or there depending on the range: both must be asked for the same one.
ARCHIVED_OF_SPANS = f"""
SELECT {{qualified_names}}, {{sample_columns}}
FROM (
    SELECT span.start, span.finish, s.* FROM (
        SELECT start, finish, array_agg(DISTINCT member) AS ids
        FROM (
            SELECT greatest(sampled_span.start, total_series.before) AS start, sampled_span.finish, unnest(total_series.ids) AS member
            FROM sampled_span JOIN total_series USING (n) WHERE {ANY_ARCHIVED}
        ) AS _ WHERE start <= finish GROUP BY 1, 2
    ) AS span CROSS JOIN LATERAL ({{archived}}) s
    WHERE s.timestamp >= span.start AND s.timestamp <= span.finish OFFSET 0
) s
JOIN (SELECT *, unnest(ids) AS member FROM total_series) AS total_series ON total_series.member = s.series_id
JOIN sampled_span ON sampled_span.n = total_series.n AND sampled_span.finish = s.finish
    AND greatest(sampled_span.start, total_series.before) = s.start
WHERE {{range}}
"""
ARCHIVED_OF_GAP = f"""
SELECT {{qualified_names}}, {{sample_columns}}
FROM {{gap}} AS gap CROSS JOIN LATERAL (
    SELECT cutoff.before, array_agg(of_gap.member) AS ids
    FROM (SELECT unnest(ids) AS member, meter_id FROM sample_series WHERE retained_until >= gap.start AND {ANY_ARCHIVED}) AS of_gap
    LEFT JOIN cutoff ON cutoff.meter_id = of_gap.meter_id GROUP BY cutoff.before
) AS of_cutoff CROSS JOIN LATERAL ({{archived}}) s
JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id
WHERE s.timestamp >= greatest(gap.start, of_cutoff.before) AND s.timestamp < gap.finish AND {{range}}
"""


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


@dataclass(frozen=True, slots=True)
class ReadTimes:
    """The times between which samples are read: ``of_group`` can refer to the group, its gap or its span, ``of_all`` only to the gap."""

    of_group: TimeBounds
    of_all: TimeBounds


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
    bounds = conditions.bounds
    groups = _Groups(
        "sample_series", read, ReadTimes(bounds, bounds), {**selection, "joins": joins, "condition": condition}
    )
    return groups.partials(
        OF_SERIES,
        plain_of_spread=groups.filled(SUMS_OF_SERIES, **replace(sums, recorded_until=recorded_until).parts())
        if sums and by_times
        else groups.filled(
            SPREAD_OF_SERIES,
            source=_source(spread_read, bounds, groups.ids(), recorded_until),
            spread_condition=spread_condition,
        ),
        archived=groups.filled(SPREAD_OF_SERIES, source=groups.archived(), spread_condition=condition),
    )


def of_gaps(
    selection: Mapping[str, Sql | str], times: ReadTimes, range: Sql, *, gap: str, sums: Sums | None = None
) -> Sql:
    """Return the statement of the partials of the samples of ``sample_series`` in the rows of ``gap`` that meet ``range``."""
    read = sample_columns(selection["sample_columns"], range)
    groups = _Groups("sample_series", read, times, {**selection, "range": range, "gap": gap})
    ids = groups.ids("retained_until >= gap.start")
    return groups.partials(
        PARTIALS_OF_GAP,
        plain_of_spread=groups.filled(SUMS_OF_GAP, **sums.parts())
        if sums
        else groups.filled(SPREAD_OF_GAP, source=_source(read, times.of_all, ids)),
        archived=groups.filled(
            ARCHIVED_OF_GAP, archived=groups.archived_of("of_cutoff", times.of_all.within("of_cutoff.before", NO_END))
        ),
    )


def of_spans(selection: Mapping[str, Sql | str], times: ReadTimes, range: Sql) -> Sql:
    """Return the statement of the partials of the samples of ``total_series`` in their ``sampled_span`` that meet ``range``."""
    read = sample_columns(selection["sample_columns"], range)
    groups = _Groups("total_series", read, times, {**selection, "range": range})
    of_span = times.of_all.within("span.start", "span.finish")
    return groups.partials(
        PARTIALS_OF_SPAN,
        plain_of_spread=groups.filled(
            SPREAD_OF_SPAN, source=filled(OF_SPANS, ids=groups.ids(), wide=wide(groups.columns))
        ),
        archived=groups.filled(ARCHIVED_OF_SPANS, archived=groups.archived_of("span", of_span)),
    )


@dataclass(frozen=True, slots=True)
class _Groups:
    """The groups of series in ``table``, of whose samples ``columns`` are read; ``parts`` are those of all templates."""

    table: str
    columns: tuple[str, ...]
    times: ReadTimes
    parts: Mapping[str, Sql | str]

    @property
    def columns_of_all(self) -> tuple[str, ...]:
        """The columns that samples of all groups need: their series tells the group."""
        return tuple(dict.fromkeys((*self.columns, "series_id")))

    def filled(self, template: str, **parts: Sql | str) -> Sql:
        """Return ``template`` with the parts of all templates and these."""
        names = ", ".join(f"{self.table}.{name}" for name in str(self.parts["names"]).split(", "))
        return filled(template, **{**self.parts, "qualified_names": names, **parts})

    def ids(self, condition: str = "") -> str:
        """Return the array of the ids of all groups that meet ``condition``."""
        return ids_of(self.table, condition)

    def archived(self) -> Sql:
        """Return the item ``s`` of the samples of all groups on archive servers."""
        return filled("({archived}) s", archived=archived_part(self.columns_of_all, self.times.of_all, self.ids()))

    def archived_of(self, table: str, bounds: TimeBounds) -> Sql:
        """Return the SELECT of the samples on archive servers of the series that a row of ``table`` names, between its ``bounds``."""
        return archived_part(self.columns_of_all, bounds, f"{table}.ids")

    def partials(self, template: str, *, plain_of_spread: Sql, archived: Sql) -> Sql:
        """Return ``template``, which looks the groups up one after the other, and beside it what is better read of all at once.

        These are the ``archived`` samples, and the plain ones of a spread store. The archived ones come in the order in which groups
        are read: sums of numbers depend on it.
        """
        of_group, bounds = f"= ANY({self.table}.ids)", self.times.of_group
        on_one_server = samples_by_series(self.columns, bounds, series=of_group, archived=False)
        packed = packed_here(self.columns, bounds, f"p.series_id {of_group}", "true")
        return filled(
            "{not_archived} UNION ALL ({archived} ORDER BY s.series_id, s.timestamp)",
            not_archived=alternative(
                variant(self.filled(template, samples=on_one_server), spread=False),
                filled(
                    "{plain} UNION ALL {packed}",
                    plain=plain_of_spread,
                    packed=self.filled(template, samples=filled("({packed}) s", packed=packed)),
                ),
            ),
            archived=archived,
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
