"""Unpacking: puts packed samples back as rows of ``sample``, exactly as they were, for whoever changes samples."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from datetime import date
from datetime import datetime

from meter.sample_identity import WEEK
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


class NotUnpacked(Exception):
    """Another number of samples was put back than was packed; nothing was changed."""


async def unpack(session: Session, series: Sequence[int], week: date) -> int:
    """Put the packed samples of ``series`` in ``week`` back, in the transaction of ``session``; return how many.

    Their ids stay in the index of the week. Until the transaction ends, nothing is packed.
    """
    await lock_packed_samples(session)
    start = datetime.combine(week, datetime.min.time(), UTC)
    parameters = {"series": list(series), "start": start, "end": start + WEEK}
    unpacked_samples = await session.count(COPY, parameters)
    [[packed_samples]] = await session.rows(DELETE, parameters)
    if unpacked_samples != packed_samples:
        raise NotUnpacked(f"{packed_samples} samples of {week} were packed, and {unpacked_samples} were unpacked")
    return unpacked_samples
