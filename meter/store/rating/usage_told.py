"""Which resources have gauges that were told of without polls: what was told may hold as long as they exist, however long ago it was."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from meter.store.postgres.pool import Pool
from meter.store.rating.usage_rows import SampledTime

# Series without a polling interval are found in the index that has it. Samples are not looked at.
TOLD_RESOURCES = """
SELECT x.resource_id, greatest(min(l.began), %(start)s), least(max(l.ended), %(finish)s)
FROM (
    SELECT DISTINCT x.resource_id FROM meter m CROSS JOIN LATERAL (
        SELECT x.resource_id FROM series x
        WHERE x.meter_id = m.id AND x.resource_id > %(after)s AND x.polling_interval = 0
        OFFSET 0
    ) AS x
    WHERE m.name = %(meter)s
) AS x CROSS JOIN LATERAL (
    SELECT l.began, l.ended FROM usage_life l
    WHERE l.resource_id = x.resource_id AND l.began < %(finish)s AND l.ended > %(start)s
    OFFSET 0
) AS l
GROUP BY x.resource_id ORDER BY 1 LIMIT %(rows)s
"""

TOLD_AMONG = """
SELECT DISTINCT x.resource_id FROM unnest(%(ids)s::integer[]) AS given (id) CROSS JOIN LATERAL (
    SELECT x.resource_id FROM series x
    WHERE x.resource_id = given.id AND x.meter_id IN (SELECT id FROM meter WHERE name = %(meter)s) AND x.polling_interval = 0
    OFFSET 0
) AS x
"""

TOLD_ROWS = 5_000
"""Resources that one statement finds."""


async def told_resources(pool: Pool, meter: str, start: datetime, finish: datetime) -> list[SampledTime]:
    """Return from when until when each resource existed between two times of which ``meter`` was ever told without polls, by id."""
    found: list[SampledTime] = []
    while True:
        parameters = {"meter": meter, "start": start, "finish": finish, "rows": TOLD_ROWS}
        after = found[-1].resource_id if found else 0
        rows = await pool.rows(TOLD_RESOURCES, {**parameters, "after": after})
        found += [SampledTime(*row) for row in rows]
        if len(rows) < TOLD_ROWS:
            return found


async def told_among(pool: Pool, meter: str, ids: Collection[int]) -> list[int]:
    """Return the resources among ``ids`` of which ``meter`` was ever told without polls, sorted."""
    return sorted(id for [id] in await pool.rows(TOLD_AMONG, {"ids": sorted(ids), "meter": meter}))
