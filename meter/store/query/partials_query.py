"""The statement that reads the partial aggregates of a query: rollups where they can replace samples, and samples elsewhere."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import replace

from meter.counter_runs import RunKind
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.postgres.sql import following
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import FilterConditions
from meter.store.query.conditions import conjunction
from meter.store.query.metadata_resources import SERIES_OF_FEW
from meter.store.query.minute_totals import FROM_MINUTES
from meter.store.query.minute_totals import SERIES_OF_METERS
from meter.store.query.minute_totals import SERIES_OF_OWNERS
from meter.store.query.minute_totals import cut_hours
from meter.store.query.minute_totals import minute_tables
from meter.store.query.partials import COVERED
from meter.store.query.partials import GAPS
from meter.store.query.partials import METADATA_ID
from meter.store.query.partials import partial_from_minute
from meter.store.query.partials import partial_from_rollup
from meter.store.query.partials import partial_from_sample
from meter.store.query.replaced_rollups import samples_of_mixed_metadata
from meter.store.query.replaced_rollups import samples_of_overlapping
from meter.store.query.sample_rows import sample_columns
from meter.store.query.sampled_gaps import sampled_gaps_table
from meter.store.query.series_samples import ReadTimes
from meter.store.query.series_samples import Sums
from meter.store.query.series_samples import of_gaps
from meter.store.query.series_samples import of_samples
from meter.store.query.series_samples import of_spans
from meter.store.query.time_range import TimeRange
from meter.store.query.windows import Windows

# OFFSET 0 keeps PostgreSQL from finding series by their meter, of which other projects have series too.
MATCHING_SERIES = "(SELECT * FROM series x WHERE {resource} AND {series} OFFSET 0)"

# All series of the meters and resources that have a matching one. Their key begins with the meter and the resource; OFFSET 0 keeps
# PostgreSQL from reading all series of a meter.
SERIES_BETWEEN_STEPS = """(
    SELECT x.*, {series} AS matches
    FROM (
        SELECT DISTINCT m.name, x.resource_id
        FROM {matching} x JOIN meter m ON m.id = x.meter_id
    ) AS matching
    JOIN meter m ON m.name = matching.name
    CROSS JOIN LATERAL (SELECT x.* FROM series x WHERE x.meter_id = m.id AND x.resource_id = matching.resource_id OFFSET 0) AS x
)"""

OF_SEVERAL_HOSTS = f"""
SELECT x.resource_id FROM {{sampled}} x JOIN meter m ON m.id = x.meter_id
WHERE x.run_kind > {RunKind.DECLARED:d}
GROUP BY x.resource_id, m.name, m.unit, x.run_kind HAVING min(x.run_id) < max(x.run_id)
"""

SAMPLE_SERIES = """
SELECT {keys}, x.meter_id, {retained_until}array_agg(x.id) AS ids
FROM {sampled} x JOIN meter m ON m.id = x.meter_id
GROUP BY {retained_until}{key_expressions}, x.meter_id
"""

# Series with the same keys are looked up together, one time range after the other, so that each lookup is one walk along the
# index. OFFSET 0 keeps PostgreSQL from reordering the joins: it cannot estimate how few and narrow the ranges are.
FROM_SAMPLES = """
WITH sample_series AS MATERIALIZED ({sample_series})
{partials}
"""
# Rollups replace the samples of final days and hours within the range; the gaps between these are read from samples. Where
# samples have expired, hourly rollups are read in the gaps too: no late sample is accepted there.
FROM_ROLLUPS = """
WITH sample_series AS MATERIALIZED ({sample_series}), rollup_series AS MATERIALIZED (
    SELECT {keys} {by_meter}, array_agg(x.id) AS ids
    FROM {rolled_up} x JOIN meter m ON m.id = x.meter_id
    GROUP BY {key_expressions} {by_meter}
    {in_order}
), expired_series AS MATERIALIZED (
    SELECT {keys}, x.meter_id, array_agg(x.id) AS ids
    FROM {rolled_up} x JOIN meter m ON m.id = x.meter_id
    WHERE EXISTS (SELECT FROM retention_cutoff)
    GROUP BY {key_expressions}, x.meter_id
), period AS MATERIALIZED (
    SELECT {period_columns} FROM final_period p WHERE p.hours = {longest} AND {period_in_range}
    UNION ALL
    SELECT {period_columns} FROM final_period p
    WHERE p.hours = 1 AND {longest} = 24 AND {period_in_range} AND date_trunc('day', p.start) NOT IN (
        SELECT p.start FROM final_period p WHERE p.hours = 24 AND {period_in_range}
    )
){cut}, covered AS MATERIALIZED ({covered}), gap AS MATERIALIZED (
    SELECT * FROM ({gaps}) AS gap WHERE {gap_in_range}
){sampled_gap}, cutoff AS MATERIALIZED (
    SELECT m.id AS meter_id, max(c.before) AS before FROM retention_cutoff c JOIN meter m ON c.meter IN (m.name, '')
    GROUP BY m.id
){minute_tables}
SELECT partial.*
FROM covered CROSS JOIN rollup_series {joined_cutoff}
CROSS JOIN LATERAL (
    SELECT {names}, {rollup_columns}
    FROM rollup r
    WHERE r.hours = covered.hours AND r.series_id = ANY(rollup_series.ids) AND r.start >= covered.start AND r.start < covered.finish
        AND {rollup_is_read}
    OFFSET 0
) AS partial
UNION ALL
{partials_of_gap}
UNION ALL
SELECT partial.*
FROM gap CROSS JOIN expired_series JOIN cutoff ON cutoff.meter_id = expired_series.meter_id
CROSS JOIN LATERAL (
    SELECT {names}, {rollup_columns}
    FROM rollup r
    WHERE r.hours = 1 AND r.series_id = ANY(expired_series.ids) AND r.start >= gap.start AND r.start < gap.finish
        AND r.start < cutoff.before AND {rollup_in_range}
    OFFSET 0
) AS partial
"""

# The totals of meters replace the rollups of their owners, in the periods that have them.
FROM_METER_TOTALS = """
UNION ALL
SELECT partial.*
FROM ({covered_by_meters}) AS covered
CROSS JOIN (SELECT {keys}, x.meter_id FROM {rolled_up} x JOIN meter m ON m.id = x.meter_id GROUP BY {key_expressions}, x.meter_id) AS meter_series
LEFT JOIN cutoff ON cutoff.meter_id = meter_series.meter_id
CROSS JOIN LATERAL (
    SELECT {names}, {rollup_columns}
    FROM meter_totals r
    WHERE r.hours = covered.hours AND r.meter_id = meter_series.meter_id AND r.start >= covered.start AND r.start < covered.finish
        AND {rollup_is_read}
    OFFSET 0
) AS partial
"""

# Each document that the partials refer to is read once. PostgreSQL can only hash or merge a full join, whatever numbers of rows
# it expects. Rows without a match have a null count or a null id.
WITH_METADATA = """
WITH partial AS MATERIALIZED ({partials}), document AS MATERIALIZED (
    SELECT d.id AS document_id {values}
    FROM metadata d
    WHERE d.id = ANY(ARRAY(SELECT DISTINCT metadata_id FROM partial {matching})) AND {metadata}
)
SELECT * FROM partial FULL JOIN document ON document.document_id = partial.metadata_id
WHERE coalesce(partial.count, 0) > 0 AND {joined}
"""

OWNER_PERIODS = "(SELECT * FROM period WHERE NOT with_meter_totals)"
METER_PERIODS = "(SELECT * FROM period WHERE with_meter_totals)"
"""The final periods that are read from rollups of owners, and those that are read from totals of meters."""

PERIODS_AND_CUT_HOURS = "(SELECT start, hours FROM period UNION ALL SELECT start, hours FROM cut)"

OWNER_KEYS = frozenset({"user_id", "project_id", "source_id"})

MATCHES = "matches"
"""A column of partials for steps, if only some match: whether the partial does, apart from its metadata."""


def partials_query(
    conditions: FilterConditions,
    *,
    keys: Mapping[str, str],
    metadata_keys: Mapping[str, Sql],
    columns: Iterable[str],
    longest_rollup: int,
    steps: bool,
    recorded: Sql = TRUE,
    windows: Windows | None = None,
    adds_up: bool = False,
) -> Sql:
    """Return the statement that reads partials of all samples that match ``conditions``, from one snapshot.

    Its columns are ``keys`` (SQL over the series ``x`` and the meter ``m``), ``metadata_keys`` (SQL over the metadata ``d``) and
    ``columns`` of the partials. It reads rollups of up to ``longest_rollup`` hours; with 0 it reads samples only. For ``steps`` it
    also reads the samples in between that do not match (:func:`matching_partial` tells them apart), and no rollups that overlap in
    time with others unless their samples have expired. ``recorded`` is one more condition on samples that are read beside
    rollups. Each partial lies within one of ``windows``; where these cut hours, expired samples are not read. If it ``adds_up``, which is not
    possible with ``recorded``, a partial can be of several samples of a series and window.
    """
    needs_metadata = bool(metadata_keys) or conditions.metadata != TRUE
    columns = (*columns, METADATA_ID) if needs_metadata else tuple(columns)
    totals = reads_totals(conditions, keys, metadata_keys)
    cutting = None if windows is None or windows.aligned_hours else windows
    sample_range, time_range = conditions.range, conditions.time_range
    if cutting and cutting.start is None:
        time_range = replace(time_range, origin=cutting.origin, after_start=False)
        sample_range = time_range.contains_sample()
    of_series = steps and conditions.selects_series
    sampled = _sampled(conditions, conditions.retained, steps=steps)
    if of_series:
        keys = {**keys, MATCHES: f"x.{MATCHES}"}
        rolled_up = sampled
    else:
        series = conditions.resources if steps else conditions.series
        rolled_up = (
            series_with_rollups(series, totals=True)
            if totals
            else _series_of_resources(conditions, conjunction(series, conditions.retained))
        )
    selection: dict[str, Sql | str] = {
        "keys": ", ".join(f"{value} AS {name}" for name, value in keys.items()),
        "names": ", ".join(keys),
        "key_expressions": ", ".join(keys.values()),
        "sampled": sampled,
        "sample_columns": partial_from_sample(columns),
    }
    by_retention = "x.retained_until, " if longest_rollup else ""
    selection["sample_series"] = filled(SAMPLE_SERIES, retained_until=by_retention, **selection)
    bounds = conditions.bounds
    sums = Sums(columns, windows, time_range.exact_bounds(), by_metadata=needs_metadata) if adds_up else None
    if longest_rollup:
        read_range = conjunction(sample_range, recorded)
        read = sample_columns(selection["sample_columns"], read_range)
        by_meter = totals and not _depends_on_owners(conditions, keys)
        minutes = totals and recorded == TRUE and (cutting is not None or time_range.cuts_hours)
        in_range = time_range.contains_period("p")
        open_ended = conditions.time_range.start is None
        partials = filled(
            FROM_ROLLUPS
            + (FROM_METER_TOTALS if by_meter else "")
            + (FROM_MINUTES if minutes else "")
            + "{mixed_metadata}{overlapping}",
            **selection,
            partials_of_span=of_spans(
                selection,
                ReadTimes(
                    bounds.within("greatest(sampled_span.start, total_series.before)", "sampled_span.finish"), bounds
                ),
                read_range,
            )
            if minutes
            else "",
            partials_of_gap=of_gaps(
                selection,
                ReadTimes(
                    bounds.within("greatest(gap.start, cutoff.before)", "gap.finish"),
                    bounds.within("gap.start", "gap.finish"),
                ),
                read_range,
                gap="sampled_gap" if open_ended else "gap",
                sums=sums,
            ),
            mixed_metadata=samples_of_mixed_metadata(
                read,
                bounds,
                {**selection, "range": read_range},
                overlap_is_read="r.overlap = 0" if steps else "true",
            )
            if needs_metadata
            else "",
            overlapping=samples_of_overlapping(read, bounds, {**selection, "range": read_range}) if steps else "",
            rollup_columns=partial_from_rollup(columns),
            rolled_up=rolled_up,
            longest=longest_rollup,
            period_in_range=conjunction(in_range, cutting.contain_period("p")) if cutting else in_range,
            rollup_in_range=Sql("false") if cutting else time_range.contains_period("r"),
            gap_in_range=time_range.overlaps_gap(),
            sampled_gap=filled(", {table}", table=sampled_gaps_table(sample_range)) if open_ended else "",
            period_columns="p.start, p.hours, p.with_meter_totals" if by_meter else "p.start, p.hours",
            covered=COVERED.format(spans=OWNER_PERIODS if by_meter else "period"),
            covered_by_meters=COVERED.format(spans=METER_PERIODS),
            gaps=GAPS.format(spans=PERIODS_AND_CUT_HOURS if minutes else "period"),
            cut=cut_hours(time_range) if minutes else "",
            minute_tables=_minute_tables(selection, conditions, keys, time_range, windows, columns) if minutes else "",
            minute_columns=partial_from_minute(columns) if minutes else "",
            rollup_is_read=_rollup_is_read(steps=steps, cut=cutting is not None),
            by_meter=", x.meter_id" if steps or cutting else "",
            # Rows that are read in the order of their steps need hardly be sorted.
            in_order="ORDER BY x.resource_id" if steps else "",
            joined_cutoff="LEFT JOIN cutoff ON cutoff.meter_id = rollup_series.meter_id" if steps or cutting else "",
        )
    elif not steps or conditions.rest == conditions.as_of:
        condition = conjunction(conditions.range, conditions.rest)
        partials = filled(FROM_SAMPLES, **selection, partials=of_samples(selection, conditions, condition, sums))
    else:
        # CASE keeps PostgreSQL from evaluating a condition on the content of a sample of another project.
        matches = filled(
            f", CASE WHEN {MATCHES if of_series else 'true'} THEN {{rest}} ELSE false END AS {MATCHES}",
            rest=conditions.rest,
        )
        columns_of_sample = Sql(f"{selection['sample_columns']}{matches}", matches.parameters)
        names = ", ".join(name for name in keys if name != MATCHES)
        with_matches = {**selection, "sample_columns": columns_of_sample, "names": names}
        condition = conjunction(conditions.range, conditions.as_of)
        partials = filled(FROM_SAMPLES, **selection, partials=of_samples(with_matches, conditions, condition))
    if not needs_metadata:
        return partials
    # Rollups of samples with different metadata are replaced by these samples. As above, no condition may make it an outer join.
    joined = "coalesce(partial.metadata_id, 0) > 0" if steps else "coalesce(document.document_id, 0) > 0"
    return filled(
        WITH_METADATA,
        partials=partials,
        values=following(Sql(f"{value} AS {name}", value.parameters) for name, value in metadata_keys.items()),
        metadata=conditions.metadata,
        matching=f"WHERE {MATCHES}" if steps and _has_matches(conditions) else "",
        joined=joined,
    )


def _sampled(conditions: FilterConditions, retained: Sql, *, steps: bool) -> Sql:
    """Return the series whose samples are read, those that also meet ``retained``."""
    if steps and conditions.selects_series:
        series = conjunction(conditions.series, retained)
        return filled(SERIES_BETWEEN_STEPS, series=series, matching=_series_of_resources(conditions, series))
    series = conditions.resources if steps else conditions.series
    return _series_of_resources(conditions, conjunction(series, retained))


def _series_of_resources(conditions: FilterConditions, series: Sql) -> Sql:
    """Return :func:`series_with_samples`, of the resources with the metadata of ``conditions`` if these are few."""
    if conditions.of_few_resources:
        return filled(SERIES_OF_FEW, resource="x.resource_id > 0", series=series)
    return series_with_samples(series)


def of_several_hosts(conditions: FilterConditions) -> Sql:
    """Return the statement for the resources with partials for steps that a meter has counted on several hosts, at any time."""
    return filled(OF_SEVERAL_HOSTS, sampled=_sampled(conditions, TRUE, steps=True))


def series_with_samples(series: Sql) -> Sql:
    """Return the subquery of the series that meet ``series`` and have samples."""
    return filled(MATCHING_SERIES, resource="x.resource_id > 0", series=series)


def series_with_rollups(series: Sql, *, totals: bool) -> Sql:
    """Return the subquery of the series whose rollups have the samples of these: of each resource, or ``totals`` of owners."""
    return filled(MATCHING_SERIES, resource=f"x.resource_id {'=' if totals else '>'} 0", series=series)


def reads_totals(conditions: FilterConditions, keys: Collection[str], metadata_keys: Collection[str]) -> bool:
    """Return whether rollups of all resources of an owner can serve: nothing depends on resources or on metadata."""
    needs_metadata = bool(metadata_keys) or conditions.metadata != TRUE
    return not needs_metadata and "resource_id" not in keys and not conditions.selects_resources


def _depends_on_owners(conditions: FilterConditions, keys: Collection[str]) -> bool:
    """Return whether the totals of a meter cannot serve, as something depends on users, projects or sources."""
    return conditions.selects_owners or not OWNER_KEYS.isdisjoint(keys)


def _minute_tables(
    selection: Mapping[str, Sql | str],
    conditions: FilterConditions,
    keys: Collection[str],
    time_range: TimeRange,
    windows: Windows | None,
    columns: Iterable[str],
) -> Sql:
    by_owner = _depends_on_owners(conditions, keys)
    series = filled(SERIES_OF_OWNERS if by_owner else SERIES_OF_METERS, **selection)
    return minute_tables(series, time_range, windows, columns, by_owner=by_owner)


def _rollup_is_read(*, steps: bool, cut: bool) -> str:
    not_expired = "r.start >= coalesce(cutoff.before, '-infinity')"
    if steps:
        return f"r.overlap = 0 AND {not_expired}" if cut else "(r.overlap = 0 OR r.start < cutoff.before)"
    return not_expired if cut else "true"


def matching_partial(conditions: FilterConditions) -> str:
    """Return the condition that a partial, read for steps, matches ``conditions``: ``true`` if all of them do."""
    parts = [MATCHES] if _has_matches(conditions) else []
    if conditions.metadata != TRUE:
        parts.append("coalesce(document_id, 0) > 0")
    return " AND ".join(parts) or "true"


def _has_matches(conditions: FilterConditions) -> bool:
    return conditions.selects_series or conditions.rest != conditions.as_of
