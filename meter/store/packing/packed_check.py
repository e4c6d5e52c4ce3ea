"""Checks packed rows as such: what is damaged in them, or in the index of their ids, would hide or repeat samples, or not be read at all.

Signatures cover what a sample says, not where it is found: a row whose bounds are wrong is left out of queries, and all that is read of it
still verifies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Sequence
from datetime import UTC
from datetime import date
from datetime import datetime
from typing import Any
from typing import NamedTuple

from meter.interfaces import Unavailable
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.store.archive.archive_servers import foreign_table
from meter.store.archive.archived_weeks import archived_week
from meter.store.packing.packed_rows import ARRAYS
from meter.store.packing.packed_rows import DESCRIBING_COLUMNS
from meter.store.packing.packing_sql import WRONG_BOUNDS
from meter.store.postgres.connection import Rejected
from meter.store.postgres.pool import Session

MAX_SAMPLES_AT_ONCE = 50_000
"""Samples that one statement checks, unless a single series has more in a week."""

MAX_SERIES_AT_ONCE = 1000

# Not packed_week: that may be what is damaged.
PACKED_PARTITIONS = """
SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'packed_samples'::regclass ORDER BY c.relname
"""

WITHOUT_WEEK = """
SELECT EXISTS (SELECT FROM packed_samples p WHERE p.first >= %(start)s AND p.first < %(end)s)
    AND NOT EXISTS (SELECT FROM packed_week WHERE week = %(week)s)
"""

NEXT_SERIES = """
SELECT p.series_id, sum(p.count) FROM packed_samples p
WHERE p.first >= %(start)s AND p.first < %(end)s AND p.series_id > %(after)s
AND (%(meter)s::text IS NULL OR p.series_id = ANY(ARRAY(
    SELECT x.id FROM series x JOIN meter ON meter.id = x.meter_id WHERE meter.name = %(meter)s)))
GROUP BY p.series_id ORDER BY p.series_id LIMIT %(limit)s
"""

_OF_SERIES = "p.series_id = ANY(%(series)s::integer[]) AND p.first >= %(start)s AND p.first < %(end)s"

_WHOLE = " AND ".join(
    f"(q.{array} IS NULL OR (cardinality(q.{array}) = q.count AND array_lower(q.{array}, 1) = 1 AND array_position(q.{array}, NULL) IS NULL))"
    for array in ARRAYS
)

DAMAGED_ROWS = f"""
SELECT series_id, part, reason
FROM (
    SELECT q.series_id, q.first, q.part, CASE
        WHEN q.archived THEN NULL -- its arrays are on the archive server: OTHER_ROWS
        WHEN NOT ({_WHOLE}) OR (q.times IS NULL AND q.time_offsets IS NULL) OR (q.recorded_times IS NULL AND q.delays IS NULL)
            OR (q.signatures_left IS NULL) <> (q.signatures_right IS NULL)
            THEN 'an array is missing, has not exactly ' || q.count || ' elements, or has one without a value'
        WHEN {WRONG_BOUNDS} THEN 'its number of samples, their first and last times or their order are not those of its arrays'
        WHEN ROW(q.previous_last, q.previous_id) >= ROW(q.first, q.message_ids[1])
            THEN 'it has samples that the row before it has, too, or is not in order after it'
        END AS reason
    FROM (
        SELECT p.*, lag(p.last) OVER in_order AS previous_last, lag(p.message_ids[p.count]) OVER in_order AS previous_id
        FROM packed_samples p WHERE {_OF_SERIES}
        WINDOW in_order AS (PARTITION BY p.series_id ORDER BY p.first, p.part)
    ) AS q
) AS checked
WHERE reason IS NOT NULL ORDER BY series_id, first, part
"""

# What is said of a row here and there; its arrays are read later, and only if their number is that of the row here.
OTHER_ROWS = f"""
WITH there AS MATERIALIZED (
    SELECT a.series_id, a.first, a.part, {", ".join(f"a.{column}" for column in DESCRIBING_COLUMNS)} FROM {{archive}} a
    WHERE a.store_id = (SELECT id FROM store_identity) AND a.first >= %(start)s AND a.first < %(end)s
    AND a.series_id = ANY(%(series)s::integer[])
)
SELECT p.series_id, p.part FROM packed_samples p LEFT JOIN there a USING (series_id, first, part)
WHERE {_OF_SERIES} AND p.archived
AND ROW({", ".join(f"a.{column}" for column in DESCRIBING_COLUMNS)}) IS DISTINCT FROM ROW({", ".join(f"p.{column}" for column in DESCRIBING_COLUMNS)})
ORDER BY p.series_id, p.first, p.part
"""
OTHER_ROW = "the archive server {} does not have it, or has another one, as after its restore from a backup that is older than the last meter-db archive"

MISSING_IDS = f"""
SELECT k.series_id, count(*)
FROM (
    SELECT DISTINCT p.series_id, mod(of_id.key, w.id_buckets)::integer AS bucket,
        (mod(of_id.key / w.id_buckets, 65536) - 32768)::smallint AS fingerprint
    FROM packed_week w CROSS JOIN packed_samples p CROSS JOIN LATERAL unnest(p.message_ids) AS u (message_id)
    CROSS JOIN LATERAL (SELECT message_id_key(u.message_id) AS key OFFSET 0) AS of_id
    WHERE w.week = %(week)s AND {_OF_SERIES} AND u.message_id IS NOT NULL
) AS k
WHERE NOT EXISTS (
    SELECT FROM packed_message_id i CROSS JOIN LATERAL unnest(array_positions(i.fingerprints, k.fingerprint)) AS n
    WHERE i.week = %(week)s AND i.bucket = k.bucket AND i.series_ids[n] = k.series_id
)
GROUP BY k.series_id ORDER BY k.series_id
"""

NAMES = """
SELECT x.id, meter.name, resource.name FROM series x JOIN meter ON meter.id = meter_id JOIN resource ON resource.id = resource_id
WHERE x.id = ANY(%s::integer[])
"""


class PackedDamage(NamedTuple):
    """What is wrong with packed samples of ``week``. ``text`` says it, with the meter and the resource."""

    week: date
    text: str


async def packed_damage(
    session: Session, start: datetime | None, end: datetime | None, meter: str | None
) -> AsyncIterator[Sequence[PackedDamage]]:
    """Yield what is wrong with the packed weeks that have times from ``start`` until before ``end``, of one ``meter`` or of all."""
    for week in await _weeks(session):
        monday = start_of_week(week)
        if (start is not None and monday + WEEK <= start) or (end is not None and monday >= end):
            continue
        parameters: dict[str, Any] = {"week": week, "start": monday, "end": monday + WEEK, "meter": meter}
        [[lost]] = await session.rows(WITHOUT_WEEK, parameters)
        if lost:
            yield [PackedDamage(week, f"packed week {week}: packed_week has no row of it, so its ids are not found")]
        after = -1
        while series := await _next_series(session, parameters, after):
            after = series[-1]
            yield [
                *await _damage_of(session, week, parameters, series),
                *await _others(session, week, parameters, series),
            ]


async def _others(
    session: Session, week: date, parameters: dict[str, Any], series: Sequence[int]
) -> list[PackedDamage]:
    """Return which archived rows of ``series`` are not on their server as they were moved there; of a week that is lost, none."""
    where = await archived_week(session, week)
    if where is None or where.lost is not None:
        return []
    statement = OTHER_ROWS.format(archive=foreign_table(where.server))
    given = {**parameters, "series": list(series)}
    rows = await session.rows(statement, given)
    if rows:
        # The week may have been brought back, and its rows deleted there, since the statement began: then the next one finds it here.
        rows = await session.rows(statement, given)
    return await _named_damage(
        session, week, [(id, f"row {part}: {OTHER_ROW.format(where.server)}") for id, part in rows]
    )


async def _weeks(session: Session) -> list[date]:
    names = [name for [name] in await session.rows(PACKED_PARTITIONS)]
    return [datetime.strptime(name, "packed_samples_%Y_%m_%d").replace(tzinfo=UTC).date() for name in names]


async def _next_series(session: Session, parameters: dict[str, Any], after: int) -> list[int]:
    series: list[int] = []
    total = 0
    for series_id, samples in await session.rows(
        NEXT_SERIES, {**parameters, "after": after, "limit": MAX_SERIES_AT_ONCE}
    ):
        total += samples
        if series and total > MAX_SAMPLES_AT_ONCE:
            break
        series.append(series_id)
    return series


async def _damage_of(
    session: Session, week: date, parameters: dict[str, Any], series: Sequence[int]
) -> list[PackedDamage]:
    """Return the damage of ``series``; where they cannot be read together, of each of them."""
    given = {**parameters, "series": list(series)}
    try:
        rows = [
            *((id, f"row {part}: {reason}") for id, part, reason in await session.rows(DAMAGED_ROWS, given)),
            *(
                (id, f"{count} ids are not in packed_message_id")
                for id, count in await session.rows(MISSING_IDS, given)
            ),
        ]
    except (Rejected, Unavailable) as error:
        if session.closed:
            raise
        if len(series) > 1:
            halves = series[: len(series) // 2], series[len(series) // 2 :]
            return [each for half in halves for each in await _damage_of(session, week, parameters, half)]
        if isinstance(error, Unavailable):
            raise
        rows = [(series[0], f"it cannot be read: {error}")]
    return await _named_damage(session, week, rows)


async def _named_damage(session: Session, week: date, rows: Sequence[tuple[int, str]]) -> list[PackedDamage]:
    names = {id: names for id, *names in await session.rows(NAMES, [[id for id, _ in rows]])} if rows else {}
    return [PackedDamage(week, f"packed week {week}, {_named(names, id)}, {text}") for id, text in rows]


def _named(names: dict[int, list[str]], series_id: int) -> str:
    if series_id not in names:
        return f"series {series_id}, which does not exist"
    meter, resource = names[series_id]
    return f"meter {meter}, resource {resource}, series {series_id}"
