"""Summaries of the completeness ledger: sums for each hour and day that is over and final, so that a month is read from few rows.

An hour or a day is summarized when its end is as long ago as hours take to be final, and no hour of it is waiting to be finalized. A
report or a late sample about a day that has a summary makes the summary invalid: then it is made again. Of the last days hours are
summarized, so that the present day, and days that are not summarized yet, are read from few rows too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from functools import partial
from typing import Literal
from typing import NamedTuple

from meter.completeness.ledger.answers import LedgerAnswers
from meter.completeness.ledger.answers import Tally
from meter.completeness.ledger.day_levels import DAY_LEVELS
from meter.completeness.ledger.day_levels import HOUR_LEVELS
from meter.completeness.ledger.day_levels import DaySumKey
from meter.completeness.ledger.day_levels import LevelSums
from meter.completeness.ledger.ledger_source import TimeBucket
from meter.completeness_query import SILENT_INTERVALS
from meter.completeness_query import CompletenessQuery
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.query.completeness_source import StoredLedgerSource

MAX_DAYS = 40
MAX_HOURS = 48
"""Days and hours that one run summarizes, so that other work is not delayed."""

HOURS_FROM_DAYS_AGO = 2
"""Hours are summarized from the beginning of this day on: older days have summaries of their own."""

HOUR_RETENTION = timedelta(days=15)
"""How long the summaries of hours stay: they answer queries by hour, which have at most 14 days."""

BATCH_SUMS = 2_000
"""Sums that are computed, or inserted, at a time."""

MAX_REASONS = 20
"""Reasons by which the missing samples of one sum and cause are listed; the others are :data:`OTHER_REASONS`."""

OTHER_REASONS = "other reasons"

FORGET_CHANGED = """
WITH change AS (DELETE FROM completeness_change RETURNING from_time, until_time), hours AS (
    DELETE FROM completeness_hour h USING change
    WHERE h.level = 0 AND h.start <= change.until_time AND h.start > change.from_time - interval '1 hour'
)
DELETE FROM completeness_day d USING change
WHERE d.level = 0 AND d.start <= change.until_time AND d.start > change.from_time - interval '24 hours'
"""

TO_SUMMARIZE = """
SELECT period.start FROM generate_series(
    greatest(%(oldest)s::timestamptz, date_trunc({unit}, (SELECT least(min(last_due), min(first_due)) FROM (
        SELECT first_due, last_due FROM cycle_run ORDER BY last_due LIMIT 1
    ) AS c), 'UTC')), %(newest)s::timestamptz, make_interval(hours => {hours})
) AS period (start)
WHERE NOT EXISTS (SELECT FROM {table} s WHERE s.level = 0 AND s.start = period.start)
ORDER BY period.start DESC LIMIT {limit}
"""

LONGEST_INTERVAL = """
SELECT coalesce(max(interval), 0) FROM cycle_run WHERE last_due > %s::timestamptz - interval '10 days'
"""

FINAL_HOURS = """
SELECT count(*) FROM final_period WHERE hours = 1 AND start >= %s AND start < %s
"""

INSERT_SUMS = """
INSERT INTO {table} (start, expected, received, unexpected, late, agent_id, level, final_hours, project, meter)
SELECT %(start)s, expected, received, unexpected, late, agent_id, level, %(final_hours)s, project, meter
FROM unnest(%(expected)s::bigint[], %(received)s::bigint[], %(unexpected)s::bigint[], %(late)s::bigint[], %(agent_ids)s::integer[],
    %(levels)s::smallint[], %(projects)s::text[], %(meters)s::text[])
    AS sum (expected, received, unexpected, late, agent_id, level, project, meter)
ON CONFLICT DO NOTHING
"""

INSERT_LOSSES = """
INSERT INTO {table}_loss (start, samples, agent_id, level, project, meter, cause, reason)
SELECT %(start)s, samples, agent_id, level, project, meter, cause, reason
FROM unnest(%(samples)s::bigint[], %(agent_ids)s::integer[], %(levels)s::smallint[], %(projects)s::text[], %(meters)s::text[],
    %(causes)s::text[], %(reasons)s::text[]) AS loss (samples, agent_id, level, project, meter, cause, reason)
ON CONFLICT DO NOTHING
"""


class Summarized(NamedTuple):
    """What is summarized: hours, or days, of some levels, in a table; ``limit`` is how many of them one run summarizes."""

    table: str
    unit: Literal["hour", "day"]
    hours: int
    levels: Sequence[int]
    limit: int

    @property
    def length(self) -> timedelta:
        """The length of one of them."""
        return timedelta(hours=self.hours)


COMPLETENESS_TABLES = ("completeness_day", "completeness_day_loss", "completeness_hour", "completeness_hour_loss")

DAYS = Summarized("completeness_day", "day", 24, DAY_LEVELS, MAX_DAYS)
HOURS = Summarized("completeness_hour", "hour", 1, HOUR_LEVELS, MAX_HOURS)


class CompletenessSummaries:
    """Makes the summaries over ``pool``. Hours are finalized ``finalize_after_seconds`` after their end."""

    def __init__(self, pool: Pool, finalize_after_seconds: float, pause: Callable[[], Awaitable[None]]) -> None:
        self._pool = pool
        self._source = StoredLedgerSource(pool.rows, finalize_after_seconds)
        self._finalize_after = timedelta(seconds=finalize_after_seconds)
        self._pause = pause

    async def summarize(self, now: datetime) -> int:
        """Summarize the hours and days that are due at ``now`` and have no valid summary, the newest first; return their number."""
        await self._pool.run(_forget_changed)
        await self._pool.run(partial(_delete_hours, before=now - HOUR_RETENTION))
        # A report may arrive so much later than its cycle was due: until then a missing one is not final.
        [[longest]] = await self._pool.rows(LONGEST_INTERVAL, [now])
        over = now - max(self._finalize_after, timedelta(seconds=SILENT_INTERVALS * longest))
        today = over.replace(hour=0, minute=0, second=0, microsecond=0)
        newest_hour = over.replace(minute=0, second=0, microsecond=0) - HOURS.length
        summarized = await self._summarize_all(DAYS, None, today - DAYS.length, now)
        first_hour = today - timedelta(days=HOURS_FROM_DAYS_AGO)
        return summarized + await self._summarize_all(HOURS, first_hour, newest_hour, now)

    async def _summarize_all(self, what: Summarized, oldest: datetime | None, newest: datetime, now: datetime) -> int:
        statement = TO_SUMMARIZE.format(unit=f"'{what.unit}'", hours=what.hours, table=what.table, limit=what.limit)
        starts = await self._pool.rows(statement, {"oldest": oldest, "newest": newest})
        return sum([await self._summarize(what, start, now) for [start] in starts])

    async def _summarize(self, what: Summarized, begin: datetime, now: datetime) -> bool:
        end = begin + what.length
        finality = await self._source.finality(begin.timestamp(), end.timestamp(), now.timestamp())
        if finality.open_hours:
            return False
        [[final_hours]] = await self._pool.rows(FINAL_HOURS, [begin, end])
        query = CompletenessQuery(start=begin, end=end)
        tallies: dict[tuple[int, str, str], Tally] = defaultdict(Tally)
        answers = LedgerAnswers(self._source, self._pause)
        async for result, _ in answers.results(
            query, [TimeBucket(begin.timestamp(), end.timestamp())], now.timestamp()
        ):
            tallies[result.agent_id, result.project, result.meter].add(result)
        sums = [each async for each in self._sums(what, tallies)]
        await self._pool.run(
            partial(_store, table=what.table, start=begin, final_hours=final_hours, sums=sums, pause=self._pause)
        )
        return True

    async def _sums(
        self, what: Summarized, tallies: Mapping[tuple[int, str, str], Tally]
    ) -> AsyncIterator[tuple[DaySumKey, Tally]]:
        items = list(tallies.items())
        for level in what.levels:
            sums = LevelSums(level)
            for n in range(0, len(items), BATCH_SUMS):
                sums.add(items[n : n + BATCH_SUMS])
                await self._pause()
            for each in sums.found.items():
                yield each


async def _forget_changed(session: Session) -> None:
    await session.count(FORGET_CHANGED)


async def _delete_hours(session: Session, before: datetime) -> None:
    for table in ("completeness_hour", "completeness_hour_loss"):
        await session.count(f"DELETE FROM {table} WHERE start < %s", [before])


async def _store(
    session: Session,
    *,
    table: str,
    start: datetime,
    final_hours: int,
    sums: Sequence[tuple[DaySumKey, Tally]],
    pause: Callable[[], Awaitable[None]],
) -> None:
    for each in (table, f"{table}_loss"):
        await session.count(f"DELETE FROM {each} WHERE start = %s", [start])
    for n in range(0, len(sums), BATCH_SUMS):
        batch = sums[n : n + BATCH_SUMS]
        await session.count(
            INSERT_SUMS.format(table=table),
            {
                "start": start,
                "final_hours": final_hours,
                "expected": [tally.expected for _, tally in batch],
                "received": [tally.received for _, tally in batch],
                "unexpected": [tally.unexpected for _, tally in batch],
                "late": [tally.late for _, tally in batch],
                **_keys([key for key, _ in batch]),
            },
        )
        losses = [(key, *loss) for key, tally in batch for loss in _losses(tally)]
        if losses:
            await session.count(
                INSERT_LOSSES.format(table=table),
                {
                    "start": start,
                    "causes": [cause for _, cause, _, _ in losses],
                    "reasons": [reason for _, _, reason, _ in losses],
                    "samples": [samples for _, _, _, samples in losses],
                    **_keys([key for key, _, _, _ in losses]),
                },
            )
        await pause()


def _keys(keys: list[DaySumKey]) -> dict[str, list[int] | list[str]]:
    return {
        "levels": [key.level for key in keys],
        "agent_ids": [key.agent_id for key in keys],
        "projects": [key.project for key in keys],
        "meters": [key.meter for key in keys],
    }


def _losses(tally: Tally) -> Sequence[tuple[str, str, int]]:
    """Return cause, reason and number of the missing samples; reasons beyond the most frequent ones are put together."""
    by_cause: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for (lost_for, reason), samples in tally.lost.items():
        by_cause[lost_for].append((samples, reason))
    found: list[tuple[str, str, int]] = []
    for cause, reasons in by_cause.items():
        reasons.sort(reverse=True)
        kept, others = reasons[:MAX_REASONS], reasons[MAX_REASONS:]
        found += [(cause, reason, samples) for samples, reason in kept]
        if others:
            found.append((cause, OTHER_REASONS, sum(samples for samples, _ in others)))
    return found
