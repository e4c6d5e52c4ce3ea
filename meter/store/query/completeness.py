"""CompletenessReader: answers of the completeness ledger, from the summaries of days, and from cycle runs and rollups for other times."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from meter.completeness.ledger.agent_states import AgentRow
from meter.completeness.ledger.agent_states import agent_state
from meter.completeness.ledger.answers import LedgerAnswers
from meter.completeness.ledger.answers import Tally
from meter.completeness.ledger.answers import adjacent_pieces
from meter.completeness.ledger.answers import for_gaps
from meter.completeness.ledger.answers import pieces_between
from meter.completeness.ledger.answers import rows_of
from meter.completeness.ledger.answers import seconds_of
from meter.completeness.ledger.closing import closable
from meter.completeness.ledger.day_levels import AGENT
from meter.completeness.ledger.day_levels import level_of
from meter.completeness.ledger.facts import DAY_SECONDS
from meter.completeness.ledger.facts import Piece
from meter.completeness.ledger.facts import at
from meter.completeness.ledger.gaps import GapCollector
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
from meter.store.query.completeness_facts import SECONDS
from meter.store.query.completeness_facts import StoredLedgerFacts

# A summary is not read if a report has said something about its day since, or if a late sample has.
SUMMARIZED_DAYS = f"""
SELECT {SECONDS.format("d.start")} FROM completeness_day d
WHERE d.level = 0 AND d.start >= %s AND d.start < %s
AND d.final_hours <= (SELECT count(*) FROM final_period p WHERE p.hours = 1 AND p.start >= d.start AND p.start < d.start + interval '24 hours')
AND NOT EXISTS (SELECT FROM completeness_change c WHERE c.from_time < d.start + interval '24 hours' AND c.until_time >= d.start)
"""

DAY_SUMS = f"""
SELECT {SECONDS.format("d.start")}, {{group}}, d.expected, d.received, d.unexpected, d.late
FROM completeness_day d {{agent}}
WHERE d.level = {{level}} AND d.start = ANY({{days}}::timestamptz[]) AND {{scope}}
"""

DAY_LOSSES = f"""
SELECT {SECONDS.format("d.start")}, {{group}}, d.cause, d.reason, d.samples
FROM completeness_day_loss d {{agent}}
WHERE d.level = {{level}} AND d.start = ANY({{days}}::timestamptz[]) AND {{scope}}
"""

GROUP_COLUMNS = {None: "NULL", "agent": "a.name", "project_id": "d.project", "meter": "d.meter"}

AGENT_STATES = f"""
SELECT a.name, a.daemon, a.host, {SECONDS.format("boots.first_due")}, {SECONDS.format("boots.last_due")}, boots.stopped,
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

TOO_LONG = "narrow the period, or select one project, agent or resource"


MAX_AGENTS = 1_000_000
"""More agents than there are."""


class CompletenessReader:
    """Answers questions to the ledger over ``pool``, each statement of which may take ``seconds``."""

    def __init__(self, pool: Pool, slices: SharedSlices, finalize_after_seconds: float, seconds: float) -> None:
        self._pool = pool
        self._slices = slices
        self._seconds = seconds
        self._facts = StoredLedgerFacts(pool.rows, finalize_after_seconds)

    def _answers(self) -> LedgerAnswers:
        slices = self._slices.of(object())

        async def pause() -> None:
            if slices.over:
                await slices.pause()

        return LedgerAnswers(self._facts, pause)

    async def completeness(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[CompletenessRow]:
        """See :class:`~meter.completeness_query.ICompletenessLedger`."""
        with self._request_errors():
            return rows_of(query, [each async for each in self._tallies(query, now.timestamp())], limit)

    async def _tallies(self, query: CompletenessQuery, now: float) -> AsyncIterator[tuple[Piece, str | None, Tally]]:
        start, end = query.start.timestamp(), min(query.end.timestamp(), now)
        pieces = pieces_between(start, end, seconds_of(query))
        level = level_of(query)
        days = set() if level is None else await self._summarized(start, end)
        if level is not None and days:
            async for each in self._sums(query, level, sorted(days)):
                yield each
        for adjacent in adjacent_pieces([piece for piece in pieces if not (piece.start in days and whole(piece))]):
            tallies = await self._answers().tallies(query, adjacent, now)
            for (n, group), tally in tallies.items():
                yield adjacent[n], group, tally

    async def _summarized(self, start: float, end: float) -> set[float]:
        rows = await self._pool.rows(SUMMARIZED_DAYS, [at(start), at(end - DAY_SECONDS + 1)])
        return {day for [day] in rows}

    async def _sums(
        self, query: CompletenessQuery, level: int, days: Sequence[float]
    ) -> AsyncIterator[tuple[Piece, str | None, Tally]]:
        scope = []
        if query.agent is not None:
            scope.append(Sql("d.agent_id = (SELECT id FROM agent WHERE name = %s)", (query.agent,)))
        if query.project_id is not None:
            scope.append(Sql("d.project = %s", (query.project_id,)))
        if query.meter is not None:
            scope.append(Sql("d.meter = %s", (query.meter,)))
        parts: dict[str, Any] = {
            "group": GROUP_COLUMNS[query.group],
            "agent": "JOIN agent a ON a.id = d.agent_id" if level & AGENT else "",
            "level": level,
            "days": Sql("%s", ([at(day) for day in days],)),
            "scope": both(scope),
        }
        found: dict[tuple[float, str | None], Tally] = {}
        sums, losses = filled(DAY_SUMS, **parts), filled(DAY_LOSSES, **parts)
        for day, group, *numbers in await self._pool.rows(sums.text, sums.parameters):
            found[day, group] = Tally(*numbers)
        for day, group, cause, reason, samples in await self._pool.rows(losses.text, losses.parameters):
            if (day, group) in found:
                found[day, group].lose(cause, reason, samples)
        for (day, group), tally in found.items():
            yield Piece(day, day + DAY_SECONDS), group, tally

    async def gaps(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[Gap]:
        """See :class:`~meter.completeness_query.ICompletenessLedger`."""
        query = for_gaps(query)
        with self._request_errors():
            start, end = query.start.timestamp(), min(query.end.timestamp(), now.timestamp())
            complete: set[float] = set()
            if level_of(query) is not None and end > start:
                days = await self._summarized(start, end)
                if days:
                    level = level_of(query) or 0
                    complete = days - {
                        piece.start async for piece, _, tally in self._sums(query, level, sorted(days)) if tally.lost
                    }
            collector = GapCollector(limit)
            pieces = [
                piece
                for piece in pieces_between(start, end, seconds_of(query))
                if not any(day <= piece.start < day + DAY_SECONDS for day in complete)
            ]
            for adjacent in adjacent_pieces(pieces):
                await self._answers().collect_gaps(query, adjacent, now.timestamp(), collector)
            return collector.gaps(now.timestamp())

    async def agent_states(self, now: datetime) -> Sequence[ReportingAgent]:
        """See :class:`~meter.completeness_query.ICompletenessLedger`."""
        with self._request_errors():
            return [agent_state(AgentRow(*row), now.timestamp()) for row in await self._pool.rows(AGENT_STATES)]

    async def closable(self, query: CompletenessQuery, now: datetime) -> Closable:
        """See :class:`~meter.completeness_query.ICompletenessLedger`."""
        asked = replace(query, by=None, group="agent")
        rows = await self.completeness(asked, now, MAX_AGENTS)
        states = await self.agent_states(now)
        with self._request_errors():
            finality = await self._facts.finality(query.start.timestamp(), query.end.timestamp(), now.timestamp())
        return closable(query, now, rows, states, finality)

    @contextmanager
    def _request_errors(self) -> Iterator[None]:
        try:
            yield
        except TimedOut as error:
            raise RequestError(f"the query took longer than {self._seconds:g} s: {TOO_LONG}") from error
        except Rejected as error:
            raise RequestError(f"the query cannot be executed: {TOO_LONG}", cause=str(error)) from error


def whole(piece: Piece) -> bool:
    """Return whether ``piece`` is a whole day."""
    return piece.end - piece.start == DAY_SECONDS
