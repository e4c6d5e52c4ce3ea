"""The samples of which usage is computed, as common table expressions: ``wanted``, their series, and ``read``.

Those on archive servers are read of all series at once. :mod:`meter.store.rating.usage_sql` names the parameters.
"""

from __future__ import annotations

from meter.store.packing.packed_rows import VALUE_COLUMNS
from meter.store.postgres.sql import Sql
from meter.store.query.before_range import IS_MEASURED
from meter.store.query.named_edges import archived_edges_of
from meter.store.query.named_edges import edge_of_series
from meter.store.query.packed_parts import NO_START
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.packed_parts import archived_part
from meter.store.query.sample_rows import samples_between

LOOK_BACK = "interval '45 days'"
"""How long before a day, and after it, the neighbours of its samples are searched."""

# What clients submit is not measured: it is not billed.
SUBMITTED = """EXISTS (
    SELECT FROM source o JOIN project p ON p.id = x.project_id
    WHERE o.id = x.source_id AND starts_with(o.name, p.name || ':')
)"""

# Units are numbers, and types of meters their first letter (cumulative, delta, gauge): samples are many.
SERIES = f"""
{{name}} AS MATERIALIZED (
    SELECT x.id, x.resource_id, x.project_id, m.unit, m.kind, x.polling_interval, x.polling_interval > 0 AS polled, x.run_kind, x.run_id,
        {IS_MEASURED} AS measured
    FROM (
        SELECT id, min(id) OVER (PARTITION BY unit) AS unit, type::"char" AS kind FROM meter WHERE name = %(meter)s
    ) AS m CROSS JOIN LATERAL (
        SELECT x.* FROM series x
        WHERE x.meter_id = m.id AND x.resource_id > %(after)s AND x.resource_id <= %(through)s
            AND (%(resources)s::integer[] IS NULL OR x.resource_id = ANY(%(resources)s))
            AND {{condition}}
        OFFSET 0
    ) AS x
    WHERE NOT {SUBMITTED}
)"""
WANTED = SERIES.format(name="wanted", condition=f"x.retained_until >= %(start)s::timestamptz - {LOOK_BACK}")

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
WANTED_IDS = "ARRAY(SELECT id FROM wanted)"


def _edges(first: str, until: str, name: str, *, oldest: bool, ids: str = WANTED_IDS) -> tuple[str, str]:
    """Return the subquery of the newest or the oldest sample of the series ``w`` from ``first`` until before ``until``.

    And before it the table ``name`` that it needs, with those in the middle of archived rows.
    """
    condition = f"s.timestamp < {until} AND {RECORDED}"
    table = archived_edges_of(name, VALUE_COLUMNS, first, until, ids=ids, condition=condition, oldest=oldest)
    return table, edge_of_series(
        VALUE_COLUMNS, first, until, series="w.id", condition=condition, oldest=oldest, edges=name
    )


ARCHIVED_BEFORE, NEWEST_BEFORE = _edges(f"{START} - {LOOK_BACK}", START, "archived_before", oldest=False)
ARCHIVED_FIRST, OLDEST_BEFORE = _edges(f"{START} - {LOOK_BACK}", START, "archived_first", oldest=True)
ARCHIVED_AFTER, OLDEST_AFTER = _edges(FINISH, f"{FINISH} + {LOOK_BACK}", "archived_after", oldest=True)


def _samples_of(series: str, first: str, last: str, condition: str, *, by_interval: bool = False) -> str:
    """Return the statement of the samples of the table ``series`` that lie between two times, and meet ``condition``.

    Those on archive servers are read of all series at once; ``by_interval``: of all that have one interval, on which ``last`` depends.
    """
    bounds = TimeBounds(Sql(first), Sql(last))
    here = samples_between(VALUE_COLUMNS, bounds, series=OF_WANTED, archived=False)
    archived: Sql | str = archived_part(
        VALUE_COLUMNS, bounds, "w.ids" if by_interval else f"ARRAY(SELECT id FROM {series})"
    )
    if by_interval:
        archived = f"""
        SELECT s.* FROM (SELECT polling_interval, array_agg(id) AS ids FROM {series} GROUP BY polling_interval) AS w
        CROSS JOIN LATERAL ({archived}) AS s OFFSET 0"""
    return f"""
    SELECT {COLUMNS}
    FROM {series} w CROSS JOIN LATERAL (
        SELECT s.timestamp, s.message_id, s.metadata_id, s.volume
        FROM {here}
        WHERE s.series_id = w.id AND {condition}
        OFFSET 0
    ) AS s
    UNION ALL
    SELECT {COLUMNS}
    FROM ({archived}) AS s JOIN {series} w ON w.id = s.series_id
    WHERE {condition}"""


OF_TIME = _samples_of(
    "wanted", START, FINISH, "s.timestamp >= %(start)s AND s.timestamp < %(finish)s AND s.recorded_at <= %(as_of)s"
)

BEFORE = f"""
    SELECT {COLUMNS}
    FROM wanted w CROSS JOIN LATERAL ({NEWEST_BEFORE}) AS s"""

# Series that were polled, of resources that others told of, too: what was told does not count where polls measured the same time, also
# if the day ends in between.
POLLED_BESIDE_OTHERS = """w.polled AND EXISTS (
        SELECT FROM wanted n WHERE n.resource_id = w.resource_id AND n.unit = w.unit AND NOT n.polled
    )"""

FIRST_BEFORE = f"""
    SELECT {COLUMNS}
    FROM wanted w CROSS JOIN LATERAL ({OLDEST_BEFORE}) AS s
    WHERE {POLLED_BESIDE_OTHERS}"""

FIRST_AFTER = f"""
    SELECT {COLUMNS}
    FROM wanted w CROSS JOIN LATERAL ({OLDEST_AFTER}) AS s
    WHERE {POLLED_BESIDE_OTHERS}"""

# Only of series for which there is an interval after the day.
BESIDE_OTHERS = f"beside AS MATERIALIZED (SELECT w.* FROM wanted w WHERE {POLLED_BESIDE_OTHERS})"
INTERVAL_AFTER = _samples_of(
    "beside",
    FINISH,
    f"least({FINISH} + {LOOK_BACK}, {INTERVAL_END})",
    f"s.timestamp >= %(finish)s AND s.timestamp < %(finish)s::timestamptz + {LOOK_BACK} AND s.timestamp < {INTERVAL_END}"
    " AND s.recorded_at <= %(as_of)s",
    by_interval=True,
)

# What was told holds as long as its resource exists, however long ago it was told. It is looked for in all time, but only for resources that
# exist on the day, of which something was told without polls, and nothing of what services have recorded is newer. A list that a service was
# polled for ends what was told before it, and does not hold itself beyond LOOK_BACK.
TOLD = SERIES.format(
    name="told",
    condition=f"""x.resource_id = ANY(ARRAY(
                SELECT DISTINCT o.resource_id FROM meter n CROSS JOIN LATERAL (
                    SELECT o.resource_id FROM series o
                    WHERE o.meter_id = n.id AND o.resource_id > %(after)s AND o.resource_id <= %(through)s AND o.polling_interval = 0
                        AND (%(resources)s::integer[] IS NULL OR o.resource_id = ANY(%(resources)s))
                    OFFSET 0
                ) AS o
                WHERE n.name = %(meter)s AND o.resource_id IN (SELECT resource_id FROM life)
                    AND o.resource_id NOT IN (SELECT resource_id FROM before WHERE NOT measured)
            )) AND NOT ({IS_MEASURED})""",
)
ARCHIVED_TOLD, NEWEST_TOLD = _edges(
    str(NO_START), f"{START} - {LOOK_BACK}", "archived_told", oldest=False, ids="ARRAY(SELECT id FROM told)"
)
LAST_TOLD = f"""
    SELECT * FROM (
        SELECT DISTINCT ON (w.resource_id) {COLUMNS}
        FROM told w CROSS JOIN LATERAL ({NEWEST_TOLD}) AS s
        ORDER BY w.resource_id, s.timestamp DESC, s.message_id DESC
    ) AS last WHERE NOT polled"""

# Resources of which something was told, and that existed before what has not expired, but whose samples are no more.
FORGOTTEN = """
forgotten AS MATERIALIZED (
    SELECT DISTINCT w.resource_id FROM told w
    WHERE NOT w.polled AND w.resource_id IN (SELECT resource_id FROM life_of_any_time WHERE began < %(cutoff)s::timestamptz)
        AND w.resource_id NOT IN (SELECT resource_id FROM read)
)"""

EDGES = f"{ARCHIVED_BEFORE}, {ARCHIVED_FIRST}, {ARCHIVED_AFTER}"
READ = f"read AS MATERIALIZED ({OF_TIME}\n)"
READ_WITH_BEFORE = f"{EDGES}, read AS MATERIALIZED ({OF_TIME}\n    UNION ALL{BEFORE}\n)"
READ_GAUGES = f"""{EDGES}, before AS MATERIALIZED ({BEFORE}
), {TOLD}, {ARCHIVED_TOLD}, read AS MATERIALIZED ({OF_TIME}
    UNION ALL SELECT * FROM before
    UNION ALL {LAST_TOLD}
), {FORGOTTEN}"""
READ_DELTAS = f"{BESIDE_OTHERS}, read AS MATERIALIZED ({OF_TIME}\n    UNION ALL{INTERVAL_AFTER}\n)"
