"""Samples that arrive for a week whose other samples are lost with its archive server.

The index of message ids is in the store. An id that it has for the series of a sample, in a row that covers the sample's time, is that of a
lost sample: the message is a repeat of it. (A new sample is taken for one if an entry of its series has the same
fingerprint: where a week has a thousand series, that is one sample in some 65 000.) What it does not have is new, and is refused: the rollup of its hour cannot be made again.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from datetime import datetime
from typing import Any

from twisted.logger import Logger

from meter.sample_identity import WEEK
from meter.sample_identity import compared_range
from meter.sample_identity import start_of_week
from meter.store.packing.packed_ids import candidates
from meter.store.packing.packed_rows import IS_ARCHIVED
from meter.store.postgres.pool import Session
from meter.store.write.duplicates import Place
from meter.store.write.duplicates import Repeated
from meter.store.write.duplicates import repeated
from meter.store.write.duplicates import stored_positions
from meter.store.write.old_samples import NotAccepted
from meter.store.write.record import Record

_log = Logger()

LOST = -1
"""Stands for the number of hours in the rows of ``BEGIN_TO_WRITE`` with the beginnings of weeks that are lost."""

LOST_WEEKS = f"""
SELECT w.week::timestamp AT TIME ZONE 'UTC', w.lost_entry::text, {LOST} FROM archived_week w WHERE w.lost_at IS NOT NULL
"""

REPEATS = f"""
SELECT given.position
FROM unnest(%(positions)s::integer[], %(ids)s::uuid[], %(series)s::integer[], %(times)s::timestamptz[])
    AS given (position, message_id, series_id, at)
WHERE EXISTS (
    SELECT FROM ({candidates("given.message_id", first="%(start)s::timestamptz", last="%(start)s::timestamptz")}) AS c
    JOIN packed_samples p ON p.series_id = c.series_id
    WHERE c.series_id = given.series_id AND p.first >= %(start)s AND p.first < %(end)s AND {IS_ARCHIVED}
        AND given.at BETWEEN p.first AND p.last
)
"""


async def repeats_of_lost(
    session: Session, week: date, records: Mapping[int, Record], series_ids: Mapping[int, int]
) -> set[int]:
    """Return the positions of those of ``records``, all of the lost ``week``, that repeat samples that are lost."""
    start = start_of_week(week)
    parameters: dict[str, Any] = {
        "positions": list(records),
        "ids": [record.message_id for record in records.values()],
        "series": [series_ids[position] for position in records],
        "times": [record.timestamp for record in records.values()],
        "start": start,
        "end": start + WEEK,
    }
    return {position for [position] in await session.rows(REPEATS, parameters)}


async def repeated_in_lost_week(
    session: Session,
    week: date,
    entry: str,
    records: Sequence[tuple[int, Record, int, Place]],
    known_batches: Collection[int],
) -> Repeated:
    """Return what is repeated among ``records`` of the lost ``week``; :class:`NotAccepted` if there are others.

    ``records`` have their position, the id of their series, and their place in a signed batch. Nobody knows any more in which place of a
    batch a lost sample was stored: it is taken for the one of its message, if that batch is among ``known_batches``.
    """
    by_position = {position: record for position, record, _, _ in records}
    series_ids = {position: series_id for position, _, series_id, _ in records}
    places = {position: place for position, _, _, place in records}
    lost = await repeats_of_lost(session, week, by_position, series_ids)
    others = {position: record for position, record in by_position.items() if position not in lost}
    stored = await stored_positions(session, others, compared_range(week)) if others else set()
    if new := others.keys() - stored:
        reason = f"the samples of its week, {week}, are lost (entry {entry} of the audit log): the rollup of its hour cannot be made again"
        raise NotAccepted(dict.fromkeys(new, reason))
    if lost:
        _log.info(
            "{count} messages repeat samples of the week of {week}, which is lost: the index of ids has them",
            count=len(lost),
            week=str(week),
        )
    elsewhere = [n for n in lost if places[n][0] and places[n][0] not in known_batches]
    found = Repeated({}, [])
    if stored:
        found = await repeated(session, week, others, series_ids, places)
    return Repeated(found.conflicts, [*found.elsewhere, *elsewhere])


def lost_of(rows: Sequence[tuple[Any, ...]]) -> Mapping[datetime, str]:
    """Return the entries of the audit log by the beginnings of lost weeks, of the rows of ``BEGIN_TO_WRITE``."""
    return {begin: entry for begin, entry, hours in rows if hours == LOST}
