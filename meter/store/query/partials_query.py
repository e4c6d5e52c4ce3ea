"""The statement that reads the partial aggregates of a query: samples, and rollups where they can stand for samples."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.postgres.sql import following
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import FilterConditions
from meter.store.query.conditions import conjunction
from meter.store.query.partials import GAPS
from meter.store.query.partials import METADATA_ID
from meter.store.query.partials import partial_from_rollup
from meter.store.query.partials import partial_from_sample

ADJOINING = """
SELECT hours, min(start) AS start, max(start) + make_interval(hours => hours) AS finish
FROM (SELECT hours, start, row_number() OVER (PARTITION BY hours ORDER BY start) AS n FROM {spans} AS span) AS _
GROUP BY hours, start - n * make_interval(hours => hours)
"""
"""The time ranges that consecutive ``spans`` of equal length cover."""

SAMPLED = """
SELECT {keys}, x.meter_id, array_agg(x.id) AS ids FROM series x JOIN meter m ON m.id = x.meter_id
WHERE x.resource_id > 0 AND {series}
GROUP BY {values_of_keys}, x.meter_id
"""

# Series with the same keys are looked up together, one time range after the other, so that each lookup is one walk along the
# index. OFFSET 0 keeps PostgreSQL from reordering the joins: it cannot estimate how few and narrow the ranges are.
FROM_SAMPLES = """
WITH sampled AS MATERIALIZED ({sampled})
SELECT piece.* FROM sampled CROSS JOIN LATERAL (
    SELECT {names}, {of_sample} FROM sample s {added} WHERE s.series_id = ANY(sampled.ids) AND {condition}
    OFFSET 0
) AS piece
"""

# Rollups stand for the samples of final days and hours within the range; the gaps between these are read from samples. Where
# samples have expired, hourly rollups are read in the gaps too: no late sample is accepted there.
FROM_ROLLUPS = """
WITH sampled AS MATERIALIZED ({sampled}), rolled AS MATERIALIZED (
    SELECT {keys} {of_meter}, array_agg(x.id) AS ids FROM series x JOIN meter m ON m.id = x.meter_id
    WHERE {level} AND {series}
    GROUP BY {values_of_keys} {of_meter}
), rolled_past AS MATERIALIZED (
    SELECT {keys}, x.meter_id, array_agg(x.id) AS ids FROM series x JOIN meter m ON m.id = x.meter_id
    WHERE {level} AND {series} AND EXISTS (SELECT FROM retention_cutoff)
    GROUP BY {values_of_keys}, x.meter_id
), span AS MATERIALIZED (
    SELECT h.start, h.hours FROM final_period h WHERE h.hours = {longest} AND {of_span}
    UNION ALL
    SELECT h.start, h.hours FROM final_period h
    WHERE h.hours = 1 AND {longest} = 24 AND {of_span} AND date_trunc('day', h.start) NOT IN (
        SELECT h.start FROM final_period h WHERE h.hours = 24 AND {of_span}
    )
), told AS MATERIALIZED ({adjoining}), gap AS MATERIALIZED (
    SELECT * FROM ({gaps}) AS gap WHERE {touching}
), past AS MATERIALIZED (
    SELECT m.id AS meter_id, max(h.before) AS before FROM retention_cutoff h JOIN meter m ON h.meter IN (m.name, '') GROUP BY m.id
)
SELECT piece.* FROM told CROSS JOIN rolled {past_of_rolled} CROSS JOIN LATERAL (
    SELECT {names}, {of_rollup} FROM rollup r
    WHERE r.hours = told.hours AND r.series_id = ANY(rolled.ids) AND r.start >= told.start AND r.start < told.finish
        AND {in_order}
    OFFSET 0
) AS piece
UNION ALL
SELECT piece.* FROM gap CROSS JOIN sampled LEFT JOIN past ON past.meter_id = sampled.meter_id CROSS JOIN LATERAL (
    SELECT {names}, {of_sample} FROM sample s
    WHERE s.series_id = ANY(sampled.ids) AND s.timestamp >= greatest(gap.start, past.before) AND s.timestamp < gap.finish
        AND {range}
    OFFSET 0
) AS piece
UNION ALL
SELECT piece.* FROM gap CROSS JOIN rolled_past JOIN past ON past.meter_id = rolled_past.meter_id CROSS JOIN LATERAL (
    SELECT {names}, {of_rollup} FROM rollup r
    WHERE r.hours = 1 AND r.series_id = ANY(rolled_past.ids) AND r.start >= gap.start AND r.start < gap.finish
        AND r.start < past.before AND {of_whole}
    OFFSET 0
) AS piece
"""

# In place of rollups of samples with different metadata, their samples are read.
SAMPLES_OF_MIXED_METADATA = """
UNION ALL
SELECT piece.* FROM told CROSS JOIN sampled CROSS JOIN LATERAL (
    SELECT {names}, {of_sample} FROM rollup r CROSS JOIN LATERAL (
        SELECT s.* FROM sample s
        WHERE s.series_id = r.series_id AND s.timestamp >= r.first AND s.timestamp <= r.last AND {range}
        OFFSET 0
    ) AS s
    WHERE r.hours = told.hours AND r.series_id = ANY(sampled.ids) AND r.start >= told.start AND r.start < told.finish
        AND r.metadata_id = 0 AND {unmixed}
    OFFSET 0
) AS piece
"""

# In place of overlapping rollups, samples are read until they expire: all of the series in that hour or day, once, for the one
# of its rollups with the lowest metadata_run (0 or 1).
SAMPLES_OF_OVERLAPPING = """
UNION ALL
SELECT piece.* FROM told CROSS JOIN sampled LEFT JOIN past ON past.meter_id = sampled.meter_id CROSS JOIN LATERAL (
    SELECT {names}, {of_sample} FROM rollup r CROSS JOIN LATERAL (
        SELECT s.* FROM sample s
        WHERE s.series_id = r.series_id AND s.timestamp >= r.start AND s.timestamp < r.start + make_interval(hours => r.hours)
            AND {range}
        OFFSET 0
    ) AS s
    WHERE r.hours = told.hours AND r.series_id = ANY(sampled.ids) AND r.start >= told.start AND r.start < told.finish
        AND r.metadata_run <= 1 AND r.overlap >= {least_overlap} AND (past.before IS NULL OR r.start >= past.before)
    OFFSET 0
) AS piece
"""

# Each document that the partials refer to is read once. PostgreSQL can only hash or merge a full join, whatever numbers of rows
# it expects. Rows without a match have a null count or a null id.
WITH_METADATA = """
WITH piece AS MATERIALIZED ({pieces}), described AS MATERIALIZED (
    SELECT d.id AS described_id {values} FROM metadata d
    WHERE d.id = ANY(ARRAY(SELECT DISTINCT metadata_id FROM piece)) AND {metadata}
)
SELECT * FROM piece FULL JOIN described ON described.described_id = piece.metadata_id
WHERE coalesce(piece.count, 0) > 0 AND coalesce(described.described_id, 0) > 0
"""


def partials_query(
    conditions: FilterConditions,
    *,
    keys: Mapping[str, str],
    metadata_keys: Mapping[str, Sql],
    columns: Iterable[str],
    longest_rollup: int,
    least_overlap: int,
) -> Sql:
    """Return the statement that reads partials of all samples that match ``conditions``, from one snapshot.

    Its columns are ``keys`` (SQL over the series ``x`` and the meter ``m``), ``metadata_keys`` (SQL over the metadata ``d``) and
    ``columns`` of the partials. It reads rollups of up to ``longest_rollup`` hours; with 0 it reads samples only. Rollups whose
    ``overlap`` is ``least_overlap`` or more are not read unless their samples have expired; with 0 all are read.
    """
    needs_metadata = bool(metadata_keys) or conditions.metadata != TRUE
    columns = (*columns, METADATA_ID) if needs_metadata else tuple(columns)
    totals = not needs_metadata and "resource_id" not in keys and not conditions.selects_resources
    selection: dict[str, Sql | str] = {
        "keys": ", ".join(f"{value} AS {name}" for name, value in keys.items()),
        "names": ", ".join(keys),
        "values_of_keys": ", ".join(keys.values()),
        "series": conditions.series,
        "of_sample": partial_from_sample(columns),
    }
    selection["sampled"] = filled(SAMPLED, **selection)
    if longest_rollup:
        partials = filled(
            FROM_ROLLUPS
            + (SAMPLES_OF_MIXED_METADATA if needs_metadata else "")
            + (SAMPLES_OF_OVERLAPPING if least_overlap else ""),
            **selection,
            of_rollup=partial_from_rollup(columns),
            level="x.resource_id = 0" if totals else "x.resource_id > 0",
            longest=longest_rollup,
            range=conditions.range,
            of_span=conditions.time_range.contains_period("h"),
            of_whole=conditions.time_range.contains_period("r"),
            touching=conditions.time_range.overlaps_gap(),
            adjoining=ADJOINING.format(spans="span"),
            gaps=GAPS.format(spans="span"),
            least_overlap=least_overlap,
            unmixed=f"r.overlap < {least_overlap}" if least_overlap else "true",
            in_order=f"(r.overlap < {least_overlap} OR r.start < past.before)" if least_overlap else "true",
            of_meter=", x.meter_id" if least_overlap else "",
            past_of_rolled="LEFT JOIN past ON past.meter_id = rolled.meter_id" if least_overlap else "",
        )
    else:
        partials = filled(
            FROM_SAMPLES,
            **selection,
            added=conditions.joined_for_rest,
            condition=conjunction(conditions.range, conditions.rest),
        )
    if not needs_metadata:
        return partials
    return filled(
        WITH_METADATA,
        pieces=partials,
        values=following(Sql(f"{value} AS {name}", value.parameters) for name, value in metadata_keys.items()),
        metadata=conditions.metadata,
    )
