"""CompletenessReader: answers of the completeness ledger, from the summaries of hours and days, and from cycle runs and rollups for other times."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from typing import NamedTuple

from meter.completeness.ledger.agent_states import AgentRow
from meter.completeness.ledger.agent_states import agent_state
from meter.completeness.ledger.answers import LedgerAnswers
from meter.completeness.ledger.answers import Tally
from meter.completeness.ledger.answers import adjacent_buckets
from meter.completeness.ledger.answers import buckets_between
from meter.completeness.ledger.answers import for_gaps
from meter.completeness.ledger.answers import rows_of
from meter.completeness.ledger.answers import seconds_of
from meter.completeness.ledger.closing import closable
from meter.completeness.ledger.day_levels import AGENT
from meter.completeness.ledger.day_levels import DAY_LEVELS
from meter.completeness.ledger.day_levels import HOUR_LEVELS
from meter.completeness.ledger.day_levels import level_of
from meter.completeness.ledger.gaps import GapCollector
from meter.completeness.ledger.ledger_source import DAY_SECONDS
from meter.completeness.ledger.ledger_source import HOUR_SECONDS
from meter.completeness.ledger.ledger_source import TimeBucket
from meter.completeness.ledger.ledger_source import at
from meter.completeness_query import Closable
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.completeness_query import Gap
from meter.completeness_query import ReportingAgent
from meter.daemon.shared_slices import SharedSlices
from meter.interfaces import RequestError
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Pool
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.postgres.sql import filled
from meter.store.query.completeness_source import SECONDS
from meter.store.query.completeness_source import StoredLedgerSource

# A summary is not read if a report has said something about its time since, or if a late sample has.
SUMMARIZED = f"""
SELECT {SECONDS.format("d.start")} FROM {{table}} d
WHERE d.level = 0 AND d.start >= %s AND d.start < %s
AND d.final_hours <= (
    SELECT count(*) FROM final_period p WHERE p.hours = 1 AND p.start >= d.start AND p.start < d.start + make_interval(hours => {{hours}})
)
AND NOT EXISTS (
    SELECT FROM completeness_change c WHERE c.from_time < d.start + make_interval(hours => {{hours}}) AND c.until_time >= d.start
)
"""

SUMS = f"""
SELECT {SECONDS.format("d.start")}, {{group}}, d.expected, d.received, d.unexpected, d.late
FROM {{table}} d {{agent}}
WHERE d.level = {{level}} AND d.start = ANY({{starts}}::timestamptz[]) AND {{scope}}
"""

LOSSES = f"""
SELECT {SECONDS.format("d.start")}, {{group}}, d.cause, d.reason, d.samples
FROM {{table}}_loss d {{agent}}
WHERE d.level = {{level}} AND d.start = ANY({{starts}}::timestamptz[]) AND {{scope}}
"""

GROUP_COLUMNS = {None: "NULL", "agent": "a.name", "project_id": "d.project", "meter": "d.meter"}

AGENT_STATES = f"""
SELECT a.name, a.daemon, a.host, {SECONDS.format("boots.first_due")}, {SECONDS.format("boots.last_due")},
    coalesce((SELECT b.stopped FROM agent_boot b WHERE b.agent_id = a.id AND b.boot = a.newest_boot), boots.stopped),
    (SELECT min(c.interval) FROM cycle_run c WHERE c.agent_id = a.id AND c.last_due > boots.last_due - interval '1 day'),
    (SELECT count(DISTINCT resource) FROM metered_resource r WHERE r.agent_id = a.id AND r.until_due = 'infinity'),
    (SELECT count(*) FROM waiting_report w WHERE w.agent_id = a.id)
FROM agent a CROSS JOIN LATERAL (
    SELECT min(first_due) AS first_due, max(last_due) AS last_due,
        (array_agg(stopped ORDER BY last_due DESC, first_due DESC))[1] AS stopped
    FROM agent_boot b WHERE b.agent_id = a.id
) AS boots
WHERE boots.last_due IS NOT NULL ORDER BY a.name
"""


class SummaryTable(NamedTuple):
    """A table with sums of times of ``seconds``, of some levels."""

    table: str
    seconds: float
    levels: Sequence[int]


DAYS = SummaryTable("completeness_day", DAY_SECONDS, DAY_LEVELS)
HOURS = SummaryTable("completeness_hour", HOUR_SECONDS, HOUR_LEVELS)

TOO_LONG = "narrow the period, or select one project, agent or resource"


MAX_AGENTS = 1_000_000
"""More agents than there are."""


class CompletenessReader:
    """Answers questions to the ledger over ``pool``, each statement of which may take ``seconds``."""

    def __init__(self, pool: Pool, slices: SharedSlices, finalize_after_seconds: float, seconds: float) -> None:
        self._pool = pool
        self._slices = slices
        self._seconds = seconds
        self._source = StoredLedgerSource(pool.rows, finalize_after_seconds)

    def _answers(self) -> LedgerAnswers:
        slices = self._slices.of(object())

        async def pause() -> None:
            if slices.over:
                await slices.pause()

        return LedgerAnswers(self._source, pause)

    async def completeness(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[CompletenessRow]:
        """See :class:`~meter.completeness_query.ICompletenessLedger`."""
        with self._request_errors():
            return rows_of(query, [each async for each in self._tallies(query, now.timestamp())], limit)

    async def _tallies(
        self, query: CompletenessQuery, now: float
    ) -> AsyncIterator[tuple[TimeBucket, str | None, Tally]]:
        start, end = query.start.timestamp(), min(query.end.timestamp(), now)
        buckets = buckets_between(start, end, seconds_of(query))
        level = level_of(query)
        for what in (DAYS, HOURS):
            if level is None or level not in what.levels or not buckets or (what is DAYS and query.by == "hour"):
                continue
            summarized = await self._summarized(what, buckets[0].start, buckets[-1].end)
            buckets, starts = not_summarized(buckets, summarized, what.seconds)
            if starts:
                async for each in self._sums(query, what, level, starts):
                    yield each
        for adjacent in adjacent_buckets(buckets):
            tallies = await self._answers().tallies(query, adjacent, now)
            for (n, group), tally in tallies.items():
                yield adjacent[n], group, tally

    async def _summarized(self, what: SummaryTable, start: float, end: float) -> set[float]:
        statement = SUMMARIZED.format(table=what.table, hours=int(what.seconds // HOUR_SECONDS))
        rows = await self._pool.rows(statement, [at(start), at(end - what.seconds + 1)])
        return {begin for [begin] in rows}

    async def _sums(
        self, query: CompletenessQuery, what: SummaryTable, level: int, starts: Sequence[float]
    ) -> AsyncIterator[tuple[TimeBucket, str | None, Tally]]:
        scope = []
        if query.agent is not None:
            scope.append(Sql("d.agent_id = (SELECT id FROM agent WHERE name = %s)", (query.agent,)))
        if query.project_id is not None:
            scope.append(Sql("d.project = %s", (query.project_id,)))
        if query.meter is not None:
            scope.append(Sql("d.meter = %s", (query.meter,)))
        if query.group is not None and query.groups is not None:
            scope.append(Sql(f"{GROUP_COLUMNS[query.group]} = ANY(%s)", (list(query.groups),)))
        parts: dict[str, Any] = {
            "table": what.table,
            "group": GROUP_COLUMNS[query.group],
            "agent": "JOIN agent a ON a.id = d.agent_id" if level & AGENT else "",
            "level": level,
            "starts": Sql("%s", ([at(each) for each in starts],)),
            "scope": both(scope),
        }
        found: dict[tuple[float, str | None], Tally] = {}
        sums, losses = filled(SUMS, **parts), filled(LOSSES, **parts)
        for start, group, *numbers in await self._pool.rows(sums.text, sums.parameters):
            found[start, group] = Tally(*numbers)
        for start, group, cause, reason, samples in await self._pool.rows(losses.text, losses.parameters):
            if (start, group) in found:
                found[start, group].lose(cause, reason, samples)
        for (start, group), tally in found.items():
            yield TimeBucket(start, start + what.seconds), group, tally

    async def gaps(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[Gap]:
        """See :class:`~meter.completeness_query.ICompletenessLedger`."""
        query = for_gaps(query)
        with self._request_errors():
            start, end = query.start.timestamp(), min(query.end.timestamp(), now.timestamp())
            buckets = buckets_between(start, end, seconds_of(query))
            level, what = level_of(query), HOURS if query.by == "hour" else DAYS
            if level is not None and level in what.levels and buckets:
                summarized = await self._summarized(what, start, end)
                lacking = {
                    bucket.start
                    async for bucket, _, tally in self._sums(query, what, level, sorted(summarized))
                    if tally.lost
                }
                buckets = [
                    bucket for bucket in buckets if bucket.start not in summarized - lacking or not whole(bucket, what)
                ]
            collector = GapCollector(limit)
            for adjacent in adjacent_buckets(buckets):
                await self._answers().collect_gaps(query, adjacent, now.timestamp(), collector)
            return collector.gaps(now.timestamp())

    async def agent_states(self, now: datetime) -> Sequence[ReportingAgent]:
        """See :class:`~meter.completeness_query.ICompletenessLedger`."""
        with self._request_errors():
            return [agent_state(AgentRow(*row), now.timestamp()) for row in await self._pool.rows(AGENT_STATES)]

    async def hours_not_final(self, start: datetime, end: datetime, now: datetime) -> Sequence[datetime]:
        """See :class:`~meter.completeness_query.ICompletenessLedger`."""
        with self._request_errors():
            finality = await self._source.finality(start.timestamp(), end.timestamp(), now.timestamp())
        return finality.overdue

    async def closable(self, query: CompletenessQuery, now: datetime) -> Closable:
        """See :class:`~meter.completeness_query.ICompletenessLedger`."""
        asked = replace(query, by=None, group="agent")
        rows = await self.completeness(asked, now, MAX_AGENTS)
        states = await self.agent_states(now)
        with self._request_errors():
            finality = await self._source.finality(query.start.timestamp(), query.end.timestamp(), now.timestamp())
        return closable(query, now, rows, states, finality)

    @contextmanager
    def _request_errors(self) -> Iterator[None]:
        try:
            yield
        except TimedOut as error:
            raise RequestError(f"the query took longer than {self._seconds:g} s: {TOO_LONG}") from error
        except Rejected as error:
            raise RequestError(f"the query cannot be executed: {TOO_LONG}", cause=str(error)) from error


def whole(bucket: TimeBucket, what: SummaryTable) -> bool:
    """Return whether ``bucket`` is a whole hour or day."""
    return bucket.end - bucket.start == what.seconds


def not_summarized(
    buckets: Sequence[TimeBucket], summarized: Collection[float], seconds: float
) -> tuple[list[TimeBucket], list[float]]:
    """Return what must be computed of ``buckets``, and the starts of the summaries that are read instead.

    Of each bucket the summaries at its beginning and its end are read. The rest in between is computed at once: that takes about as
    long for some hours as for one.
    """
    rest: list[TimeBucket] = []
    starts: list[float] = []
    for bucket in buckets:
        begin, end = bucket
        while begin in summarized and begin + seconds <= end:
            starts.append(begin)
            begin += seconds
        while end - seconds in summarized and end - seconds >= begin:
            end -= seconds
            starts.append(end)
        if begin < end:
            rest.append(TimeBucket(begin, end))
    return rest, starts
