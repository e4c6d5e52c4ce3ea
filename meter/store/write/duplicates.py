"""Samples whose id is stored already: a repeat of the same fact is no harm, another fact under that id is refused.

An id is looked for in the week of the sample's time and in the weeks beside it (:mod:`meter.identity`). The statement that
inserts does so: the unique index of the partition guards the week itself, against collectors that write at the same
moment too; the weeks beside it are looked at. Only when fewer rows were inserted than sent is anything compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta

import msgspec

from meter.identity import WEEK
from meter.identity import Fact
from meter.identity import compared_range
from meter.identity import conflict
from meter.identity import may_differ
from meter.identity import same_fact
from meter.identity import week_of
from meter.store.postgres.connection import Conflict
from meter.store.postgres.pool import Session
from meter.store.query.dimension_cache import METADATA
from meter.store.query.dimension_cache import SERIES
from meter.store.write.record import Record
from meter.store.write.record import Series
from meter.store.write.record import message_id_of

LOCKS = 0x6D657467
"""First key of the advisory locks on the boundary between two weeks. The second is the number of the week that begins."""

BOUNDARY = timedelta(hours=1)
"""Writers of samples this close to a boundary between weeks take turns: no unique index spans two partitions."""

HOLD_BOUNDARIES = f"SELECT pg_advisory_xact_lock({LOCKS}, boundary) FROM unnest(%s::int[]) AS boundary; "

# A subquery with a LIMIT is looked up sample by sample, by id, whatever the planner believes of the tables.
UNKNOWN = """
(SELECT true FROM sample s WHERE s.message_id = given.message_id AND s.timestamp BETWEEN %s AND %s LIMIT 1) IS NULL
"""
"""SQL: no sample of the range has the id of a ``given`` one."""

STORED = """
SELECT given.position, s.timestamp, s.volume, s.series_id, s.metadata_id
FROM unnest(%s::integer[], %s::uuid[]) AS given (position, message_id)
CROSS JOIN LATERAL (
    SELECT * FROM sample s WHERE s.message_id = given.message_id AND s.timestamp BETWEEN %s AND %s
    ORDER BY s.recorded_at OFFSET 0
) s
"""


@dataclass(slots=True)
class Repeats:
    """The messages of a batch that have the id of one before them.

    ``first`` are those to write now. ``same`` says which of them others repeat, by their positions: they share its fate.
    ``others`` state other facts: they are to be written after that, to be compared with what was stored.
    """

    first: list[tuple[int, Record]] = field(default_factory=list)
    same: list[tuple[int, int]] = field(default_factory=list)
    others: list[tuple[int, Record]] = field(default_factory=list)


def repeats(records: Sequence[tuple[int, Record]]) -> Repeats:
    """Sort ``records``, which have positions, by whether their id occurs before."""
    if len({record.message_id for _, record in records}) == len(records):
        return Repeats(first=list(records))
    found = Repeats()
    chosen: dict[str, tuple[int, Fact]] = {}
    for position, record in records:
        fact = fact_of(record)
        first, stated = chosen.setdefault(record.message_id, (position, fact))
        if first == position:
            found.first.append((position, record))
        elif stated == fact:
            found.same.append((position, first))
        else:
            found.others.append((position, record))
    return found


def fact_of(record: Record) -> Fact:
    """Return the fact that ``record`` states."""
    return _fact(record.series, record.volume, record.timestamp)


def _fact(series: Series, volume: float, timestamp: datetime) -> Fact:
    return Fact(
        series.name,
        series.type,
        series.unit,
        series.resource_id,
        series.user_id,
        series.project_id,
        volume,
        timestamp.astimezone(UTC),
    )


def _may_differ(metadata: str) -> frozenset[str]:
    return may_differ(msgspec.json.decode(metadata))


def by_week(records: Sequence[Record]) -> Mapping[date, Sequence[int]]:
    """Return the positions of ``records``, which are in the order of their times, by week."""
    found: dict[date, list[int]] = {}
    weeks = {moment: week_of(moment) for moment in {record.timestamp for record in records}}
    for position, record in enumerate(records):
        found.setdefault(weeks[record.timestamp], []).append(position)
    return found


def boundaries(moments: Iterable[datetime]) -> list[int]:
    """Return the numbers of the boundaries between weeks that are close to ``moments``, in order."""
    found = set()
    for moment in moments:
        week = week_of(moment)
        monday = datetime.combine(week, datetime.min.time(), UTC)
        if moment - monday < BOUNDARY:
            found.add(week.toordinal() // 7)
        elif moment - monday >= WEEK - BOUNDARY:
            found.add(week.toordinal() // 7 + 1)
    return sorted(found)


async def conflicts(
    session: Session, week: date, records: Mapping[int, Record], series_ids: Mapping[int, int]
) -> Mapping[int, str]:
    """Return why some of ``records``, all of ``week``, cannot be stored: their id is that of another fact.

    All of them were just inserted, or were not because their id is there. ``series_ids`` are those of their series.
    """
    ids = [record.message_id for record in records.values()]
    stored: dict[int, list[tuple[tuple[datetime, float, int], int]]] = {}
    for position, *found in await session.rows(STORED, [list(records), ids, *compared_range(week)]):
        stored.setdefault(position, []).append(((found[0], found[1], found[2]), found[3]))
    if missing := records.keys() - stored.keys():
        # Deleted between the two statements by the retention of its meter: the next attempt inserts it.
        raise Conflict(f"{len(missing)} samples were neither inserted nor found")
    unlike = {
        position: found
        for position, found in stored.items()
        if (records[position].timestamp, records[position].volume, series_ids[position])
        not in [each for each, _ in found]
    }
    if not unlike:
        return {}
    wanted = {series_id for found in unlike.values() for (_, _, series_id), _ in found}
    series = {row[0]: Series(*row[1:]) for row in await session.rows(SERIES, [list(wanted)])}
    described = {metadata_id for found in unlike.values() for _, metadata_id in found}
    differences = {id: _may_differ(text) for id, text in await session.rows(METADATA, [list(described)])}
    reasons = {}
    for position, found in unlike.items():
        sent, allowed = fact_of(records[position]), _may_differ(records[position].metadata)
        facts = [_fact(series[series_id], volume, timestamp) for (timestamp, volume, series_id), _ in found]
        others = [allowed | differences[metadata_id] for _, metadata_id in found]
        if not any(same_fact(fact, sent, either) for fact, either in zip(facts, others, strict=True)):
            reasons[position] = conflict(message_id_of(records[position]), facts[0], sent)
    return reasons
