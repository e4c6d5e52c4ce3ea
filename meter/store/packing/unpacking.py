"""Unpacking: puts packed samples back as rows of ``sample``, exactly as they were, for whoever changes samples."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from datetime import datetime

from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.store.archive.archived_weeks import refuse_archived
from meter.store.packing.packed_partitions import drop_packed_week
from meter.store.packing.packed_partitions import lock_packed_samples
from meter.store.packing.packed_rows import SAMPLE_COLUMNS
from meter.store.packing.packed_rows import unpacked
from meter.store.postgres.pool import Session

_COLUMNS = ", ".join(SAMPLE_COLUMNS)
_OF_SERIES = "p.series_id = ANY(%(series)s::integer[]) AND p.first >= %(start)s AND p.first < %(end)s"

COPY = f"""
INSERT INTO sample ({_COLUMNS})
{unpacked(SAMPLE_COLUMNS, first="'-infinity'::timestamptz", last="'infinity'::timestamptz")}
WHERE {_OF_SERIES}
"""

DELETE = f"""
WITH deleted AS (DELETE FROM packed_samples p WHERE {_OF_SERIES} RETURNING p.count) SELECT coalesce(sum(count), 0) FROM deleted
"""


NEXT_SERIES = """
SELECT p.series_id, sum(p.count) FROM packed_samples p
WHERE p.first >= %(start)s AND p.first < %(end)s
GROUP BY p.series_id ORDER BY p.series_id LIMIT 1000
"""


class NotUnpacked(Exception):
    """Another number of samples was put back than was packed; nothing was changed."""


async def unpack(session: Session, series: Sequence[int], week: date) -> int:
    """Put the packed samples of ``series`` in ``week`` back, in the transaction of ``session``; return how many.

    Their ids stay in the index of the week. Until the transaction ends, nothing is packed. :class:`WeekIsArchived` for an archived week.
    """
    await lock_packed_samples(session)
    await refuse_archived(session, week)
    parameters = {"series": list(series), **_bounds(week)}
    unpacked_samples = await session.count(COPY, parameters)
    [[packed_samples]] = await session.rows(DELETE, parameters)
    if unpacked_samples != packed_samples:
        raise NotUnpacked(f"{packed_samples} samples of {week} were packed, and {unpacked_samples} were unpacked")
    return unpacked_samples


async def unpack_next(session: Session, week: date, max_samples: int) -> int:
    """Unpack the next series of ``week`` with about ``max_samples``, in the transaction of ``session``; return how many samples.

    0: nothing of the week is packed any more, and what belongs to its packed samples is dropped.
    """
    await lock_packed_samples(session)
    await refuse_archived(session, week)
    series: list[int] = []
    total = 0
    for series_id, samples in await session.rows(NEXT_SERIES, _bounds(week)):
        total += samples
        if series and total > max_samples:
            break
        series.append(series_id)
    if series:
        return await unpack(session, series, week)
    await session.count("SET LOCAL lock_timeout = '10s'")
    await drop_packed_week(session, week)
    return 0


def _bounds(week: date) -> dict[str, datetime]:
    start = start_of_week(week)
    return {"start": start, "end": start + WEEK}
