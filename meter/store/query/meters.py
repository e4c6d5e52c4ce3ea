"""Statements that list meters."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import combined
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import NEWEST_FIRST
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import FilterConditions
from meter.store.query.resource_owner import DESCRIBES
from meter.store.query.resource_owner import OWNER
from meter.store.query.series_ends import ENDS_TABLES
from meter.store.query.series_ends import IS_PROVED
from meter.store.query.series_ends import newest_by_rollups
from meter.store.query.spread_edges import any_of_each
from meter.store.query.spread_edges import edge_of_each
from meter.store.query.spread_edges import edge_tables

# Meters of resources are sorted before their samples are looked up (OFFSET 0 keeps the subquery apart), so that a page looks up
# no more than it shows. Where all series have one owner, as nearly always, it suffices that one of them has a sample.
METERS = """
{tables}
SELECT listed.name, listed.type, listed.unit, listed.resource, u.name, p.name, o.name
FROM (
    SELECT m.name, m.type, m.unit, x.*, r.name AS resource, x.of_several OR x.of_several_users AS by_newest
    FROM (
        SELECT x.meter_id, x.resource_id, array_agg(x.id) AS ids, min(x.user_id) AS user_id, min(x.project_id) AS project_id,
            min(x.source_id) AS source_id, min(x.project_id) < max(x.project_id) AS of_several,
            min(x.user_id) < max(x.user_id) OR min(x.source_id) < max(x.source_id) AS of_several_users
        FROM (SELECT * FROM series x WHERE {series} OFFSET 0) x
        GROUP BY x.meter_id, x.resource_id OFFSET 0
    ) x
    CROSS JOIN LATERAL (SELECT m.name, m.type, m.unit FROM meter m WHERE m.id = x.meter_id OFFSET 0) m
    CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
    ORDER BY m.name, r.name, m.type, m.unit OFFSET 0
) listed
CROSS JOIN LATERAL (
    SELECT listed.user_id, listed.project_id, listed.source_id WHERE NOT listed.by_newest AND {is_proved}
    UNION ALL
    (
        SELECT x.user_id, x.project_id, x.source_id
        FROM series x
        CROSS JOIN LATERAL ({any}) sample
        WHERE NOT listed.by_newest AND x.id = ANY(listed.ids)
        LIMIT 1
    )
    UNION ALL
    (
        SELECT x.user_id, x.project_id, x.source_id
        FROM (SELECT WHERE listed.by_newest) several {owner}
        CROSS JOIN series x
        CROSS JOIN LATERAL ({newest}) sample
        WHERE x.id = ANY(listed.ids)
        ORDER BY {describing_first} sample.timestamp DESC, sample.message_id DESC LIMIT 1
    )
    LIMIT 1
) newest
LEFT JOIN LATERAL (SELECT u.name FROM "user" u WHERE u.id = newest.user_id OFFSET 0) u ON true
LEFT JOIN LATERAL (SELECT p.name FROM project p WHERE p.id = newest.project_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = newest.source_id OFFSET 0) o ON true
ORDER BY listed.name, listed.resource, listed.type, listed.unit LIMIT {limit}
"""

# LIMIT 1 keeps PostgreSQL from reading all samples of a series.
UNIQUE_METERS = """
{tables}
SELECT m.name, m.type, m.unit
FROM meter m
CROSS JOIN LATERAL (
    SELECT FROM series x
    CROSS JOIN LATERAL ({any}) s
    WHERE x.meter_id = m.id AND {series}
    LIMIT 1
) existing
ORDER BY m.name, m.type, m.unit LIMIT {limit}
"""

# Within a project: begins with the meters that its series have, not with all meters.
UNIQUE_METERS_OF_PROJECT = """
{tables}
SELECT m.name, m.type, m.unit
FROM (SELECT x.meter_id, array_agg(x.id) AS ids FROM series x WHERE {series} GROUP BY x.meter_id OFFSET 0) listed
CROSS JOIN LATERAL (SELECT m.name, m.type, m.unit FROM meter m WHERE m.id = listed.meter_id OFFSET 0) m
CROSS JOIN LATERAL (
    SELECT FROM series x
    CROSS JOIN LATERAL ({any}) s
    WHERE x.id = ANY(listed.ids)
    LIMIT 1
) existing
ORDER BY m.name, m.type, m.unit LIMIT {limit}
"""


class StoredMeterRow(NamedTuple):
    """A row of :func:`meters_query`; unique meters have no resource, owner or source."""

    name: str
    type: str
    unit: str
    resource_id: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    source: str | None = None


def meters_query(conditions: FilterConditions, limit: int, recent: datetime, *, unique: bool) -> Sql:
    """Return the statement for ``IStore.meters``, whose rows are each a :class:`StoredMeterRow`.

    Most series are expected to have samples since ``recent``; the answer does not depend on it.
    """
    within_project = conditions.visible != TRUE
    by_rollups = conditions.sample == TRUE and not unique
    columns = "s.timestamp, s.message_id"
    edges, newest = edge_tables(conditions, oldest=False), edge_of_each(conditions, columns)
    listed = METERS if not unique else UNIQUE_METERS_OF_PROJECT if within_project else UNIQUE_METERS
    return filled(
        f"{NEWEST_FIRST}{listed}",
        tables=combined(ENDS_TABLES, edges) if by_rollups else edges,
        is_proved=alternative(IS_PROVED.format(ids="listed.ids", meter="listed.meter_id"), "false")
        if by_rollups
        else "false",
        owner="" if within_project else OWNER.format(resource="listed.resource_id", condition="AND listed.of_several"),
        describing_first="" if within_project else f"{DESCRIBES} DESC,",
        newest=combined(newest_by_rollups(columns, Sql("%s::timestamptz", (recent,))), newest)
        if by_rollups
        else newest,
        any=any_of_each(conditions),
        series=conditions.series,
        limit=Sql("%s", (limit,)),
    )
