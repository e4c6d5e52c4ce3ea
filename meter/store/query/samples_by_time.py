"""All samples of many series in the order of time, by spans of time: plain rows have an index in this order, packed ones have none.

The first span is outside of what is packed. Those that follow last ten minutes, twenty, and so on; PostgreSQL reads no more of them than
a page needs. Each packed row of a week is decompressed to read its part of a span, however short that is: where there are many series,
a page costs as much as a span of ten minutes.
"""

from __future__ import annotations

from meter.store.packing.packed_rows import ROW_ID
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.packed_parts import ids_of_series
from meter.store.query.packed_parts import of_weeks_since
from meter.store.query.packed_parts import packed_part
from meter.store.query.sample_rows import OF_ANY_SERIES
from meter.store.query.sample_rows import listed
from meter.store.query.sample_rows import spread_in_order

SHORTEST_SPAN = "interval '10 minutes'"
TICK = "interval '1 microsecond'"
"""Both ends of a span are included: the last one has the time ``infinity``, too, if a row was altered to have it."""
SPANS = 24
"""The spans are each twice as long as the one before; this one begins, or ends, after 160 years and has no other end."""

BY_SPANS = """(
    SELECT s.* FROM ({spans} OFFSET 0) AS span
    CROSS JOIN LATERAL (
        SELECT * FROM (
            ({plain})
            UNION ALL
            SELECT {columns} FROM ({packed}) s {joins}
            WHERE s.timestamp >= span.first AND s.timestamp <= span.last AND {condition}
        ) s
        ORDER BY {order} LIMIT {limit}
    ) s
    LIMIT {limit}
) s"""

PLAIN = f"""
                SELECT {{columns}} FROM (SELECT s.*, s.ctid AS {ROW_ID} FROM sample s) s {{joins}}
                WHERE {IN_ORDER_OF_TIME} AND s.timestamp >= span.first AND s.timestamp <= span.last AND {{condition}}
                ORDER BY {{order}} LIMIT {{limit}}
"""

# Where nothing is packed, the first span is all time.
SPANS_FORWARD = f"""
SELECT CASE n WHEN 0 THEN '-infinity' ELSE begins + (2 ^ (n - 1) - 1) * {SHORTEST_SPAN} END AS first,
    CASE WHEN n = {SPANS} OR begins = 'infinity' THEN 'infinity' ELSE begins + (2 ^ n - 1) * {SHORTEST_SPAN} - {TICK} END AS last
FROM (
    SELECT greatest({{first}}, coalesce((SELECT min(week) FROM packed_week)::timestamp AT TIME ZONE 'UTC', 'infinity')) AS begins
) AS packed CROSS JOIN generate_series(0, CASE WHEN begins < 'infinity' THEN {SPANS} ELSE 0 END) AS n"""

SPANS_BACKWARD = f"""
SELECT CASE WHEN n = {SPANS} OR begins = '-infinity' THEN '-infinity' ELSE begins - (2 ^ n - 1) * {SHORTEST_SPAN} END AS first,
    CASE n WHEN 0 THEN 'infinity' ELSE begins - (2 ^ (n - 1) - 1) * {SHORTEST_SPAN} - {TICK} END AS last
FROM (
    SELECT least({{last}}, coalesce((SELECT max(p.last) FROM packed_samples p WHERE {OF_ANY_SERIES} AND {{of_weeks}}), '-infinity')) AS begins
) AS packed CROSS JOIN generate_series(0, CASE WHEN begins > '-infinity' THEN {SPANS} ELSE 0 END) AS n"""


def samples_by_time(
    columns: tuple[str, ...],
    bounds: TimeBounds,
    *,
    condition: Sql,
    limit: int,
    series: Sql | str = "true",
    joins: str = "",
    oldest: bool = False,
) -> Sql:
    """Return the FROM item ``s`` of the newest samples of all series that meet ``condition``, or the ``oldest``, with ``columns``.

    ``joins`` is what the condition needs, and ``series`` what it means for a row ``p`` of ``packed_samples``. The columns of the oldest must
    include the id of the row, which is the last part of the order.
    """
    order = f"s.timestamp, s.message_id, s.{ROW_ID}" if oldest else "s.timestamp DESC, s.message_id DESC"
    of_weeks = of_weeks_since(bounds.first)
    return filled(
        BY_SPANS,
        spans=filled(
            SPANS_FORWARD if oldest else SPANS_BACKWARD, first=bounds.first, last=bounds.last, of_weeks=of_weeks
        ),
        columns=listed(columns),
        plain=alternative(
            filled(PLAIN, columns=listed(columns), joins=joins, condition=condition, order=order, limit=limit),
            spread_in_order(
                columns,
                bounds.within("span.first", "span.last"),
                series=ids_of_series(series),
                condition=condition,
                limit=limit,
                joins=joins,
                oldest=oldest,
            ),
        ),
        packed=packed_part(
            columns,
            bounds.within("span.first", "span.last"),
            series,
            filled("{of_any_series} AND {of_weeks}", of_any_series=OF_ANY_SERIES, of_weeks=of_weeks),
        ),
        joins=joins,
        condition=condition,
        order=order,
        limit=limit,
    )
