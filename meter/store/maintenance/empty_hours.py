"""Marks hours without samples as final: then the final hours of a store follow one another, however seldom its resources are polled.

Questions read each time without final hours from the samples, series by series. Where resources are polled once a day there would
be such a time every day, and each question by hour would look for samples of all series in all of them.

Only hours between two that are final are marked, at most :data:`MAX_HOURS` in a row: one sample with a time many years ago makes one
long gap and not a hundred thousand rows. They have no rollups, and nothing has changed in them since they were final. Hours
before a retention cutoff stay as they are: that they are empty may be the work of the retention.

Nobody waits for long: hours whose locks others hold are left for another time, and a transaction locks and looks at few hours.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta

from meter.store.cluster.visibility import ensure_all_visible
from meter.store.maintenance.rollups import HOUR
from meter.store.maintenance.rollups import LOCKS
from meter.store.maintenance.rollups import hour_lock
from meter.store.packing.packed_rows import IS_ARCHIVED
from meter.store.packing.packed_rows import overlaps
from meter.store.postgres.pool import Session
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import ROLLUPS_BY_START
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.packed_parts import packed_here
from meter.store.query.partials import GAPS
from meter.store.query.sample_rows import OF_ANY_SERIES
from meter.store.query.sampled_gaps import PLAIN_OF_GAP

MAX_HOURS = 31 * 24
"""The longest time without samples that is marked: a resource that is polled once a month leaves no gaps."""

MAX_LOCKED_HOURS = 24
"""Hours that one transaction marks. They are locked meanwhile: fewer hours than there are locks, so that each has one of its own."""

STATEMENT_SECONDS = 5
"""How long a statement may take under the locks: writers of these hours wait for it."""

InTransaction = Callable[..., Awaitable[bool]]
"""Calls a function with a session in a transaction, and with the arguments that follow it."""

# Where something has been or has changed: as far as it is known without reading samples.
UNUSED = f"""
NOT EXISTS (
    SELECT FROM rollup r WHERE {ROLLUPS_BY_START.format("r")} AND r.hours = {HOUR} AND r.start >= gap.start AND r.start < gap.finish OFFSET 0
) AND NOT EXISTS (
    SELECT FROM changed_series t WHERE t.start >= gap.start AND t.start < gap.finish OFFSET 0
)
"""

UNUSED_GAPS = f"""
SELECT gap.start, gap.finish
FROM (
    SELECT greatest(gap.start, (SELECT max(before) FROM retention_cutoff)) AS start, gap.finish
    FROM ({GAPS.format(spans=f"(SELECT p.start, p.hours FROM final_period p WHERE p.hours = {HOUR})")}) AS gap
    WHERE gap.start > '-infinity' AND gap.finish < 'infinity'
) AS gap
WHERE gap.start < gap.finish AND gap.finish - gap.start <= make_interval(hours => {MAX_HOURS}) AND {UNUSED}
ORDER BY gap.start
"""

# Hours of archived weeks stay as they are: what is in them is on another server.
MAY_BE_PACKED = filled(
    """
SELECT CASE WHEN EXISTS (SELECT FROM packed_samples p WHERE {is_archived} AND {of_any_series} AND {overlaps} OFFSET 0)
    THEN true ELSE EXISTS (SELECT FROM ({packed}) s WHERE s.timestamp >= gap.start AND s.timestamp < gap.finish OFFSET 0) END
FROM (SELECT %(start)s::timestamptz AS start, %(finish)s::timestamptz AS finish OFFSET 0) AS gap
""",
    is_archived=IS_ARCHIVED,
    of_any_series=OF_ANY_SERIES,
    overlaps=overlaps("gap.start", "gap.finish"),
    packed=packed_here(("timestamp",), TimeBounds(Sql("gap.start"), Sql("gap.finish")), OF_ANY_SERIES, "true"),
)

TRY_LOCKS = f"""
SELECT hour FROM unnest(%s::timestamptz[], %s::int[]) AS t (hour, lock) WHERE pg_try_advisory_xact_lock({LOCKS}, lock) ORDER BY hour
"""

MARK_FINAL = filled(
    """
INSERT INTO final_period (hours, start, with_meter_totals)
SELECT {hours}, gap.start, true
FROM (SELECT hour AS start, hour + interval '1 hour' AS finish FROM unnest(%(starts)s::timestamptz[]) AS hour OFFSET 0) AS gap
WHERE {unused}
    AND gap.start >= coalesce((SELECT max(before) FROM retention_cutoff), '-infinity')
    AND NOT EXISTS ({plain})
ON CONFLICT DO NOTHING
""",
    hours=HOUR,
    unused=UNUSED,
    plain=PLAIN_OF_GAP,
)


async def unused_gaps(session: Session) -> list[tuple[datetime, datetime]]:
    """Return the times between final hours that are not final and probably have no samples, the oldest first.

    They have no rollups and no changed series; whether they have samples, :func:`mark_empty_hours` looks up.
    """
    return [(start, finish) for start, finish in await session.rows(UNUSED_GAPS)]


async def mark_empty_hours(run: InTransaction, start: datetime, finish: datetime) -> bool:
    """Mark those hours from ``start`` to ``finish`` as final that have no samples; return ``False`` if some could not be looked at.

    If some of them may have packed samples, all stay as they are. Packed samples are looked for without locks, because that may take
    long. Nothing is packed of a week before its hours are final: a sample that is written and packed meanwhile leaves a rollup, or the
    mark that one has to be made again, which are looked for under the lock.
    """
    if await run(_may_be_packed, start, finish):
        return True
    hours = [start + timedelta(hours=n) for n in range((finish - start) // timedelta(hours=HOUR))]
    pieces = [hours[first : first + MAX_LOCKED_HOURS] for first in range(0, len(hours), MAX_LOCKED_HOURS)]
    return all([await run(mark_if_free, piece) for piece in pieces])


async def mark_if_free(session: Session, hours: Sequence[datetime]) -> bool:
    """Mark those of ``hours`` as final that have no samples and are free: nobody writes or finalizes them now. Return whether all are free.

    Samples of the free ones cannot be written until the transaction ends.
    """
    await session.count(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'")
    free = [hour for [hour] in await session.rows(TRY_LOCKS, [list(hours), [hour_lock(each) for each in hours]])]
    if free:
        if session.spread:
            await ensure_all_visible(session.rows)
        await session.count(MARK_FINAL.text, {"starts": free})
    return len(free) == len(hours)


async def _may_be_packed(session: Session, start: datetime, finish: datetime) -> bool:
    [[may_be]] = await session.rows(MAY_BE_PACKED.text, {"start": start, "finish": finish})
    return bool(may_be)
