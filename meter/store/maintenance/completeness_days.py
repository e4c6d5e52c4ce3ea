"""Summaries of the completeness ledger: sums for each day that is over and final, so that a month is read from few rows.

A day is summarized when its end is as long ago as hours take to be final, and no hour of it is waiting to be finalized. A report or a
late sample about a day that has a summary makes the summary invalid: then it is made again.
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

from meter.completeness.ledger.answers import LedgerAnswers
from meter.completeness.ledger.answers import Tally
from meter.completeness.ledger.day_levels import ALL_FIELDS
from meter.completeness.ledger.day_levels import DaySumKey
from meter.completeness.ledger.day_levels import LevelSums
from meter.completeness.ledger.facts import DAY_SECONDS
from meter.completeness.ledger.facts import Piece
from meter.completeness_query import SILENT_INTERVALS
from meter.completeness_query import CompletenessQuery
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.query.completeness_facts import StoredLedgerFacts

MAX_DAYS = 40
"""Days that one run summarizes, so that other work is not delayed."""

BATCH_SUMS = 2_000
"""Sums that are computed, or inserted, at a time."""

MAX_REASONS = 20
"""Reasons by which the missing samples of one sum and cause are listed; the others are :data:`OTHER_REASONS`."""

OTHER_REASONS = "other reasons"

CHANGED_DAYS = """
WITH change AS (DELETE FROM completeness_change RETURNING from_time, until_time)
DELETE FROM completeness_day d USING change
WHERE d.level = 0 AND d.start <= change.until_time AND d.start > change.from_time - interval '24 hours'
"""

DAYS_TO_SUMMARIZE = """
SELECT day FROM generate_series(
    date_trunc('day', (SELECT least(min(last_due), min(first_due)) FROM (SELECT first_due, last_due FROM cycle_run ORDER BY last_due LIMIT 1) AS c), 'UTC'),
    %s::timestamptz, interval '24 hours'
) AS day
WHERE NOT EXISTS (SELECT FROM completeness_day d WHERE d.level = 0 AND d.start = day)
ORDER BY day DESC LIMIT %s
"""

LONGEST_INTERVAL = """
SELECT coalesce(max(interval), 0) FROM cycle_run WHERE last_due > %s::timestamptz - interval '10 days'
"""

FINAL_HOURS = """
SELECT count(*) FROM final_period WHERE hours = 1 AND start >= %s AND start < %s::timestamptz + interval '24 hours'
"""

INSERT_SUMS = """
INSERT INTO completeness_day (start, expected, received, unexpected, late, agent_id, level, final_hours, project, meter)
SELECT %(start)s, expected, received, unexpected, late, agent_id, level, %(final_hours)s, project, meter
FROM unnest(%(expected)s::bigint[], %(received)s::bigint[], %(unexpected)s::bigint[], %(late)s::bigint[], %(agent_ids)s::integer[],
    %(levels)s::smallint[], %(projects)s::text[], %(meters)s::text[])
    AS sum (expected, received, unexpected, late, agent_id, level, project, meter)
ON CONFLICT DO NOTHING
"""

INSERT_LOSSES = """
INSERT INTO completeness_day_loss (start, samples, agent_id, level, project, meter, cause, reason)
SELECT %(start)s, samples, agent_id, level, project, meter, cause, reason
FROM unnest(%(samples)s::bigint[], %(agent_ids)s::integer[], %(levels)s::smallint[], %(projects)s::text[], %(meters)s::text[],
    %(causes)s::text[], %(reasons)s::text[]) AS loss (samples, agent_id, level, project, meter, cause, reason)
ON CONFLICT DO NOTHING
"""


class DaySummaries:
    """Makes the summaries over ``pool``. Hours are finalized ``finalize_after_seconds`` after their end."""

    def __init__(self, pool: Pool, finalize_after_seconds: float, pause: Callable[[], Awaitable[None]]) -> None:
        self._pool = pool
        self._facts = StoredLedgerFacts(pool.rows, finalize_after_seconds)
        self._finalize_after = timedelta(seconds=finalize_after_seconds)
        self._pause = pause

    async def summarize(self, now: datetime) -> int:
        """Summarize the days that are due at ``now`` and have no valid summary, the newest first; return their number."""
        await self._pool.run(_forget_changed_days)
        # A report may arrive so much later than its cycle was due: until then a missing one is not final.
        [[longest]] = await self._pool.rows(LONGEST_INTERVAL, [now])
        patience = max(self._finalize_after, timedelta(seconds=SILENT_INTERVALS * longest))
        newest = now - patience - timedelta(days=1)
        newest = newest.replace(hour=0, minute=0, second=0, microsecond=0)
        days = await self._pool.rows(DAYS_TO_SUMMARIZE, [newest, MAX_DAYS])
        summarized = 0
        for [day] in days:
            summarized += await self._summarize(day, now)
        return summarized

    async def _summarize(self, day: datetime, now: datetime) -> bool:
        start = day.timestamp()
        finality = await self._facts.finality(start, start + DAY_SECONDS, now.timestamp())
        if finality.open_hours:
            return False
        [[final_hours]] = await self._pool.rows(FINAL_HOURS, [day, day])
        query = CompletenessQuery(start=day, end=day + timedelta(days=1))
        tallies: dict[tuple[int, str, str], Tally] = defaultdict(Tally)
        answers = LedgerAnswers(self._facts, self._pause)
        async for result, _ in answers.results(query, [Piece(start, start + DAY_SECONDS)], now.timestamp()):
            tallies[result.agent_id, result.project, result.meter].add(result)
        sums = [each async for each in self._sums(tallies)]
        await self._pool.run(partial(_store, day=day, final_hours=final_hours, sums=sums, pause=self._pause))
        return True

    async def _sums(self, tallies: Mapping[tuple[int, str, str], Tally]) -> AsyncIterator[tuple[DaySumKey, Tally]]:
        items = list(tallies.items())
        for level in range(ALL_FIELDS):
            sums = LevelSums(level)
            for n in range(0, len(items), BATCH_SUMS):
                sums.add(items[n : n + BATCH_SUMS])
                await self._pause()
            for each in sums.found.items():
                yield each


async def _forget_changed_days(session: Session) -> None:
    await session.count(CHANGED_DAYS)


async def _store(
    session: Session,
    *,
    day: datetime,
    final_hours: int,
    sums: Sequence[tuple[DaySumKey, Tally]],
    pause: Callable[[], Awaitable[None]],
) -> None:
    for table in ("completeness_day", "completeness_day_loss"):
        await session.count(f"DELETE FROM {table} WHERE start = %s", [day])
    for n in range(0, len(sums), BATCH_SUMS):
        batch = sums[n : n + BATCH_SUMS]
        await session.count(
            INSERT_SUMS,
            {
                "start": day,
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
                INSERT_LOSSES,
                {
                    "start": day,
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
