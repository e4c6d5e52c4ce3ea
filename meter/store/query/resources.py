"""Statements that list resources."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import combined
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import BY_INDEXES
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import FilterConditions
from meter.store.query.conditions import conjunction
from meter.store.query.resource_owner import DESCRIBES
from meter.store.query.resource_owner import OWNER
from meter.store.query.series_ends import EndWeeks
from meter.store.query.series_ends import ends_tables
from meter.store.query.series_ends import newest_by_rollups
from meter.store.query.series_ends import oldest_by_rollups
from meter.store.query.spread_edges import edge_of_each
from meter.store.query.spread_edges import edge_tables

ALL_RESOURCES = """
SELECT r.id, r.name, ARRAY(SELECT x.id FROM series x WHERE x.resource_id = r.id) AS ids FROM resource r ORDER BY r.name OFFSET 0
"""

RESOURCES_OF_SERIES = """
SELECT x.resource_id AS id, r.name, x.ids
FROM (SELECT x.resource_id, array_agg(x.id) AS ids FROM series x WHERE {series} GROUP BY x.resource_id OFFSET 0) x
CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
ORDER BY r.name OFFSET 0
"""

RESOURCES = """
{tables}
SELECT selected.name, u.name, p.name, o.name, summary.first_sample, summary.last_sample, d.text,
    (SELECT array_agg(m.name ORDER BY m.name, m.type, m.unit) FROM meter m WHERE m.id = ANY(summary.meter_ids)), summary.decided
FROM ({selected}) selected {owner}
CROSS JOIN LATERAL (
    SELECT min(each.first) AS first_sample, max(each.timestamp) AS last_sample, array_agg(DISTINCT each.meter_id) AS meter_ids,
        (array_agg(each.id ORDER BY each.timestamp DESC, each.message_id DESC))[1] AS series_id,
        (array_agg(each.metadata_id ORDER BY each.timestamp DESC, each.message_id DESC))[1] AS metadata_id,
        {decided} AS decided
    FROM (
        SELECT x.*, newest.*, oldest.timestamp AS first {is_last}
        FROM series x
        CROSS JOIN LATERAL ({newest}) newest
        CROSS JOIN LATERAL ({oldest}) oldest
        WHERE x.id = ANY(selected.ids) {describes}
    ) each
) summary
CROSS JOIN LATERAL (SELECT d.text FROM metadata d WHERE d.id = summary.metadata_id {or_undecided} OFFSET 0) d
CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.id = summary.series_id OFFSET 0) x
LEFT JOIN LATERAL (SELECT u.name FROM "user" u WHERE u.id = x.user_id OFFSET 0) u ON true
LEFT JOIN LATERAL (SELECT p.name FROM project p WHERE p.id = x.project_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = x.source_id OFFSET 0) o ON true
ORDER BY selected.name LIMIT {limit}
"""

IS_LAST = ", newest.timestamp = max(newest.timestamp) OVER () AS is_last"

# Samples of the last time of which the ids are not known are ordered by nothing: they must not differ in what is shown.
DECIDED = """(SELECT known FROM gaps_known) AND bool_and(each.metadata_id > 0 OR NOT each.is_last) AND (
            bool_and(each.message_id IS NOT NULL OR NOT each.is_last)
            OR count(DISTINCT (each.metadata_id, each.user_id, each.project_id, each.source_id)) FILTER (WHERE each.is_last) = 1
        )"""
OR_UNDECIDED = "UNION ALL SELECT '' WHERE NOT summary.decided LIMIT 1"


class ResourceRow(NamedTuple):
    """A row of :func:`resources_query`, without its last column. ``metadata`` is JSON."""

    resource_id: str
    user_id: str | None
    project_id: str | None
    source: str | None
    first_sample: datetime
    last_sample: datetime
    metadata: str
    meters: Sequence[str]


def resources_query(conditions: FilterConditions, limit: int, recent: datetime, weeks: EndWeeks | None = None) -> Sql:
    """Return the statement for ``IStore.resources``, whose rows are each a :class:`ResourceRow`, and whether it is right.

    Most series are expected to have samples since ``recent``; the answer does not depend on it. With ``weeks``, samples are only looked for in
    these, and the answer is right if there are rows and all of them are; it needs ``conditions`` that are
    :attr:`~FilterConditions.of_all_samples`.
    """
    series = conditions.series
    within_project = conditions.visible != TRUE
    by_rollups = conditions.of_all_samples
    columns = "s.timestamp, s.message_id, s.metadata_id"
    selected = Sql(ALL_RESOURCES) if series == TRUE else filled(RESOURCES_OF_SERIES, series=series)
    edges = edge_tables(conditions, oldest=True, listed=selected, limit=Sql("%s", (limit,)))
    newest = edge_of_each(conditions, columns)
    until_newest = conjunction(Sql("s.timestamp <= newest.timestamp"), conditions.sample)
    oldest = edge_of_each(conditions, "s.timestamp, s.message_id", until_newest, oldest=True)
    return filled(
        f"{BY_INDEXES}{RESOURCES}",
        tables=combined(ends_tables(weeks), edges) if by_rollups else edges,
        selected=selected,
        owner="" if within_project else OWNER.format(resource="selected.id", condition=""),
        describes="" if within_project else f"AND {DESCRIBES}",
        newest=combined(newest_by_rollups(columns, Sql("%s::timestamptz", (recent,)), weeks), newest)
        if by_rollups
        else newest,
        oldest=combined(oldest_by_rollups(weeks), oldest) if by_rollups else oldest,
        limit=Sql("%s", (limit,)),
        decided=DECIDED if weeks else "true",
        is_last=IS_LAST if weeks else "",
        or_undecided=OR_UNDECIDED if weeks else "",
    )
