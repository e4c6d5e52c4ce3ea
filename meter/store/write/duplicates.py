"""Duplicates: samples whose id is stored already, voided or not. A repeat of the same fact is a duplicate, another fact is a conflict.

An id is looked for in the week of the sample's time and in the weeks before and after it (:mod:`meter.sample_identity`). The
statement that inserts does that: the unique index of the partition guards the week itself, also against collectors that
write at the same moment, and a lookup covers the other two weeks. Samples are compared only if fewer rows were inserted
than sent.
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
from typing import Any
from typing import NamedTuple

import msgspec

from meter.sample_identity import WEEK
from meter.sample_identity import Fact
from meter.sample_identity import compared_range
from meter.sample_identity import conflict
from meter.sample_identity import fact_of
from meter.sample_identity import may_differ
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from meter.store.packing.packed_ids import packed_by_id
from meter.store.packing.packed_rows import archived_with_ids
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
"""Writers of samples this close to a boundary between weeks exclude each other: no unique index spans two partitions."""

LOCK_BOUNDARIES = f"SELECT pg_advisory_xact_lock({LOCKS}, boundary) FROM unnest(%s::int[]) AS boundary; "

# A subquery with a LIMIT is looked up by id, sample by sample, whatever rows the planner expects.
NOT_VOIDED = """
(SELECT true FROM voided_sample v WHERE v.message_id = given.message_id AND v.timestamp BETWEEN %s AND %s LIMIT 1) IS NULL
"""
"""SQL condition: no voided sample in the range of time has the id of the row ``given``."""

IS_NEW = f"""
(SELECT true FROM sample s WHERE s.message_id = given.message_id AND s.timestamp BETWEEN %s AND %s LIMIT 1) IS NULL
AND {NOT_VOIDED}
"""
"""SQL condition: no sample in the range of time, voided or not, has the id of the row ``given``."""

NO_ID_NEARBY = """
NOT EXISTS (
    SELECT FROM unnest(%s::uuid[], %s::uuid[]) AS ids (first, last)
    WHERE (SELECT true FROM sample s WHERE s.message_id BETWEEN ids.first AND ids.last AND s.timestamp >= %s AND s.timestamp < %s
            ORDER BY s.message_id LIMIT 1)
        OR (SELECT true FROM sample s WHERE s.message_id BETWEEN ids.first AND ids.last AND s.timestamp >= %s AND s.timestamp <= %s
            ORDER BY s.message_id LIMIT 1)
        OR (SELECT true FROM voided_sample v WHERE v.message_id BETWEEN ids.first AND ids.last AND v.timestamp BETWEEN %s AND %s
            ORDER BY v.message_id LIMIT 1)
)
"""
"""SQL condition: no sample of the weeks before and after, and no voided one, has an id in any of these ranges of ids.

Its parameters are :func:`nearby_parameters`. The ids that a daemon makes in the same minute are close to each other, and other
weeks have none between them: a lookup for a range takes the place of one for each id.
"""

NONE_STORED = """
NOT EXISTS (
    SELECT FROM unnest(%s::uuid[]) AS sought (id)
    WHERE (SELECT true FROM sample s WHERE s.message_id = sought.id AND s.timestamp >= %s AND s.timestamp < %s LIMIT 1)
)
"""
"""SQL condition: the week itself has none of some ids of a batch. Its parameters are :func:`some_ids`.

Messages that were delivered again come together: a few of the ids tell. The unique index would tell as well, by an error that is
written to PostgreSQL's log.
"""

MAX_SOME_IDS = 16
"""Ids of a batch that are looked for in its own week, at equal distances: a publication has a hundred of the thousand."""

MAX_ID_RANGES = 16
"""Ranges of ids that are looked for; the ids of a batch with more are looked for one by one."""

RANGE_DIGITS = 8
"""Leading digits that the ids of a range have in common: ids of version 7 that are made in the same 65 seconds have them."""

COMPARED = ("timestamp", "volume", "series_id", "metadata_id", "recorded_at", "batch_id", "batch_position")
"""What is compared of a stored sample, and its place in a signed batch."""

_RANGE = ("%(first)s::timestamptz", "%(last)s::timestamptz")


def is_new_among_packed(week: date) -> str:
    """Return the SQL condition that no packed sample that ``week`` is compared with has the id of the row ``given``.

    Weeks are packed long after they are over: only batches with such samples pay for it. Its parameter is the array of all ids: those of
    archived samples are looked up together.
    """
    first, last = (f"'{time.isoformat()}'::timestamptz" for time in compared_range(week))
    stored = packed_by_id(("message_id",), "given.message_id", first=first, last=last, archived=False)
    archived = archived_with_ids(("message_id", "timestamp"), "%s::uuid[]", first=first, last=last, without_lost=True)
    return (
        f"(SELECT true FROM ({stored}) AS packed LIMIT 1) IS NULL AND given.message_id NOT IN ("
        f"SELECT a.message_id FROM ({archived}) AS a WHERE a.timestamp >= {first} AND a.timestamp <= {last})"
    )


_ARCHIVED = f"""
WITH archived AS MATERIALIZED (
    SELECT * FROM (
        {archived_with_ids((*COMPARED, "message_id"), "%(ids)s::uuid[]", first=_RANGE[0], last=_RANGE[1], without_lost=True)}
    ) AS a WHERE a.timestamp BETWEEN {_RANGE[0]} AND {_RANGE[1]}
)"""
"""The archived samples with one of the ids: they are read together."""

STORED = f"""{_ARCHIVED}
SELECT given.position, s.timestamp, s.volume, s.series_id, s.metadata_id, s.batch_id, s.batch_position
FROM unnest(%(positions)s::integer[], %(ids)s::uuid[]) AS given (position, message_id)
CROSS JOIN LATERAL (
    SELECT s.timestamp, s.volume, s.series_id, s.metadata_id, s.recorded_at, s.batch_id, s.batch_position
    FROM sample s WHERE s.message_id = given.message_id AND s.timestamp BETWEEN {_RANGE[0]} AND {_RANGE[1]}
    UNION ALL
    SELECT v.timestamp, v.volume, v.series_id, v.metadata_id, v.recorded_at, v.batch_id, v.batch_position
    FROM voided_sample v WHERE v.message_id = given.message_id AND v.timestamp BETWEEN {_RANGE[0]} AND {_RANGE[1]}
    UNION ALL
    {packed_by_id(COMPARED, "given.message_id", first=_RANGE[0], last=_RANGE[1], archived=False)}
    UNION ALL
    SELECT {", ".join(f"a.{column}" for column in COMPARED)} FROM archived a WHERE a.message_id = given.message_id
    ORDER BY recorded_at OFFSET 0
) s
"""

STORED_SPREAD = f"""{_ARCHIVED}
SELECT given.position, s.timestamp, s.volume, s.series_id, s.metadata_id, s.batch_id, s.batch_position
FROM unnest(%(positions)s::integer[], %(ids)s::uuid[]) AS given (position, message_id)
JOIN (
    SELECT s.message_id, s.timestamp, s.volume, s.series_id, s.metadata_id, s.recorded_at, s.batch_id, s.batch_position
    FROM spread_samples_with_ids(%(ids)s::uuid[], {_RANGE[0]}, {_RANGE[1]}, false) s
    UNION ALL
    SELECT v.message_id, v.timestamp, v.volume, v.series_id, v.metadata_id, v.recorded_at, v.batch_id, v.batch_position
    FROM voided_sample v WHERE v.message_id = ANY(%(ids)s::uuid[]) AND v.timestamp BETWEEN {_RANGE[0]} AND {_RANGE[1]}
    UNION ALL
    SELECT of_id.message_id, p.* FROM unnest(%(ids)s::uuid[]) AS of_id (message_id)
    CROSS JOIN LATERAL ({packed_by_id(COMPARED, "of_id.message_id", first=_RANGE[0], last=_RANGE[1], archived=False)}) AS p
    UNION ALL
    SELECT a.message_id, {", ".join(f"a.{column}" for column in COMPARED)} FROM archived a
) s USING (message_id)
ORDER BY s.recorded_at
"""
"""The same in a spread store: the ids are looked up by one statement, not one by one."""


@dataclass(slots=True)
class Repeats:
    """The messages of a batch, sorted by whether an earlier one has the same id. Positions are those in the batch.

    ``first`` are the messages to write now. ``same`` are pairs of positions: the message at the first one repeats the fact
    of the message at the second one, and shares its result. ``others`` state other facts: they must be written after
    ``first``, so that they are compared with what is stored then.
    """

    first: list[tuple[int, Record]] = field(default_factory=list)
    same: list[tuple[int, int]] = field(default_factory=list)
    others: list[tuple[int, Record]] = field(default_factory=list)


def repeats(records: Sequence[tuple[int, Record]]) -> Repeats:
    """Sort ``records``, each with its position, by whether their id occurred before."""
    if len({record.message_id for _, record in records}) == len(records):
        return Repeats(first=list(records))
    found = Repeats()
    firsts: dict[str, tuple[int, Fact]] = {}
    for position, record in records:
        fact = fact_of(record.series, record.volume, record.timestamp)
        first, first_fact = firsts.setdefault(record.message_id, (position, fact))
        if first == position:
            found.first.append((position, record))
        elif first_fact == fact:
            found.same.append((position, first))
        else:
            found.others.append((position, record))
    return found


def by_week(records: Sequence[Record]) -> Mapping[date, Sequence[int]]:
    """Return the positions of ``records``, which are in the order of their times, by week."""
    found: dict[date, list[int]] = {}
    weeks = {timestamp: week_of(timestamp) for timestamp in {record.timestamp for record in records}}
    for position, record in enumerate(records):
        found.setdefault(weeks[record.timestamp], []).append(position)
    return found


def boundaries(timestamps: Iterable[datetime]) -> list[int]:
    """Return the numbers of the boundaries between weeks that are close to ``timestamps``, in order."""
    found = set()
    for timestamp in timestamps:
        week = week_of(timestamp)
        since_monday = timestamp - start_of_week(week)
        if since_monday < BOUNDARY:
            found.add(week.toordinal() // 7)
        elif since_monday >= WEEK - BOUNDARY:
            found.add(week.toordinal() // 7 + 1)
    return sorted(found)


def id_ranges(ids: Iterable[str]) -> list[tuple[str, str]]:
    """Return ranges, first and last, that contain ``ids``, of which those in one range have the same leading digits."""
    found: dict[str, tuple[str, str]] = {}
    for id in sorted(ids):
        prefix = id[:RANGE_DIGITS]
        first, _ = found.get(prefix, (id, id))
        found[prefix] = first, id
    return list(found.values())


def compared_week(week: date) -> tuple[datetime, datetime, datetime, datetime]:
    """Return the first time that samples of ``week`` are compared with, the begin and the end of the week, and the last time."""
    first, last = compared_range(week)
    begin = start_of_week(week)
    return first, begin, min(begin + WEEK, last) if week < LAST_WEEK else last, last


def nearby_parameters(week: date, ranges: Sequence[tuple[str, str]]) -> list[Any]:
    """Return the parameters of :data:`NO_ID_NEARBY` for samples of ``week`` with ids in ``ranges``."""
    first, begin, end, last = compared_week(week)
    return [[each for each, _ in ranges], [each for _, each in ranges], first, begin, end, last, first, last]


def some_ids(week: date, ids: Sequence[str]) -> list[Any]:
    """Return the parameters of :data:`NONE_STORED` for a batch with these ``ids`` whose samples are all of ``week``."""
    _, begin, end, *_ = nearby_parameters(week, [])[2:]
    return [ids[:: -(-len(ids) // MAX_SOME_IDS)], begin, end]


LAST_WEEK = week_of(datetime.max.replace(tzinfo=UTC))


class Repeated(NamedTuple):
    """What was found out about the records of a week that were not all inserted.

    ``conflicts`` says by position why a record cannot be stored: its id is that of another fact. ``elsewhere`` are the
    positions of records that are stored, but not with their own place in a signed batch.
    """

    conflicts: Mapping[int, str]
    elsewhere: Sequence[int]


Place = tuple[int, int]
"""The id of a signed batch in the store and the position in it; (0, 0) for none."""


async def repeated(
    session: Session,
    week: date,
    records: Mapping[int, Record],
    series_ids: Mapping[int, int],
    places: Mapping[int, Place],
) -> Repeated:
    """Return what is repeated among ``records``, all of ``week``.

    Each of them was just inserted, or was not because its id is stored already. ``series_ids`` are the ids of their series,
    ``places`` their places in signed batches.
    """
    ids = [record.message_id for record in records.values()]
    first, last = compared_range(week)
    stored: dict[int, list[tuple[tuple[datetime, float, int], int]]] = {}
    stored_places: dict[int, set[Place]] = {}
    parameters = {"positions": list(records), "ids": ids, "first": first, "last": last}
    for position, timestamp, volume, series_id, metadata_id, batch_id, batch_position in await session.rows(
        STORED_SPREAD if session.spread else STORED, parameters
    ):
        stored.setdefault(position, []).append(((timestamp, volume, series_id), metadata_id))
        stored_places.setdefault(position, set()).add((batch_id, batch_position))
    if missing := records.keys() - stored.keys():
        # Deleted between the two statements by the retention of its meter: the next attempt inserts it.
        raise Conflict(f"{len(missing)} samples were neither inserted nor found")
    elsewhere = [position for position in records if places[position] not in stored_places[position]]
    unlike = {
        position: rows
        for position, rows in stored.items()
        if (records[position].timestamp, records[position].volume, series_ids[position])
        not in [columns for columns, _ in rows]
    }
    if not unlike:
        return Repeated({}, elsewhere)
    wanted = {series_id for rows in unlike.values() for (_, _, series_id), _ in rows}
    series = {row[0]: Series(*row[1:]) for row in await session.rows(SERIES, [list(wanted)])}
    metadata_ids = {metadata_id for rows in unlike.values() for _, metadata_id in rows}
    differences = {id: _may_differ(text) for id, text in await session.rows(METADATA, [list(metadata_ids)])}
    reasons = {}
    for position, rows in unlike.items():
        record = records[position]
        facts = [
            (fact_of(series[series_id], volume, timestamp), differences[metadata_id])
            for (timestamp, volume, series_id), metadata_id in rows
        ]
        sent = fact_of(record.series, record.volume, record.timestamp)
        if reason := conflict(message_id_of(record), sent, _may_differ(record.metadata), facts):
            reasons[position] = reason
    return Repeated(reasons, elsewhere)


async def stored_positions(
    session: Session, records: Mapping[int, Record], times: tuple[datetime, datetime]
) -> set[int]:
    """Return the positions of those of ``records`` whose id is that of a stored sample between ``times``, voided or not."""
    ids = [record.message_id for record in records.values()]
    parameters = {"positions": list(records), "ids": ids, "first": times[0], "last": times[1]}
    return {row[0] for row in await session.rows(STORED_SPREAD if session.spread else STORED, parameters)}


def _may_differ(metadata: str) -> frozenset[str]:
    return may_differ(msgspec.json.decode(metadata))
