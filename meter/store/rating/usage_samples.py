"""Common table expressions that read the samples of which usage is measured: ``wanted``, the series, and ``read``, their samples.

Parameters are named, as in :mod:`meter.store.rating.usage_sql`, which measures what these read.
"""

from __future__ import annotations

from meter.store.packing.packed_rows import VALUE_COLUMNS
from meter.store.postgres.sql import Sql
from meter.store.query.sample_rows import TimeBounds
from meter.store.query.sample_rows import edge_of_series
from meter.store.query.sample_rows import samples_between
from meter.store.query.steps import IS_MEASURED

LOOK_BACK = "interval '45 days'"
"""How long before a day, and after it, the neighbours of its samples are searched."""

# What clients submit is not measured: it is not billed.
SUBMITTED = """EXISTS (
    SELECT FROM source o JOIN project p ON p.id = x.project_id
    WHERE o.id = x.source_id AND starts_with(o.name, p.name || ':')
)"""

# Units are numbers, and types of meters their first letter (cumulative, delta, gauge): samples are many.
WANTED = f"""
wanted AS MATERIALIZED (
    SELECT x.id, x.resource_id, x.project_id, m.unit, m.kind, x.polling_interval, x.polling_interval > 0 AS polled, x.run_kind, x.run_id,
        {IS_MEASURED} AS measured
    FROM (
        SELECT id, min(id) OVER (PARTITION BY unit) AS unit, type::"char" AS kind FROM meter WHERE name = %(meter)s
    ) AS m CROSS JOIN LATERAL (
        SELECT x.* FROM series x
        WHERE x.meter_id = m.id AND x.resource_id > %(after)s AND x.resource_id <= %(through)s
            AND (%(resources)s::integer[] IS NULL OR x.resource_id = ANY(%(resources)s))
            AND x.retained_until >= %(start)s::timestamptz - {LOOK_BACK}
        OFFSET 0
    ) AS x
    WHERE NOT {SUBMITTED}
)"""

# meter.rating.exact.shortest in SQL. A cast to numeric alone would round to 15 digits.
EXACT_VOLUME = """CASE
    WHEN abs(s.volume) < 9007199254740992 AND s.volume = floor(s.volume) THEN s.volume::bigint::numeric
    WHEN abs(s.volume) < 9007199254740992 THEN s.volume::text::numeric
    ELSE floor(s.volume / 1125899906842624)::bigint * 1125899906842624::numeric
        + (s.volume - floor(s.volume / 1125899906842624) * 1125899906842624)::bigint END"""

COLUMNS = f"w.*, s.timestamp, s.message_id, s.metadata_id, {EXACT_VOLUME} AS volume"

START, FINISH = "%(start)s::timestamptz", "%(finish)s::timestamptz"
RECORDED = "s.recorded_at <= %(as_of)s"
INTERVAL_END = f"{FINISH} + make_interval(secs => w.polling_interval)"
OF_WANTED = "p.series_id = w.id"

OLDEST_AFTER = edge_of_series(
    VALUE_COLUMNS,
    FINISH,
    f"{FINISH} + {LOOK_BACK}",
    series="w.id",
    condition=f"s.timestamp < {FINISH} + {LOOK_BACK} AND {RECORDED}",
    oldest=True,
)

OF_TIME = f"""
    SELECT {COLUMNS}
    FROM wanted w CROSS JOIN LATERAL (
        SELECT s.timestamp, s.message_id, s.metadata_id, s.volume
        FROM {samples_between(VALUE_COLUMNS, TimeBounds(Sql(START), Sql(FINISH)), series=OF_WANTED)}
        WHERE s.series_id = w.id AND s.timestamp >= %(start)s AND s.timestamp < %(finish)s AND s.recorded_at <= %(as_of)s
        OFFSET 0
    ) AS s"""

BEFORE = f"""
    SELECT {COLUMNS}
    FROM wanted w CROSS JOIN LATERAL ({
    edge_of_series(
        VALUE_COLUMNS, f"{START} - {LOOK_BACK}", START, series="w.id", condition=f"s.timestamp < {START} AND {RECORDED}"
    )
}) AS s"""

# Series that were polled, of resources that others told of, too: what was told does not count where polls measured the same time, also
# if the day ends in between.
POLLED_BESIDE_OTHERS = """w.polled AND EXISTS (
        SELECT FROM wanted n WHERE n.resource_id = w.resource_id AND n.unit = w.unit AND NOT n.polled
    )"""

FIRST_BEFORE = f"""
    SELECT {COLUMNS}
    FROM wanted w CROSS JOIN LATERAL ({
    edge_of_series(
        VALUE_COLUMNS,
        f"{START} - {LOOK_BACK}",
        START,
        series="w.id",
        condition=f"s.timestamp < {START} AND {RECORDED}",
        oldest=True,
    )
}) AS s
    WHERE {POLLED_BESIDE_OTHERS}"""

FIRST_AFTER = f"""
    SELECT {COLUMNS}
    FROM wanted w CROSS JOIN LATERAL ({OLDEST_AFTER}) AS s
    WHERE {POLLED_BESIDE_OTHERS}"""

INTERVAL_AFTER = f"""
    SELECT {COLUMNS}
    FROM wanted w CROSS JOIN LATERAL (
        SELECT s.timestamp, s.message_id, s.metadata_id, s.volume
        FROM {samples_between(VALUE_COLUMNS, TimeBounds(Sql(FINISH), Sql(f"least({FINISH} + {LOOK_BACK}, {INTERVAL_END})")), series=OF_WANTED)}
        WHERE s.series_id = w.id AND s.timestamp >= %(finish)s AND s.timestamp < %(finish)s::timestamptz + {LOOK_BACK}
            AND s.timestamp < {INTERVAL_END} AND s.recorded_at <= %(as_of)s
        OFFSET 0
    ) AS s
    WHERE {POLLED_BESIDE_OTHERS}"""

READ = f"read AS MATERIALIZED ({OF_TIME}\n)"
READ_WITH_BEFORE = f"read AS MATERIALIZED ({OF_TIME}\n    UNION ALL{BEFORE}\n)"
READ_DELTAS = f"read AS MATERIALIZED ({OF_TIME}\n    UNION ALL{INTERVAL_AFTER}\n)"
