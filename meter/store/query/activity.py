"""Statements about the present: the samples that were stored last, and the existing resources by kind and state."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from meter.completeness.activity import MAX_SERIES_SAMPLES
from meter.completeness.activity import Arrivals
from meter.completeness.activity import RecordingLag
from meter.completeness.activity import ResourceCount
from meter.completeness.activity import ResourceCounts
from meter.completeness.lives.kinds import ResourceKind
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import IN_ORDER_OF_RECORDING
from meter.store.query.access_paths import NEWEST_FIRST
from meter.store.query.access_paths import SERIES_OF_SAMPLE
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.sample_rows import EVER
from meter.store.query.sample_rows import first_of_series
from meter.store.query.sample_rows import packed_samples

RECENT = """
(
    {plain}
)
UNION ALL
SELECT s.series_id, s.timestamp, s.recorded_at FROM {packed} WHERE s.recorded_at >= {since}
ORDER BY recorded_at DESC LIMIT {limit}
"""

PLAIN_RECENT = f"""
    SELECT s.series_id, s.timestamp, s.recorded_at FROM sample s
    WHERE {IN_ORDER_OF_RECORDING} AND s.recorded_at >= {{since}}
    ORDER BY s.recorded_at DESC LIMIT {{limit}}
"""
SPREAD_RECENT = """
    SELECT s.series_id, s.timestamp, s.recorded_at
    FROM spread_samples_recorded({since}, '-infinity', 'infinity', {limit}, false) s
"""

# By series, as the newest samples of all may have none of the project.
RECENT_OF_PROJECT = """
SELECT s.series_id, s.timestamp, s.recorded_at
FROM (SELECT x.id FROM series x WHERE x.project_id = (SELECT id FROM project WHERE name = {project}) OFFSET 0) x
CROSS JOIN LATERAL ({newest}) s
WHERE s.recorded_at >= {since}
ORDER BY s.recorded_at DESC LIMIT {limit}
"""

# A row for each time, one for each source, and one for all. Times are numbers: rounding in SQL is the same in every time zone.
ARRIVALS = f"""
WITH recent AS MATERIALIZED ({{recent}})
SELECT part, source, count(*),
    percentile_disc(0.5) WITHIN GROUP (ORDER BY lag), percentile_disc(0.95) WITHIN GROUP (ORDER BY lag), max(lag),
    min(recorded_at), grouping(part, source)
FROM (
    SELECT to_timestamp(floor(extract(epoch FROM s.recorded_at) / {{seconds}}) * {{seconds}}) AS part, o.name AS source,
        extract(epoch FROM s.recorded_at - s.timestamp)::double precision AS lag, s.recorded_at
    FROM recent s {SERIES_OF_SAMPLE}
    LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = x.source_id OFFSET 0) o ON true
) s
GROUP BY GROUPING SETS ((part), (source), ())
ORDER BY 8, 1, 2
"""

BY_TIME, BY_SOURCE, OF_ALL = 1, 2, 3
"""What ``grouping(part, source)`` returns for the rows of :data:`ARRIVALS`."""

# The newest sample of each series of the kinds' meters, then that of each resource. LIMIT bounds the number of index lookups.
RESOURCE_COUNTS = """
WITH asked AS MATERIALIZED (
    SELECT kind, meter, counting, state_key
    FROM unnest({kinds}::text[], {meters}::text[], {counting}::boolean[], {state_keys}::text[]) AS asked (kind, meter, counting, state_key)
), listed AS MATERIALIZED (
    SELECT x.id, x.resource_id, x.project_id, a.kind, a.counting, a.state_key
    FROM asked a JOIN meter m ON m.name = a.meter
    CROSS JOIN LATERAL (SELECT x.id, x.resource_id, x.project_id FROM series x WHERE x.meter_id = m.id {of_project} OFFSET 0) x
    LIMIT {limit}
), newest AS (
    SELECT DISTINCT ON (l.kind, l.resource_id) l.kind, l.project_id, l.counting, l.state_key, s.volume, s.metadata_id
    FROM listed l
    CROSS JOIN LATERAL (
        {newest}
    ) s
    ORDER BY l.kind, l.resource_id, s.timestamp DESC, s.message_id DESC
), existing AS (
    SELECT n.kind, n.project_id, CASE WHEN jsonb_typeof(d.document -> n.state_key) = 'string' THEN d.document ->> n.state_key END AS state
    FROM newest n JOIN metadata d ON d.id = n.metadata_id
    WHERE NOT (n.counting AND n.volume = 0)
), ended AS (
    SELECT * FROM unnest({ended_kinds}::text[], {ended_states}::text[]) AS ended (kind, state)
)
SELECT e.kind, e.state, count(*), count(DISTINCT nullif(e.project_id, 0)), grouping(e.kind, e.state),
    (SELECT count(*) FROM listed)
FROM existing e
WHERE NOT EXISTS (SELECT FROM ended WHERE (ended.kind, ended.state) = (e.kind, e.state))
GROUP BY GROUPING SETS ((e.kind, e.state), ())
ORDER BY 5, 3 DESC, 1, 2
"""


class ActivityReader:
    """Answers questions about the present; ``query`` runs a statement and translates its errors."""

    def __init__(self, query: Callable[[Sql], Awaitable[list[tuple[Any, ...]]]]) -> None:
        self._query = query

    async def arrivals(self, project_id: str | None, since: datetime, seconds: int, limit: int) -> Arrivals:
        """See :class:`~meter.completeness.activity.IActivity`."""
        rows = await self._query(arrivals_query(project_id, since, seconds, limit))
        cut = [row[6] for row in rows if row[7] == OF_ALL and row[2] >= limit]
        return Arrivals(
            # Where the limit cut a time, what is missing of it is not known.
            since=cut[0] if cut else since,
            counts=tuple((row[0], row[2]) for row in rows if row[7] == BY_TIME),
            lags=tuple(
                RecordingLag(source=row[1], samples=row[2], median=row[3], p95=row[4], longest=row[5])
                for row in rows
                if row[7] == BY_SOURCE
            ),
        )

    async def resource_counts(
        self, project_id: str | None, kinds: Sequence[ResourceKind], since: datetime, limit: int
    ) -> ResourceCounts:
        """See :class:`~meter.completeness.activity.IActivity`."""
        rows = await self._query(resource_counts_query(project_id, kinds, since, limit))
        totals = [row for row in rows if row[4]]
        return ResourceCounts(
            counts=tuple(ResourceCount(kind=row[0], state=row[1], resources=row[2]) for row in rows if not row[4]),
            projects=sum(row[3] for row in totals),
            complete=all(row[5] < limit for row in totals),
        )


def arrivals_query(project_id: str | None, since: datetime, seconds: int, limit: int) -> Sql:
    """Return the statement for ``IActivity.arrivals``."""
    at = Sql("%s::timestamptz", (since,))
    day_before = filled("{at} - interval '1 day'", at=at)
    columns = ("timestamp", "recorded_at", "message_id", "series_id")
    parts = {"since": at, "limit": Sql("%s", (limit,))}
    recent = filled(
        RECENT if project_id is None else RECENT_OF_PROJECT,
        plain=alternative(filled(PLAIN_RECENT, **parts), filled(SPREAD_RECENT, **parts)),
        packed=packed_samples(columns, EVER, recorded_since=at),
        newest=first_of_series(
            columns,
            TimeBounds(day_before, NO_END),
            series="x.id",
            condition=filled("s.timestamp >= {day_before}", day_before=day_before),
            limit=MAX_SERIES_SAMPLES,
        ),
        project=Sql("%s", (project_id,)),
        **parts,
    )
    template = ARRIVALS if project_id is not None else f"{NEWEST_FIRST}{ARRIVALS}"
    return filled(template, recent=recent, seconds=int(seconds))


def resource_counts_query(project_id: str | None, kinds: Sequence[ResourceKind], since: datetime, limit: int) -> Sql:
    """Return the statement for ``IActivity.resource_counts``."""
    asked = [(kind.name, meter, meter in kind.counting, kind.state[0]) for kind in kinds for meter in kind.meters]
    ended = [(kind.name, state) for kind in kinds for state in sorted(kind.ended_states)]
    names, meters, counting, keys = (list(column) for column in zip(*asked, strict=True))
    ended_kinds, ended_states = (list(column) for column in zip(*ended, strict=True))
    of_project = Sql("AND x.project_id = (SELECT id FROM project WHERE name = %s)", (project_id,))
    return filled(
        RESOURCE_COUNTS,
        kinds=Sql("%s", (names,)),
        meters=Sql("%s", (meters,)),
        counting=Sql("%s", (counting,)),
        state_keys=Sql("%s", (keys,)),
        ended_kinds=Sql("%s", (ended_kinds,)),
        ended_states=Sql("%s", (ended_states,)),
        of_project="" if project_id is None else of_project,
        newest=first_of_series(
            ("timestamp", "message_id", "volume", "metadata_id"),
            TimeBounds(Sql("%s::timestamptz", (since,)), NO_END),
            series="l.id",
            condition=Sql("s.timestamp >= %s", (since,)),
            limit=1,
        ),
        limit=Sql("%s", (limit,)),
    )
