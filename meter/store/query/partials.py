"""Pieces: what samples of a series amount to, be it one or many that follow one another; and those that tell an answer.

A piece tells ``count``, ``min_volume``, ``max_volume``, ``sum_volume`` and ``squared_deviations`` (the sum of the squared distances from
the mean) of its volumes, the ``first`` and ``last`` time with their volumes, and of the steps within: ``increase`` and
``integral`` (see :mod:`meter.testing.statistics`). Pieces of a series that follow one another in time add up to one piece
exactly, but for the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping

from meter.counter_runs import INTERVALS_CARRIED
from meter.counter_runs import RunKind
from meter.query import SampleFilter
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.postgres.sql import filled
from meter.store.postgres.sql import following
from meter.store.query.access_paths import SERIES_OF_SAMPLE
from meter.store.query.conditions import about_resources
from meter.store.query.conditions import metadata_of_row
from meter.store.query.conditions import needs_series
from meter.store.query.conditions import of_metadata
from meter.store.query.conditions import of_range
from meter.store.query.conditions import of_row
from meter.store.query.conditions import of_series

PIECE = {
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
"""The columns of a piece, of a row ``s`` of ``sample`` and of a row ``r`` of ``rollup``; ``tie`` orders those of one moment.

Whole numbers are doubles here: sums of ``bigint`` take twice the time.
"""


def partial_from_sample(columns: Iterable[str] = PIECE) -> str:
    """Return ``columns`` of the piece that a row ``s`` of ``sample`` is."""
    return ", ".join(f"{(PIECE | METADATA_ID)[column][0]} AS {column}" for column in columns)


def partial_from_rollup(columns: Iterable[str] = PIECE) -> str:
    """Return ``columns`` of the piece that a row ``r`` of ``rollup`` tells."""
    return ", ".join(f"{(PIECE | METADATA_ID)[column][1]} AS {column}" for column in columns)


INCREASE_BETWEEN = (
    "CASE WHEN first_volume >= volume_before THEN first_volume - volume_before"
    f" WHEN before IS NOT NULL THEN CASE WHEN run_kind = {RunKind.DECLARED:d} THEN 0 ELSE first_volume END END"
)
"""What a counter grew from the piece before, of the same run, to this one."""


def carried_hours(elapsed: str, *, within_run: str) -> str:
    """Return the hours for which a volume is carried to the next sample, ``elapsed`` later.

    ``within_run`` says whether that or a later one is of the same run.
    """
    return f"""(least(extract(epoch FROM {elapsed})::float8, CASE
        WHEN polling_interval = 0 OR (run_kind = {RunKind.DECLARED:d} AND {within_run}) THEN 'infinity'
        ELSE {INTERVALS_CARRIED} * polling_interval END) / 3600)"""


def overlaps(window: str) -> str:
    """Ask a piece whether another one in ``window``, whose order is that of ``first``, has some of the time between its ends."""
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
"""The ranges of time before, between and after the hours and days in ``spans``, which do not overlap."""

ADJOINING = """
SELECT hours, min(start) AS start, max(start) + make_interval(hours => hours) AS finish
FROM (SELECT hours, start, row_number() OVER (PARTITION BY hours ORDER BY start) AS n FROM {spans} AS span) AS _
GROUP BY hours, start - n * make_interval(hours => hours)
"""
"""The ranges of time that ``spans`` of equal length cover, one after the other."""

SAMPLED = """
SELECT {keys}, x.meter_id, array_agg(x.id) AS ids FROM series x JOIN meter m ON m.id = x.meter_id
WHERE x.resource_id > 0 AND {series}
GROUP BY {values_of_keys}, x.meter_id
"""

# Series whose keys are the same are looked up together, one range of time after the other: so their rows come with the
# keys, in the order of the index. OFFSET 0 keeps PostgreSQL to it: it cannot know how few ranges there are, and how narrow.
RAW = """
WITH sampled AS MATERIALIZED ({sampled})
SELECT piece.* FROM sampled CROSS JOIN LATERAL (
    SELECT {names}, {of_sample} FROM sample s {added} WHERE s.series_id = ANY(sampled.ids) AND {row}
    OFFSET 0
) AS piece
"""

# Days and hours that are settled and lie in the range are told by rollups, what lies between them by samples only; of a
# past whose samples were let go, hours tell in the gaps too: nothing can be late for them.
ROLLED = """
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

# What a rollup of several metadata tells is asked of its samples.
MIXED = """
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

# Steps between rollups that overlap are asked of the samples, as long as there are any: of all samples of such a series in
# the hour or the day, of whose rollups there is one with this metadata_run.
OVERLAPPING = """
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

METADATA_ID = {"metadata_id": ("s.metadata_id", "r.metadata_id")}
"""One column more, of pieces whose metadata are asked about: 0 for a rollup of several."""

# Documents are looked at once each, and only those that the pieces refer to. A full join can only be hashed or merged: how
# many pieces and documents PostgreSQL expects does not matter. What has no partner has no count, or no id.
DESCRIBED = """
WITH piece AS MATERIALIZED ({pieces}), described AS MATERIALIZED (
    SELECT d.id AS described_id {values} FROM metadata d
    WHERE d.id = ANY(ARRAY(SELECT DISTINCT metadata_id FROM piece)) AND {metadata}
)
SELECT * FROM piece FULL JOIN described ON described.described_id = piece.metadata_id
WHERE coalesce(piece.count, 0) > 0 AND coalesce(described.described_id, 0) > 0
"""


def pieces(
    filter: SampleFilter,
    longest: int,
    keys: Mapping[str, str],
    values: Mapping[str, Sql],
    columns: Iterable[str],
    least_overlap: int = 0,
) -> Sql:
    """Return ``columns`` of pieces that together are the samples of ``filter``, all read from one snapshot.

    They are samples, and rollups of up to ``longest`` hours as far as these can tell: none if that is 0. Each comes with
    ``keys``, of the row ``x`` of its series and the row ``m`` of its meter, and ``values``, of its row ``d`` of ``metadata``.
    Rollups whose ``overlap`` is ``least_overlap`` or more are not read, unless that is 0 or their samples are gone.
    """
    metadata = of_metadata(filter)
    described = bool(values or metadata)
    columns = (*columns, *(METADATA_ID if described else ()))
    totals = not described and "resource_id" not in keys and not about_resources(filter)
    named: dict[str, Sql | str] = {
        "keys": ", ".join(f"{value} AS {name}" for name, value in keys.items()),
        "names": ", ".join(keys),
        "values_of_keys": ", ".join(keys.values()),
        "series": of_series(filter),
    }
    statement = RAW
    if longest:
        statement = ROLLED + (MIXED if described else "") + (OVERLAPPING if least_overlap else "")
    found = filled(
        statement,
        **named,
        sampled=filled(SAMPLED, **named),
        of_sample=partial_from_sample(columns),
        of_rollup=partial_from_rollup(columns),
        added=f"{SERIES_OF_SAMPLE if needs_series(filter) else ''} {metadata_of_row(filter)}",
        row=of_row(filter),
        range=of_range(filter),
        level="x.resource_id = 0" if totals else "x.resource_id > 0",
        longest=longest,
        of_span=_within("h", filter),
        of_whole=_within("r", filter),
        least_overlap=least_overlap,
        unmixed=f"r.overlap < {least_overlap}" if least_overlap else "true",
        in_order=f"(r.overlap < {least_overlap} OR r.start < past.before)" if least_overlap else "true",
        of_meter=", x.meter_id" if least_overlap else "",
        past_of_rolled="LEFT JOIN past ON past.meter_id = rolled.meter_id" if least_overlap else "",
        adjoining=ADJOINING.format(spans="span"),
        gaps=GAPS.format(spans="span"),
        touching=_touching(filter),
    )
    if not described:
        return found
    return filled(
        DESCRIBED,
        pieces=found,
        values=following(Sql(f"{value} AS {name}", value.parameters) for name, value in values.items()),
        metadata=metadata or "true",
    )


def _within(table: str, filter: SampleFilter) -> Sql:
    """Ask a row of ``table`` whether all of its hours lie in the range of ``filter``."""
    bounds = []
    if filter.start is not None:
        bounds.append(Sql(f"{table}.start {'>' if filter.after_start else '>='} %s", (filter.start,)))
    if filter.end is not None:
        bounds.append(Sql(f"{table}.start + make_interval(hours => {table}.hours) <= %s", (filter.end,)))
    return both(bounds)


def _touching(filter: SampleFilter) -> Sql:
    """Ask a row of ``gap`` whether any of it lies in the range of ``filter``."""
    bounds = []
    if filter.start is not None:
        bounds.append(Sql("gap.finish > %s", (filter.start,)))
    if filter.end is not None:
        bounds.append(Sql(f"gap.start {'<=' if filter.through_end else '<'} %s", (filter.end,)))
    return both(bounds)
