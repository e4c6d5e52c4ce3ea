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
from meter.store.query.series_ends import IS_PROVED
from meter.store.query.series_ends import EndWeeks
from meter.store.query.series_ends import any_in_weeks
from meter.store.query.series_ends import ends_tables
from meter.store.query.series_ends import newest_by_rollups
from meter.store.query.spread_edges import any_of_each
from meter.store.query.spread_edges import edge_of_each
from meter.store.query.spread_edges import edge_tables

FEW_SERIES = 5000
"""The series of a meter are all read and sorted, which takes a few milliseconds, unless there are more than these."""

LATEST_SERIES = 50
"""Series of a meter that are looked at to find out whether it has samples: those that may have the latest ones."""

MAX_CANDIDATES = 2500
"""A page for which more candidates would be looked up reads all series at once."""

LISTED = """
    SELECT m.name, m.type, m.unit, x.*, r.name AS resource, x.of_several OR x.of_several_users AS by_newest
    FROM (
        SELECT x.meter_id, x.resource_id, array_agg(x.id) AS ids, min(x.user_id) AS user_id, min(x.project_id) AS project_id,
            min(x.source_id) AS source_id, min(x.project_id) < max(x.project_id) AS of_several,
            min(x.user_id) < max(x.user_id) OR min(x.source_id) < max(x.source_id) AS of_several_users,
            min(x.candidates) AS candidates
        FROM {listed_series} x
        GROUP BY x.meter_id, x.resource_id OFFSET 0
    ) x
    CROSS JOIN LATERAL (SELECT m.name, m.type, m.unit FROM meter m WHERE m.id = x.meter_id OFFSET 0) m
    CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
    ORDER BY m.name, r.name, m.type, m.unit OFFSET 0
"""

# Meters of resources are sorted before their samples are looked up (OFFSET 0 keeps the subquery apart), so that a page looks up
# no more than it shows. Where all series have one owner, as nearly always, it suffices that one of them has a sample.
METERS = """
{tables}
SELECT listed.name, listed.type, listed.unit, listed.resource, u.name, p.name, o.name, newest.decided, listed.candidates
FROM ({listed}) listed
CROSS JOIN LATERAL (
    SELECT listed.user_id, listed.project_id, listed.source_id, true AS decided WHERE NOT listed.by_newest AND {is_proved}
    UNION ALL
    (
        SELECT x.user_id, x.project_id, x.source_id, true
        FROM series x
        CROSS JOIN LATERAL ({any}) sample
        WHERE NOT listed.by_newest AND x.id = ANY(listed.ids)
        LIMIT 1
    )
    UNION ALL
    (
        SELECT x.user_id, x.project_id, x.source_id, {decided}
        FROM (SELECT WHERE listed.by_newest) several {owner}
        CROSS JOIN series x
        CROSS JOIN LATERAL ({newest}) sample
        WHERE x.id = ANY(listed.ids)
        ORDER BY {describing_first} sample.timestamp DESC, sample.message_id DESC LIMIT 1
    )
    {or_undecided}
    LIMIT 1
) newest
LEFT JOIN LATERAL (SELECT u.name FROM "user" u WHERE u.id = newest.user_id OFFSET 0) u ON true
LEFT JOIN LATERAL (SELECT p.name FROM project p WHERE p.id = newest.project_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = newest.source_id OFFSET 0) o ON true
ORDER BY listed.name, listed.resource, listed.type, listed.unit LIMIT {limit}
"""

# Samples of one time of which the ids are not known are ordered by nothing.
DECIDED = """(SELECT known FROM gaps_known)
            AND (sample.message_id IS NOT NULL OR count(*) OVER (PARTITION BY {describing_first} sample.timestamp) = 1)"""
OR_UNDECIDED = """UNION ALL
    SELECT listed.user_id, listed.project_id, listed.source_id, false WHERE NOT listed.by_newest OR NOT (SELECT known FROM gaps_known)"""

MATCHING_SERIES = "(SELECT *, 0 AS candidates FROM series x WHERE {series} OFFSET 0)"

# The series of the first meters of resources in the order of the list, at least {candidates} of them if there are as many: name by name,
# and no further. Of a name with few series all are read; otherwise resources are walked in the order of their names, as only some need
# be looked at until enough of them have the meter. WITH TIES: a resource may have meters of one name in several units.
FIRST_SERIES = """(
    WITH RECURSIVE listed_name AS (
        SELECT ''::text COLLATE "C" AS name, 0 AS total, '{{}}'::integer[] AS meter_ids, '{{}}'::integer[] AS resource_ids
        UNION ALL
        SELECT meters.name, before.total + coalesce(cardinality(pairs.meter_ids), 0), pairs.meter_ids, pairs.resource_ids
        FROM listed_name before
        CROSS JOIN LATERAL (
            SELECT m.name, array_agg(m.id) AS ids FROM meter m
            WHERE m.name = (SELECT following.name FROM meter following WHERE following.name > before.name ORDER BY following.name LIMIT 1)
            GROUP BY m.name
        ) meters
        CROSS JOIN LATERAL (
            SELECT count(*) > {few_series} AS are_many
            FROM (SELECT FROM series x WHERE x.meter_id = ANY(meters.ids) LIMIT {few_series} + 1) AS _
        ) series_of_name
        CROSS JOIN LATERAL (
            SELECT array_agg(pair.meter_id) AS meter_ids, array_agg(pair.resource_id) AS resource_ids
            FROM (
                (
                    SELECT x.meter_id, x.resource_id
                    FROM (
                        SELECT DISTINCT x.meter_id, x.resource_id FROM series x
                        WHERE x.meter_id = ANY(meters.ids) AND x.resource_id > 0 AND NOT series_of_name.are_many OFFSET 0
                    ) x
                    CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
                    ORDER BY r.name FETCH FIRST {candidates} ROWS WITH TIES
                )
                UNION ALL
                (
                    SELECT x.meter_id, r.id
                    FROM resource r
                    CROSS JOIN LATERAL (
                        SELECT DISTINCT x.meter_id FROM series x WHERE x.meter_id = ANY(meters.ids) AND x.resource_id = r.id OFFSET 0
                    ) x
                    WHERE series_of_name.are_many
                    ORDER BY r.name FETCH FIRST {candidates} ROWS WITH TIES
                )
            ) AS pair
        ) pairs
        WHERE before.total < {candidates}
    )
    SELECT x.*, first.candidates
    FROM (
        SELECT pair.*, (SELECT max(total) FROM listed_name) AS candidates
        FROM listed_name CROSS JOIN LATERAL unnest(listed_name.meter_ids, listed_name.resource_ids) AS pair (meter_id, resource_id) OFFSET 0
    ) AS first
    CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.meter_id = first.meter_id AND x.resource_id = first.resource_id OFFSET 0) x
    OFFSET 0
)"""

# LIMIT 1 keeps PostgreSQL from reading all samples of a series.
UNIQUE_METERS = """
{tables}
SELECT m.name, m.type, m.unit, true
FROM meter m
CROSS JOIN LATERAL (
    SELECT FROM series x
    CROSS JOIN LATERAL ({any}) s
    WHERE x.meter_id = m.id AND {series}
    LIMIT 1
) existing
ORDER BY m.name, m.type, m.unit LIMIT {limit}
"""

# The meters of the matching series, not all meters. OFFSET 0 keeps PostgreSQL from walking the series of all projects in the order of an index
# by meter.
METERS_OF_SERIES = """(
    SELECT x.meter_id, array_agg(x.id) AS ids FROM (SELECT * FROM series x WHERE {series} OFFSET 0) x GROUP BY x.meter_id OFFSET 0
) listed
CROSS JOIN LATERAL (SELECT m.name, m.type, m.unit FROM meter m WHERE m.id = listed.meter_id OFFSET 0) m"""

# The same within a project.
UNIQUE_METERS_OF_PROJECT = f"""
{{tables}}
SELECT m.name, m.type, m.unit, true
FROM {METERS_OF_SERIES}
CROSS JOIN LATERAL (
    SELECT FROM series x
    CROSS JOIN LATERAL ({{any}}) s
    WHERE x.id = ANY(listed.ids)
    LIMIT 1
) existing
ORDER BY m.name, m.type, m.unit LIMIT {{limit}}
"""

# The same for filters that all samples of their series match. Rollups prove most meters, and samples are only looked for in some weeks. The last
# column is false where nothing was found that proves a meter: others of its series, or other weeks, may have samples.
UNIQUE_METERS_IN_WEEKS = """
{tables}
SELECT m.name, m.type, m.unit, existing.decided
FROM {meters}
CROSS JOIN LATERAL (
    SELECT true AS decided WHERE {is_proved}
    UNION ALL
    (SELECT true FROM unnest(listed.ids) AS x (id) CROSS JOIN LATERAL ({any}) s LIMIT 1)
    UNION ALL
    SELECT false WHERE cardinality(listed.ids) > 0
    LIMIT 1
) existing
ORDER BY m.name, m.type, m.unit LIMIT {limit}
"""
ALL_METERS = f"""meter m CROSS JOIN LATERAL (
    SELECT m.id AS meter_id, ARRAY(
        SELECT x.id FROM series x WHERE x.meter_id = m.id ORDER BY x.retained_until DESC LIMIT {LATEST_SERIES}
    ) AS ids
    OFFSET 0
) listed"""


class StoredMeterRow(NamedTuple):
    """A row of :func:`meters_query`; unique meters have no resource, owner or source."""

    name: str
    type: str
    unit: str
    resource_id: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    source: str | None = None


def candidates_of(conditions: FilterConditions, limit: int, *, unique: bool) -> int | None:
    """Return how many meters of resources to look up for a page of ``limit``, some of which may have no samples any more.

    ``None`` if all are read: because they must match conditions, or are too many.
    """
    candidates = 2 * limit + 50
    return candidates if not unique and conditions.series == TRUE and candidates <= MAX_CANDIDATES else None


def meters_query(
    conditions: FilterConditions,
    limit: int,
    recent: datetime,
    *,
    unique: bool,
    candidates: int | None = None,
    weeks: EndWeeks | None = None,
) -> Sql:
    """Return the statement for ``IStore.meters``.

    Its rows are those of :class:`StoredMeterRow`, or the first three fields of one if they are ``unique``. The next column is whether the row
    is right; then, unless they are ``unique``, how many meters of resources were looked up. With ``weeks``, samples are only looked for in these,
    and the answer is right if all rows are; it needs ``conditions`` that are :attr:`~FilterConditions.of_all_samples`. Most series are expected to
    have samples since ``recent``; the answer does not depend on it. With ``candidates``, only so many meters of resources are looked up, the
    first ones. If fewer than ``limit`` of them have samples, and not all were looked up, the answer is incomplete.
    """
    within_project = conditions.visible != TRUE
    by_rollups = conditions.of_all_samples and not unique
    if unique and weeks:
        return _unique_meters_in_weeks(conditions, limit, weeks)
    columns = "s.timestamp, s.message_id"
    listed_series = (
        filled(MATCHING_SERIES, series=conditions.series)
        if candidates is None
        else filled(FIRST_SERIES, candidates=Sql("%s", (candidates,)), few_series=str(FEW_SERIES))
    )
    of_resources = filled(LISTED, listed_series=listed_series)
    edges = edge_tables(conditions, oldest=False, listed=None if unique else of_resources, limit=Sql("%s", (limit,)))
    newest = edge_of_each(conditions, columns)
    template = METERS if not unique else UNIQUE_METERS_OF_PROJECT if within_project else UNIQUE_METERS
    return filled(
        f"{NEWEST_FIRST}{template}",
        tables=combined(ends_tables(weeks), edges) if by_rollups else edges,
        is_proved=alternative(IS_PROVED.format(ids="listed.ids", meter="listed.meter_id"), "false")
        if by_rollups
        else "false",
        owner="" if within_project else OWNER.format(resource="listed.resource_id", condition="AND listed.of_several"),
        describing_first="" if within_project else f"{DESCRIBES} DESC,",
        newest=combined(newest_by_rollups(columns, Sql("%s::timestamptz", (recent,)), weeks), newest)
        if by_rollups
        else newest,
        any=any_in_weeks(weeks) if weeks else any_of_each(conditions, with_tables=not unique),
        decided=DECIDED.format(describing_first="" if within_project else f"{DESCRIBES},") if weeks else "true",
        or_undecided=OR_UNDECIDED if weeks else "",
        series=conditions.series,
        listed=of_resources,
        limit=Sql("%s", (limit,)),
    )


def _unique_meters_in_weeks(conditions: FilterConditions, limit: int, weeks: EndWeeks) -> Sql:
    return filled(
        f"{NEWEST_FIRST}{UNIQUE_METERS_IN_WEEKS}",
        tables=ends_tables(weeks),
        meters=ALL_METERS if conditions.series == TRUE else filled(METERS_OF_SERIES, series=conditions.series),
        is_proved=IS_PROVED.format(ids="listed.ids", meter="listed.meter_id"),
        any=any_in_weeks(weeks),
        limit=Sql("%s", (limit,)),
    )
