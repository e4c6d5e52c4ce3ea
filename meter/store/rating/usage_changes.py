"""Which days have changed since their usage was computed: by samples that were stored, voided or restored since."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from datetime import datetime
from typing import NamedTuple

from meter.rating.book.price_book import Sku
from meter.store.postgres.pool import Pool
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import IN_ORDER_OF_RECORDING
from meter.store.query.before_range import IS_MEASURED
from meter.store.query.named_edges import edge_of_series
from meter.store.query.packed_parts import NO_START
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.sample_rows import RECORDED_SINCE
from meter.store.query.sample_rows import samples_between
from meter.store.rating.usage_samples import LOOK_BACK

DAYS = "SELECT sku_id, day, finish, as_of FROM usage_day WHERE sku_id = ANY(%s) AND day >= %s AND day < %s"

TIMES = ("timestamp", "message_id")


def recorded_after(since: str, first: Sql, last: Sql) -> Sql:
    """Return the FROM item ``s`` of samples between ``first`` and ``last`` that were recorded at ``since`` or later."""
    return samples_between(
        ("timestamp", "recorded_at", "series_id"),
        TimeBounds(first, last),
        plain=IN_ORDER_OF_RECORDING,
        packed=filled(RECORDED_SINCE, since=since),
        recorded_since=since,
    )


RECORDED_SINCE_THEN = recorded_after("%(since)s", NO_START, Sql(f"%(end)s::timestamptz + {LOOK_BACK}"))
LAST_BEFORE = edge_of_series(
    TIMES, f"c.first - {LOOK_BACK}", "c.first", series="x.id", condition="s.timestamp < c.first"
)
FIRST_AFTER = edge_of_series(
    TIMES,
    "c.last",
    f"c.last + {LOOK_BACK}",
    series="x.id",
    condition=f"s.timestamp > c.last AND s.timestamp < c.last + {LOOK_BACK}",
    oldest=True,
)

# Of what was told without polls, and of what a service listed, which ends it.
NEAR_OR_TOLD = f"""(
                s.timestamp >= %(start)s::timestamptz - {LOOK_BACK}
                OR EXISTS (SELECT FROM series o WHERE o.id = s.series_id AND NOT ({IS_MEASURED}))
            )"""
NEXT_TOLD = "CASE WHEN c.told THEN coalesce(min(next) FILTER (WHERE NOT measured), %(end)s) END"

# A sample changes what follows from the one before it of its resource until the one after it: a step of a counter, or the time in
# which a volume holds. What others told does not count where polls measured the same time: then also what follows from the poll before,
# and from that of its run. Times are told in hours, of which there are few. A volume that was told without polls holds as long as the resource
# exists, so that one of any time changes all that follows until the next one.
CHANGES = f"""
WITH recent AS MATERIALIZED (
    SELECT s.series_id, min(s.timestamp) AS first, max(s.timestamp) AS last FROM (
        SELECT s.series_id, s.timestamp FROM {RECORDED_SINCE_THEN}
        WHERE s.recorded_at > %(since)s AND s.recorded_at <= %(as_of)s
            AND s.timestamp < %(end)s::timestamptz + {LOOK_BACK} AND {NEAR_OR_TOLD}
        UNION ALL
        SELECT v.series_id, v.timestamp FROM voided_sample v
        WHERE v.voided_at > %(since)s
            AND v.timestamp < %(end)s::timestamptz + {LOOK_BACK} AND {NEAR_OR_TOLD.replace("s.", "v.")}
    ) AS s GROUP BY s.series_id
), of_resource AS MATERIALIZED (
    SELECT m.name, x.resource_id, x.run_kind, x.run_id, min(r.first) AS first, max(r.last) AS last,
        max(x.polling_interval) AS polling_interval, bool_or(m.type = 'gauge' AND NOT ({IS_MEASURED})) AS told
    FROM recent r JOIN series x ON x.id = r.series_id JOIN meter m ON m.id = x.meter_id
    WHERE m.name = ANY(%(meters)s)
    GROUP BY m.name, x.resource_id, x.run_kind, x.run_id
)
SELECT DISTINCT c.name,
    date_trunc('hour', neighbour.since), date_trunc('hour', neighbour.until)
FROM of_resource c CROSS JOIN LATERAL (
    SELECT CASE WHEN bool_or(polled) AND NOT bool_and(polled)
            THEN least(c.first - make_interval(secs => c.polling_interval), max(before), max(before) FILTER (WHERE of_run),
                max(before) FILTER (WHERE polled))
            WHEN c.first - least(max(before), max(before) FILTER (WHERE of_run)) > 3 * make_interval(secs => c.polling_interval)
            THEN least(max(before), max(before) FILTER (WHERE of_run))
            ELSE c.first END AS since,
        coalesce(greatest(min(next), min(next) FILTER (WHERE of_run), {NEXT_TOLD}), c.last) AS until
    FROM (
        SELECT x.polling_interval > 0 AS polled, {IS_MEASURED} AS measured, (x.run_kind, x.run_id) = (c.run_kind, c.run_id) AS of_run, b.before, b.next
        FROM meter m JOIN series x ON x.meter_id = m.id AND x.resource_id = c.resource_id CROSS JOIN LATERAL (
            SELECT (SELECT s.timestamp FROM ({LAST_BEFORE}) AS s) AS before, (SELECT s.timestamp FROM ({FIRST_AFTER}) AS s) AS next
            OFFSET 0
        ) AS b
        WHERE m.name = c.name
    ) AS of_series
) AS neighbour
WHERE neighbour.until >= %(start)s AND neighbour.since < %(end)s
"""

RESTORED = "SELECT EXISTS (SELECT FROM audit_entry WHERE action = 'unvoid' AND at > %s)"
"""Samples that are restored have the time of their first recording."""

LATE = f"""
SELECT EXISTS (
    SELECT FROM {recorded_after("%(as_of)s::timestamptz", NO_START, Sql("%(as_of)s::timestamptz"))}
    WHERE s.recorded_at > %(as_of)s AND s.timestamp < %(as_of)s::timestamptz - interval '1 hour'
)
"""


class KeptDay(NamedTuple):
    """A day of a SKU whose usage is kept, as of a time, as far as ``finish``."""

    sku_id: int
    day: date
    finish: datetime
    as_of: datetime | None
    """``None`` if it has to be computed again."""


class ChangedHours(NamedTuple):
    """Samples of a meter changed something from the hour ``first`` until the end of the hour ``last``."""

    meter: str
    first: datetime
    last: datetime


async def kept_days(pool: Pool, skus: Collection[int], first: date, until: date) -> Mapping[tuple[int, date], KeptDay]:
    """Return what is kept of the days from ``first`` until before ``until``, by SKU and day."""
    statement = DAYS.replace("as_of FROM", "nullif(as_of, '-infinity') FROM")
    rows = await pool.rows(statement, [list(skus), first, until])
    return {(row[0], row[1]): KeptDay(*row) for row in rows}


async def changed_hours(
    pool: Pool, meters: Iterable[str], since: datetime, as_of: datetime, start: datetime, end: datetime
) -> Sequence[ChangedHours] | None:
    """Return where samples of ``meters`` changed between ``since`` and ``as_of``; ``None`` if anything may have."""
    [[restored]] = await pool.rows(RESTORED, [since])
    if restored:
        return None
    rows = await pool.rows(
        CHANGES, {"meters": sorted(set(meters)), "since": since, "as_of": as_of, "start": start, "end": end}
    )
    return [ChangedHours(*row) for row in rows]


async def late_samples_since(pool: Pool, as_of: datetime) -> bool:
    """Return whether samples of hours that may be final were recorded after ``as_of``: rollups may contain them."""
    [[late]] = await pool.rows(LATE, {"as_of": as_of})
    return bool(late)


def meters_of_sku(sku: Sku, life_meters: Sequence[str]) -> Sequence[str]:
    """Return the meters whose samples change the usage of ``sku``."""
    if sku.usage == "exists":
        return life_meters
    return [sku.meter] if sku.meter else []
