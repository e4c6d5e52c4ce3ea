"""Inserts samples of one week: all at once if their ids are new for sure, else those that are new."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from meter.sample_identity import compared_range
from meter.store.maintenance.rollups import HOUR
from meter.store.postgres.pool import Session
from meter.store.query.access_paths import ROLLUPS_BY_START
from meter.store.write.duplicates import IS_NEW
from meter.store.write.duplicates import MAX_ID_RANGES
from meter.store.write.duplicates import NO_ID_NEARBY
from meter.store.write.duplicates import NONE_STORED
from meter.store.write.duplicates import id_ranges
from meter.store.write.duplicates import is_new_among_packed
from meter.store.write.duplicates import nearby_parameters
from meter.store.write.duplicates import some_ids
from meter.store.write.late_samples import COUNT_LATE
from meter.store.write.record import Record

# Arrays are sent as PostgreSQL's own literals: psycopg2 would adapt each element by itself, which takes ten times longer.
# Timestamps, which many samples share, are sent once and referred to by their position.
INSERT = """
INSERT INTO sample (timestamp, recorded_at, message_id, volume, metadata_id, series_id, wire_format_id, signature, verbatim_json,
    batch_id, batch_position)
SELECT (%s::timestamptz[])[timestamp_no], recorded_at, message_id, volume, metadata_id, series_id, wire_format_id,
    coalesce(decode(signature, 'hex'), ''), coalesce(verbatim_json, ''), batch_id, batch_position
FROM (SELECT clock_timestamp() AS recorded_at) AS now, unnest(%s::integer[], %s::uuid[], %s::float8[],
    %s::integer[], %s::integer[], %s::integer[], %s::text[], %s::text[], %s::bigint[], %s::smallint[])
    AS given (timestamp_no, message_id, volume, metadata_id, series_id, wire_format_id, signature, verbatim_json, batch_id,
        batch_position)
"""

INSERT_SAMPLES = f"{INSERT} WHERE {IS_NEW} ON CONFLICT DO NOTHING"
"""Inserts the samples of one week whose ids are new. The unique index of the partition decides between concurrent writers."""

INSERT_NEW_SAMPLES = f"{INSERT} WHERE {NO_ID_NEARBY} AND {NONE_STORED}"
"""Inserts all samples of one week if no other week that they are compared with has an id near theirs, and the week itself none of
some of them, else none.

An id that the week itself has all the same is :class:`~meter.store.postgres.connection.Duplicate`. This takes half the time of
:data:`INSERT_SAMPLES`, and a tenth less WAL: it does not look for each id, and does not confirm each row after inserting it.
"""

# Queries read the samples of these hours and days until maintenance has made their rollups again. An hour that was final and had no
# samples has no rollups: those of all its series are made.
CHANGES_OF_OLD = f"""
WITH stored AS ({{stored}}), no_longer_final AS (
    DELETE FROM final_period USING unnest(%s::smallint[], %s::timestamptz[]) AS period (hours, start)
    WHERE final_period.hours = period.hours AND final_period.start = period.start AND EXISTS (
        SELECT FROM stored
        WHERE timestamp >= period.start AND timestamp < period.start + make_interval(hours => period.hours)
    )
), changed AS (
    INSERT INTO changed_series (start, series_id)
    SELECT DISTINCT period.start, stored.series_id
    FROM stored JOIN unnest(%s::smallint[], %s::timestamptz[]) AS period (hours, start)
        ON period.hours = {HOUR} AND timestamp >= period.start AND timestamp < period.start + interval '1 hour'
    WHERE EXISTS (
        SELECT FROM rollup r WHERE {ROLLUPS_BY_START.format("r")} AND r.hours = {HOUR} AND r.start = period.start OFFSET 0
    ) OR EXISTS (
        SELECT FROM changed_series t WHERE t.start = period.start OFFSET 0
    )
    ORDER BY 1, 2
    ON CONFLICT DO NOTHING
), late AS ({COUNT_LATE})
SELECT count(*) FROM stored
"""
_OLD_SAMPLES = CHANGES_OF_OLD.format(stored="{insert} RETURNING timestamp, recorded_at, series_id")
INSERT_OLD_SAMPLES = _OLD_SAMPLES.format(insert=INSERT_SAMPLES)
INSERT_NEW_OLD_SAMPLES = _OLD_SAMPLES.format(insert=INSERT_NEW_SAMPLES)
"""Inserts samples, some of which are late or in final hours or days: counts the late ones, and marks hours and days as not final.

Series with a new sample in final hours are noted in ``changed_series``, also in hours that were final and have changed since.
"""


async def insert_samples(
    session: Session,
    week: date,
    columns: Sequence[Any],
    records: Sequence[Record],
    of_old: Sequence[Any] | None,
    *,
    careful: bool,
    packed: bool,
) -> int:
    """Insert ``records``, all of ``week``, and return how many were new; ``of_old`` are the further parameters for old samples.

    ``packed``: the week, or one that it is compared with, has packed samples; each id is looked for among them, too.
    """
    ranges = [] if careful or packed else id_ranges(record.message_id for record in records)
    if 0 < len(ranges) <= MAX_ID_RANGES:
        ids = [record.message_id for record in records]
        parameters = [*columns, *nearby_parameters(week, ranges), *some_ids(week, ids)]
        if new := await _count(session, INSERT_NEW_SAMPLES, INSERT_NEW_OLD_SAMPLES, parameters, of_old):
            return new
    parameters = [*columns, *compared_range(week), *compared_range(week)]
    if packed:
        insert = f"{INSERT} WHERE {IS_NEW} AND {is_new_among_packed(week)} ON CONFLICT DO NOTHING"
        parameters.append(f"{{{','.join(record.message_id for record in records)}}}")
        return await _count(session, insert, _OLD_SAMPLES.format(insert=insert), parameters, of_old)
    return await _count(session, INSERT_SAMPLES, INSERT_OLD_SAMPLES, parameters, of_old)


async def _count(
    session: Session, insert: str, insert_old: str, parameters: Sequence[Any], of_old: Sequence[Any] | None
) -> int:
    if of_old is None:
        return await session.count(insert, parameters)
    [[new]] = await session.rows(insert_old, [*parameters, *of_old])
    count: int = new
    return count
