"""Reads what the completeness ledger computes from: cycle runs and exceptions of agents, and numbers of samples from rollups.

Samples are counted only in hours that are not final. All times are returned as seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from meter.completeness.ledger.ledger_source import HOUR_SECONDS
from meter.completeness.ledger.ledger_source import AgentReports
from meter.completeness.ledger.ledger_source import Finality
from meter.completeness.ledger.ledger_source import InactivePollsterTime
from meter.completeness.ledger.ledger_source import MeteredPeriod
from meter.completeness.ledger.ledger_source import PollingException
from meter.completeness.ledger.ledger_source import RejectedSamples
from meter.completeness.ledger.ledger_source import SampleCounts
from meter.completeness.ledger.ledger_source import SeriesBucket
from meter.completeness.ledger.ledger_source import TimeBucket
from meter.completeness.ledger.ledger_source import at
from meter.completeness.ledger.timeline import CycleRun
from meter.completeness.ledger.timeline import Timeline
from meter.completeness_query import CompletenessQuery
from meter.query import IdField
from meter.query import In
from meter.query import SampleFilter
from meter.store.maintenance.rollups import DAY
from meter.store.maintenance.rollups import HOUR
from meter.store.maintenance.rollups import NEXT_HOUR_TO_FINALIZE
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.postgres.sql import filled
from meter.store.query.conditions import conjunction
from meter.store.query.conditions import split_filter
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.packed_parts import archived_part
from meter.store.query.partials_query import partials_query
from meter.store.query.sample_rows import samples_between

MAX_OPEN_HOURS = 1000
"""Hours that are not final and are looked for; where there are more, all later hours count as not final."""

Rows = Callable[[str, Any], Awaitable[list[tuple[Any, ...]]]]
"""Runs a statement with parameters."""

SECONDS = "extract(epoch FROM {})::float8"

METERED_PERIODS = f"""
WITH page AS MATERIALIZED (
    SELECT resource FROM (
        SELECT r.resource FROM metered_resource r {{join_lists}} WHERE r.first_due < %s AND r.until_due > %s AND {{scope}}
        UNION SELECT r.resource FROM off_schedule_poll r {{join_lists}} WHERE r.at < %s AND r.at >= %s AND {{scope}}
    ) AS found
    ORDER BY resource LIMIT {{limit}}
)
SELECT r.agent_id, r.pollster, r.interval, r.resource, r.project, l.meters, {SECONDS.format("r.first_due")}, {SECONDS.format("r.until_due")}
FROM metered_resource r JOIN meter_list l ON l.id = r.meter_list_id
WHERE r.resource = ANY(ARRAY(SELECT resource FROM page)) AND r.first_due < %s AND r.until_due > %s
UNION ALL
SELECT r.agent_id, r.pollster, 0, r.resource, r.project, l.meters, {SECONDS.format("r.at")}, {SECONDS.format("r.at")}
FROM off_schedule_poll r JOIN meter_list l ON l.id = r.meter_list_id
WHERE r.resource = ANY(ARRAY(SELECT resource FROM page)) AND r.at < %s AND r.at >= %s
ORDER BY 4, 7, 1, 2
"""
"""What agents measure of the next resources: with all agents, as one's period ends where that of the next begins."""

# The runs in the time, and of each agent and interval the one before and the one after: what was missed lies between runs.
# The recursion finds the intervals of each agent by the primary key.
RUNS = f"""
WITH RECURSIVE pair AS (
    SELECT agent_id, (SELECT min(c.interval) FROM cycle_run c WHERE c.agent_id = a.agent_id) AS interval
    FROM unnest(%(ids)s::integer[]) AS a (agent_id)
    UNION ALL
    SELECT agent_id, (SELECT min(c.interval) FROM cycle_run c WHERE c.agent_id = pair.agent_id AND c.interval > pair.interval)
    FROM pair WHERE interval IS NOT NULL
)
SELECT pair.agent_id, pair.interval, {SECONDS.format("run.first_due")}, {SECONDS.format("run.last_due")}, run.cycles, run.pollsters,
    run.boot::text, coalesce(b.stopped AND b.last_due <= run.last_due + make_interval(secs => 2 * pair.interval), false)
FROM pair CROSS JOIN LATERAL (
    (SELECT * FROM cycle_run c WHERE c.agent_id = pair.agent_id AND c.interval = pair.interval AND c.first_due <= %(start)s
    ORDER BY c.first_due DESC LIMIT 1)
    UNION ALL
    SELECT * FROM cycle_run c WHERE c.agent_id = pair.agent_id AND c.interval = pair.interval AND c.first_due > %(start)s
    AND c.first_due < %(end)s
    UNION ALL
    (SELECT * FROM cycle_run c WHERE c.agent_id = pair.agent_id AND c.interval = pair.interval AND c.first_due >= %(end)s
    ORDER BY c.first_due LIMIT 1)
) AS run LEFT JOIN agent_boot b ON b.agent_id = run.agent_id AND b.boot = run.boot
WHERE pair.interval IS NOT NULL
"""

# The last cycle of the period may have begun just before the time that its exception states.
EXCEPTIONS = f"""
SELECT agent_id, pollster, interval, resource, cause, reason, {SECONDS.format("from_time")}, {SECONDS.format("until_time")},
    expected
FROM polling_exception e
WHERE agent_id = ANY(%(ids)s::integer[]) AND until_time >= %(start)s AND from_time <= %(end)s::timestamptz + interval '1 minute'
ORDER BY from_time, id
"""

INACTIVE = f"""
SELECT agent_id, pollster, reason, {SECONDS.format("since")}, {SECONDS.format("until")} FROM inactive_pollster
WHERE agent_id = ANY(%(ids)s::integer[]) AND until > %(start)s AND since < %(end)s
ORDER BY since
"""

REJECTED = f"""
SELECT {SECONDS.format("start")}, meter, resource, project, kind, samples FROM rejected_sample
WHERE start > %s::timestamptz - interval '1 hour' AND start < %s AND {{scope}}
ORDER BY start, kind
"""

RECEIVED = f"""
SELECT r.name, m.name, coalesce(p.name, ''), counted.bucket, counted.samples, {SECONDS.format("counted.first")},
    {SECONDS.format("counted.last")}
FROM (
    SELECT resource_id, project_id, meter, width_bucket(first, %s::timestamptz[]) - 1 AS bucket, sum(count)::bigint AS samples,
        min(first) AS first, max(last) AS last
    FROM ({{partials}}) AS partial
    GROUP BY 1, 2, 3, 4
) AS counted JOIN resource r ON r.id = counted.resource_id JOIN meter m ON m.id = counted.meter
LEFT JOIN project p ON p.id = counted.project_id
"""

LATE = """
SELECT r.name, m.name, coalesce(p.name, ''), greatest(width_bucket(late.start, %s::timestamptz[]) - 1, 0) AS bucket, sum(late.samples)::bigint
FROM late_sample late JOIN series x ON x.id = late.series_id JOIN resource r ON r.id = x.resource_id JOIN meter m ON m.id = x.meter_id
LEFT JOIN project p ON p.id = x.project_id
WHERE late.start > %s::timestamptz - interval '1 hour' AND late.start < %s AND x.polling_interval > 0
    AND late.series_id = ANY(ARRAY(SELECT x.id FROM series x JOIN resource r ON r.id = x.resource_id WHERE r.name = ANY(%s)))
GROUP BY 1, 2, 3, 4
"""

VOIDED = """
SELECT r.name, m.name, coalesce(p.name, ''), width_bucket(v.timestamp, %s::timestamptz[]) - 1 AS bucket, count(*)
FROM voided_sample v JOIN series x ON x.id = v.series_id JOIN resource r ON r.id = x.resource_id JOIN meter m ON m.id = x.meter_id
LEFT JOIN project p ON p.id = x.project_id
WHERE v.timestamp >= %s AND v.timestamp < %s AND x.polling_interval > 0
    AND v.series_id = ANY(ARRAY(SELECT x.id FROM series x JOIN resource r ON r.id = x.resource_id WHERE r.name = ANY(%s)))
    AND EXISTS (SELECT FROM voided_sample LIMIT 1)
GROUP BY 1, 2, 3, 4
"""

TIMES = ("timestamp", "series_id")
OF_WANTED = TimeBounds(Sql("w.since"), Sql("w.until"))
OF_SPAN = TimeBounds(Sql("span.since"), Sql("span.until"))
"""The same as those of the series that have it: ends of archived rows are read here or there, depending on the range."""

# Rows are found by series and time, whatever PostgreSQL expects: OFFSET 0 keeps it from joining in another order. Many resources have lacked
# reports at the same time: what is on archive servers is read of all of them at once.
SAMPLE_TIMES = f"""
WITH wanted AS MATERIALIZED (
    SELECT wanted.resource, wanted.since, wanted.until, x.id, x.meter_id, x.project_id
    FROM unnest(%s::text[], %s::timestamptz[], %s::timestamptz[]) AS wanted (resource, since, until)
    CROSS JOIN LATERAL (SELECT r.id FROM resource r WHERE r.name = wanted.resource OFFSET 0) AS r
    CROSS JOIN LATERAL (SELECT x.* FROM series x WHERE x.resource_id = r.id AND x.polling_interval > 0 OFFSET 0) AS x
), span AS MATERIALIZED (
    SELECT since, until, array_agg(DISTINCT id) AS ids FROM wanted WHERE since < until GROUP BY since, until
)
SELECT w.resource, m.name, coalesce(p.name, ''), {SECONDS.format("w.timestamp")}
FROM (
    SELECT w.*, s.timestamp FROM wanted w CROSS JOIN LATERAL (
        SELECT s.timestamp FROM {samples_between(TIMES, OF_WANTED, series="p.series_id = w.id", archived=False)}
        WHERE s.series_id = w.id AND s.timestamp >= w.since AND s.timestamp < w.until OFFSET 0
    ) AS s
    UNION ALL
    SELECT w.*, s.timestamp FROM (
        SELECT span.since, span.until, s.* FROM span CROSS JOIN LATERAL ({archived_part(TIMES, OF_SPAN, "span.ids")}) AS s
        WHERE s.timestamp >= span.since AND s.timestamp < span.until OFFSET 0
    ) AS s JOIN wanted w ON w.id = s.series_id AND w.since = s.since AND w.until = s.until
) AS w
JOIN meter m ON m.id = w.meter_id LEFT JOIN project p ON p.id = w.project_id
ORDER BY w.timestamp
"""

POLLED = Sql("x.polling_interval > 0")


class StoredLedgerSource:
    """The facts in the database that ``rows`` queries. Hours are finalized ``finalize_after_seconds`` after their end."""

    def __init__(self, rows: Rows, finalize_after_seconds: float) -> None:
        self._rows = rows
        self._finalize_after_seconds = finalize_after_seconds

    async def finality(self, start: float, end: float, now: float) -> Finality:
        """See :class:`~meter.completeness.ledger.ledger_source.ILedgerSource`."""
        due = now - self._finalize_after_seconds
        open_from = due - due % HOUR_SECONDS
        open_hours: set[float] = set()
        since, until = at(start - start % HOUR_SECONDS), at(min(end, open_from))
        while since < until and len(open_hours) < MAX_OPEN_HOURS:
            found = await self._rows(NEXT_HOUR_TO_FINALIZE, {"since": since, "until": until})
            if not found:
                break
            open_hours.add(found[0][0].timestamp())
            since = found[0][0] + timedelta(hours=1)
        if since < until and len(open_hours) >= MAX_OPEN_HOURS:
            open_from = min(open_from, since.timestamp())
        cutoffs = await self._rows(
            f"SELECT meter, {SECONDS.format('before')} FROM retention_cutoff WHERE before > %s", [at(start)]
        )
        kept = []
        if cutoffs:
            kept = await self._rows(
                f"SELECT {SECONDS.format('start')} FROM final_period WHERE hours = 1 AND start > %s::timestamptz - interval '1 hour' AND start < %s",
                [at(start), at(end)],
            )
        return Finality(open_from, frozenset(open_hours), dict(cutoffs), frozenset(hour for [hour] in kept))

    async def metered_periods(
        self, query: CompletenessQuery, start: float, end: float, after: str | None, limit: int
    ) -> Sequence[MeteredPeriod]:
        """See :class:`~meter.completeness.ledger.ledger_source.ILedgerSource`."""
        scope = [] if after is None else [Sql("r.resource > %s", (after,))]
        if query.resource_id is not None:
            scope.append(Sql("r.resource = %s", (query.resource_id,)))
        if query.project_id is not None:
            scope.append(Sql("r.project = %s", (query.project_id,)))
        if query.agent is not None:
            scope.append(Sql("r.agent_id = (SELECT id FROM agent WHERE name = %s)", (query.agent,)))
        if query.meter is not None:
            scope.append(Sql("%s = ANY(l.meters)", (query.meter,)))
        times = (at(end), at(start))
        condition = both(scope).parameters
        lists = "JOIN meter_list l ON l.id = r.meter_list_id" if query.meter is not None else ""
        statement = METERED_PERIODS.format(join_lists=lists, scope=both(scope), limit=limit)
        found = await self._rows(statement, [*times, *condition, *times, *condition, *times, *times])
        periods = [MeteredPeriod._make((*row[:5], tuple(row[5]), *row[6:])) for row in found]
        if query.meter is None:
            return periods
        # Parts with other meters stay in the page only by their resource, which marks the place of the next page.
        return [period._replace(meters=(query.meter,) if query.meter in period.meters else ()) for period in periods]

    async def stored_samples(
        self, query: CompletenessQuery, periods: Sequence[MeteredPeriod], buckets: Sequence[TimeBucket]
    ) -> SampleCounts:
        """See :class:`~meter.completeness.ledger.ledger_source.ILedgerSource`."""
        resources = sorted({period.resource for period in periods})
        start, end = at(buckets[0].start), at(buckets[-1].end)
        starts = [at(bucket.start) for bucket in buckets]
        statement = _received_statement(query, resources, starts, buckets)
        received = await self._rows(statement.text, statement.parameters)
        late = await self._rows(LATE, [starts, start, end, resources])
        voided = await self._rows(VOIDED, [starts, start, end, resources])
        return SampleCounts(
            received=_by_series_bucket([row[:5] for row in received]),
            times={row[:4]: row[5:] for row in received},
            late=_by_series_bucket(late),
            voided=_by_series_bucket(voided),
        )

    async def sample_times(
        self, wanted: Sequence[tuple[str, float, float]]
    ) -> Mapping[tuple[str, str, str], Sequence[float]]:
        """See :class:`~meter.completeness.ledger.ledger_source.ILedgerSource`."""
        columns = [[row[0] for row in wanted], [at(row[1]) for row in wanted], [at(row[2]) for row in wanted]]
        found: dict[tuple[str, str, str], list[float]] = {}
        for resource, meter, project, time in await self._rows(SAMPLE_TIMES, columns):
            found.setdefault((resource, meter, project), []).append(time)
        return found

    async def agents(self, ids: Collection[int], start: float, end: float) -> Mapping[int, AgentReports]:
        """See :class:`~meter.completeness.ledger.ledger_source.ILedgerSource`."""
        arguments = {"ids": sorted(ids), "start": at(start), "end": at(end)}
        names = await self._rows("SELECT id, name FROM agent WHERE id = ANY(%(ids)s::integer[])", arguments)
        agents = {id_: AgentReports(name) for id_, name in names}
        runs: dict[tuple[int, float], list[CycleRun]] = {}
        for id_, interval, first, last, cycles, pollsters, boot, stopped in await self._rows(RUNS, arguments):
            runs.setdefault((id_, interval), []).append(
                CycleRun(first, last, cycles, frozenset(pollsters), boot, stopped)
            )
        for (id_, interval), of_interval in runs.items():
            agents[id_].timelines[interval] = Timeline(interval, of_interval)
        for id_, *exception in await self._rows(EXCEPTIONS, arguments):
            agents[id_].exceptions.append(PollingException(*exception))
        for id_, *inactive in await self._rows(INACTIVE, arguments):
            agents[id_].inactive.append(InactivePollsterTime(*inactive))
        return agents

    async def rejected(self, query: CompletenessQuery, start: float, end: float) -> Sequence[RejectedSamples]:
        """See :class:`~meter.completeness.ledger.ledger_source.ILedgerSource`."""
        scope = []
        if query.resource_id is not None:
            scope.append(Sql("resource = %s", (query.resource_id,)))
        if query.meter is not None:
            scope.append(Sql("meter = %s", (query.meter,)))
        condition = both(scope)
        rows = await self._rows(REJECTED.format(scope=condition), [at(start), at(end), *condition.parameters])
        return [RejectedSamples(*row) for row in rows]


def _received_statement(
    query: CompletenessQuery, resources: Sequence[str], starts: Sequence[Any], buckets: Sequence[TimeBucket]
) -> Sql:
    equals: dict[IdField, str | None] = {} if query.meter is None else {"meter": query.meter}
    filter = SampleFilter(
        equals=equals,
        start=at(buckets[0].start),
        end=at(buckets[-1].end),
        expression=In("resource_id", tuple(resources)),
    )
    conditions = split_filter(filter)
    partials = partials_query(
        replace(conditions, series=conjunction(conditions.series, POLLED)),
        keys={"resource_id": "x.resource_id", "project_id": "x.project_id", "meter": "x.meter_id"},
        metadata_keys={},
        columns=("first", "last", "count"),
        longest_rollup=HOUR if query.by == "hour" else DAY,
        steps=False,
    )
    return filled(
        RECEIVED.replace("%s::timestamptz[]", "{starts}::timestamptz[]"),
        starts=Sql("%s", (list(starts),)),
        partials=partials,
    )


def _by_series_bucket(rows: Sequence[tuple[Any, ...]]) -> dict[SeriesBucket, int]:
    return {(resource, meter, project, bucket): samples for resource, meter, project, bucket, samples in rows}
