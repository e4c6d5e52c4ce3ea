"""Statements from whose rows the lives of resources are computed.

However many samples a resource has, a statement returns a few rows of it: consecutive samples with the same metadata and volume
are merged in the database, from rollups where these are final.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from meter.completeness.lives.life_store import UNKNOWN_AFTER_INTERVALS
from meter.completeness.lives.life_store import ListedTime
from meter.completeness_query import FOLLOWING_INTERVALS
from meter.counter_runs import INTERVALS_CARRIED
from meter.query import And
from meter.query import In
from meter.query import SampleFilter
from meter.store.packing.packed_rows import VALUE_COLUMNS
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import split_filter
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.partials import METADATA_RUN
from meter.store.query.partials_query import partials_query
from meter.store.query.sample_rows import samples_between

RESOURCES = """
SELECT r.name
FROM (SELECT x.resource_id FROM series x WHERE x.resource_id > 0 AND {series} GROUP BY x.resource_id OFFSET 0) x
CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
ORDER BY r.name LIMIT {limit}
"""

# A run begins where metadata or volume change, and after polls were silent. A partial with different volumes is one of its own.
# Samples of the same time have the order in which rollups have them, so that the runs are the same, whatever is final.
RUNS = f"""
WITH read AS MATERIALIZED ({{partials}}), marked AS (
    SELECT *, coalesce(
        lag(metadata_id) OVER by_time <> metadata_id
        OR lag(min_volume) OVER by_time <> min_volume OR lag(max_volume) OVER by_time <> max_volume
        OR min_volume <> max_volume
        OR first - lag(last) OVER by_time > make_interval(secs => {INTERVALS_CARRIED} * life_interval),
        true
    ) AS begins
    FROM read WINDOW by_time AS (PARTITION BY life_series ORDER BY first, metadata_run, tie)
), numbered AS (
    SELECT *, count(*) FILTER (WHERE begins) OVER (
        PARTITION BY life_series ORDER BY first, metadata_run, tie ROWS UNBOUNDED PRECEDING
    ) AS run
    FROM marked
)
SELECT life_series AS series_id, life_interval AS polling_interval, metadata_id, min(first) AS first, max(last) AS last,
    min(min_volume) AS min_volume, max(max_volume) AS max_volume, sum(count) AS count
FROM numbered
GROUP BY life_series, life_interval, metadata_id, run
ORDER BY first, last
"""

SAMPLES_OF_RUNS = """
SELECT s.series_id, wanted.polling_interval, s.metadata_id, s.timestamp, s.timestamp, s.volume, s.volume, 1::float8
FROM unnest(%s::integer[], %s::float8[], %s::integer[], %s::timestamptz[], %s::timestamptz[])
    AS wanted (series_id, polling_interval, metadata_id, first, last)
CROSS JOIN LATERAL (
    SELECT s.* FROM {samples}
    WHERE s.series_id = wanted.series_id AND s.metadata_id = wanted.metadata_id
        AND s.timestamp BETWEEN wanted.first AND wanted.last AND {recorded}
    OFFSET 0
) AS s
ORDER BY s.series_id, s.timestamp, s.message_id
"""

# The last cycle that listed a resource is the last one before until_due. A resource that was not listed is gone if the agent said so,
# or once it has finished a second cycle without it. Cycles in which the pollster failed do not count. Between two runs of cycles the
# agent was silent if they are more than one and a half intervals apart; runs are cut at midnight in UTC, which is no silence.
# The same holds while polls failed, or did not take place: times of failures that follow each other are merged.
REPORTS = """
WITH listed AS MATERIALIZED (
    SELECT * FROM metered_resource w WHERE w.resource = ANY(%s) AND w.pollster = ANY(%s)
), failing AS MATERIALIZED (
    SELECT asked.agent_id, asked.pollster, asked.interval, p.resource,
        unnest(range_agg(tstzrange(p.from_time, p.until_time + make_interval(secs => asked.interval / 2)))) AS failed
    FROM (SELECT agent_id, pollster, interval, min(first_due) AS since FROM listed GROUP BY 1, 2, 3) AS asked
    JOIN polling_exception p ON p.agent_id = asked.agent_id AND p.until_time > asked.since AND p.interval = asked.interval
        AND p.pollster IN (asked.pollster, '') AND (p.resource = '' OR p.resource = ANY(%s))
    WHERE p.cause IN ('poll failed', 'domain hung', 'skipped') AND p.expected
    GROUP BY 1, 2, 3, 4
)
SELECT a.name, a.host, w.pollster, w.resource, nullif(w.project, '') AS project, w.interval, w.first_due,
    greatest(cycles.last_listing, w.first_due) AS last_due,
    CASE WHEN w.until_due < 'infinity' AND (
        w.ended = 'gone' OR cycles.last >= w.until_due + make_interval(secs => w.interval * (failed.cycles + 0.5))
    ) THEN w.until_due END AS gone,
    extract(epoch FROM w.first_due - cycles.last_before)::float8 AS unlisted_seconds,
    silences.last_heard, silences.heard_again
FROM listed w JOIN agent a ON a.id = w.agent_id
CROSS JOIN LATERAL (
    SELECT max(c.last_due) AS last,
        max(CASE WHEN c.last_due < w.until_due THEN c.last_due ELSE w.until_due - make_interval(secs => w.interval) END)
            FILTER (WHERE c.first_due < w.until_due) AS last_listing,
        max(CASE WHEN c.last_due < w.first_due THEN c.last_due ELSE w.first_due - make_interval(secs => w.interval) END)
            FILTER (WHERE c.first_due < w.first_due) AS last_before
    FROM cycle_run c
    WHERE c.agent_id = w.agent_id AND c.interval = w.interval AND w.pollster = ANY(c.pollsters) AND {finished}
    OFFSET 0
) AS cycles
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(heard.last_due ORDER BY heard.next_due), '{{}}') AS last_heard,
        coalesce(array_agg(heard.next_due ORDER BY heard.next_due), '{{}}') AS heard_again
    FROM (
        SELECT c.first_due AS next_due, max(c.last_due) OVER (
            ORDER BY c.first_due ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS last_due
        FROM cycle_run c
        WHERE c.agent_id = w.agent_id AND c.interval = w.interval AND w.pollster = ANY(c.pollsters) AND {finished}
            AND c.last_due >= w.first_due AND c.first_due < w.until_due
        UNION ALL
        SELECT upper(f.failed) - make_interval(secs => f.interval / 2), lower(f.failed) - make_interval(secs => f.interval)
        FROM failing f
        WHERE (f.agent_id, f.pollster, f.interval) = (w.agent_id, w.pollster, w.interval) AND f.resource IN ('', w.resource)
            AND upper(f.failed) - lower(f.failed) > make_interval(secs => ({unknown} - 0.5) * f.interval)
            AND upper(f.failed) > w.first_due AND lower(f.failed) < w.until_due
    ) AS heard
    WHERE heard.next_due - heard.last_due > make_interval(secs => {intervals} * w.interval)
) AS silences
CROSS JOIN LATERAL (
    SELECT coalesce(sum(p.cycles), 0)::float8 AS cycles
    FROM polling_exception p
    WHERE p.agent_id = w.agent_id AND p.pollster IN (w.pollster, '') AND p.resource = '' AND p.expected AND p.until_time > w.until_due
    OFFSET 0
) AS failed
ORDER BY w.first_due, a.name
"""

COLUMNS = ("first", "last", "count", "min_volume", "max_volume", "tie", METADATA_RUN)


class RunRow(NamedTuple):
    """A row of :func:`runs_query` and of :func:`samples_of_runs_query`."""

    series_id: int
    polling_interval: float
    metadata_id: int
    first: datetime
    last: datetime
    min_volume: float
    max_volume: float
    samples: float

    @property
    def of_one_state(self) -> bool:
        """Whether the samples between the first and the last one need not be read: all are polls, or there are none, and the volume is one.

        Polls go on to say the same. Between two equal notifications another series may have told otherwise, which the second one takes back.
        """
        between = self.polling_interval == 0 and self.first < self.last and self.samples > 2
        return self.min_volume == self.max_volume and not between

    def ends(self) -> list[RunRow]:
        """Return rows of the first and the last notification; polls are the row itself."""
        if self.polling_interval or self.first == self.last:
            return [self]
        return [self._replace(first=time, last=time, samples=1) for time in (self.first, self.last)]


class ReportRow(NamedTuple):
    """A row of :func:`reports_query`: ``last_heard`` and ``heard_again`` are the begins and ends of silences."""

    agent: str
    host: str
    pollster: str
    resource_id: str
    project_id: str | None
    interval: float
    first: datetime
    last: datetime
    gone: datetime | None
    unlisted_seconds: float | None
    last_heard: list[datetime]
    heard_again: list[datetime]

    def pieces(self) -> list[ListedTime]:
        """Return the times between the silences in which the agent listed the resource."""
        listed = ListedTime(
            agent=self.agent,
            host=self.host,
            pollster=self.pollster,
            resource_id=self.resource_id,
            project_id=self.project_id,
            interval=self.interval,
            first=self.first,
            last=self.last,
            gone=self.gone,
            unlisted_seconds=self.unlisted_seconds,
        )
        return listed.without(zip(self.last_heard, self.heard_again, strict=True))


def life_resources_query(filter: SampleFilter, meters: Sequence[str], limit: int) -> Sql:
    """Return the statement for ``ILifeStore.life_resources``, whose rows are ids of resources."""
    of_meters = In("meter", tuple(meters))
    parts = (of_meters,) if filter.expression is None else (filter.expression, of_meters)
    conditions = split_filter(SampleFilter(equals=filter.equals, expression=And(parts)))
    return filled(RESOURCES, series=conditions.series, limit=Sql("%s", (limit,)))


def runs_query(
    resources: Sequence[str], meters: Sequence[str], as_of: datetime | None, *, final_rollups: bool = False
) -> Sql:
    """Return the statement that reads the samples of ``resources`` as runs; each row is a :class:`RunRow`.

    With ``final_rollups``, rollups contain no sample that was recorded after ``as_of``, and are read.
    """
    selected = And((In("resource_id", tuple(resources)), In("meter", tuple(meters))))
    conditions = split_filter(SampleFilter(expression=selected, as_of=None if final_rollups else as_of))
    partials = partials_query(
        conditions,
        keys={"life_series": "x.id", "life_interval": "x.polling_interval"},
        metadata_keys={"known": Sql("true")},
        columns=COLUMNS,
        longest_rollup=24 if conditions.rest == TRUE else 0,
        steps=False,
        recorded=Sql("s.recorded_at <= %s", (as_of,)) if final_rollups and as_of is not None else TRUE,
    )
    return filled(RUNS, partials=partials)


def samples_of_runs_query(rows: Sequence[RunRow], as_of: datetime | None) -> Sql:
    """Return the statement that reads the samples of ``rows`` one by one, because they are not of one state."""
    recorded = TRUE if as_of is None else Sql("s.recorded_at <= %s", (as_of,))
    bounds = TimeBounds(Sql("wanted.first"), Sql("wanted.last"))
    samples = samples_between(VALUE_COLUMNS, bounds, series="p.series_id = wanted.series_id")
    statement = filled(SAMPLES_OF_RUNS, samples=samples, recorded=recorded)
    wanted = [[row.series_id, row.polling_interval, row.metadata_id, row.first, row.last] for row in rows]
    return Sql(statement.text, (*(list(column) for column in zip(*wanted, strict=True)), *statement.parameters))


def reports_query(resources: Sequence[str], pollsters: Sequence[str], as_of: datetime | None) -> Sql:
    """Return the statement that reads when agents listed ``resources``; each row is a :class:`ReportRow`."""
    finished = TRUE if as_of is None else Sql("c.last_due <= %s", (as_of,))
    statement = filled(
        REPORTS, finished=finished, intervals=str(FOLLOWING_INTERVALS), unknown=str(UNKNOWN_AFTER_INTERVALS)
    )
    return Sql(statement.text, (list(resources), list(pollsters), list(resources), *statement.parameters))
