"""The signed batches of packed samples: which series of a packed week the samples of a batch belong to."""

from __future__ import annotations

from datetime import date

from meter.store.packing.packed_ids import MONDAY
from meter.store.packing.packed_rows import unpacked
from meter.store.packing.packed_rows import unpacked_here
from meter.store.postgres.pool import Session

INSERT_BATCHES = """
WITH given AS MATERIALIZED (
    SELECT DISTINCT s.batch_id, s.series_id FROM ({samples}) AS s WHERE s.batch_id <> 0
), listed AS MATERIALIZED (
    SELECT batch_id, series_ids, sha256(convert_to(series_ids::text, 'UTF8')) AS hash
    FROM (
        SELECT batch_id, array_agg(DISTINCT series_id ORDER BY series_id) AS series_ids
        FROM (
            SELECT batch_id, series_id FROM given
            UNION ALL SELECT b.batch_id, unnest(l.series_ids) FROM packed_batch b JOIN series_list l ON l.id = b.series_list_id
            WHERE b.week = %(week)s AND b.batch_id IN (SELECT batch_id FROM given)
        ) AS member
        GROUP BY batch_id
    ) AS of_batch
), added AS (
    INSERT INTO series_list (week, hash, series_ids)
    SELECT DISTINCT ON (hash) %(week)s::date, hash, series_ids FROM listed
    WHERE NOT EXISTS (SELECT FROM series_list l WHERE l.week = %(week)s AND l.hash = listed.hash)
    ORDER BY hash
    RETURNING id, hash
)
INSERT INTO packed_batch (batch_id, week, series_list_id)
SELECT batch_id, %(week)s, coalesce(added.id, (SELECT l.id FROM series_list l WHERE l.week = %(week)s AND l.hash = listed.hash))
FROM listed LEFT JOIN added ON added.hash = listed.hash
ON CONFLICT (batch_id, week) DO UPDATE SET series_list_id = excluded.series_list_id
"""


_NOT_LOST = "noted.week NOT IN (SELECT w.week FROM archived_week w WHERE w.lost_at IS NOT NULL)"


async def add_batches(session: Session, week: date, samples: str) -> None:
    """Note the series of the batches of ``samples``, a query of rows with ``batch_id`` and ``series_id``, of one ``week``."""
    await session.count(INSERT_BATCHES.format(samples=samples), {"week": week})


def packed_of_batch(
    columns: tuple[str, ...],
    batch_id: str,
    *,
    first: str,
    last: str,
    archived: bool = True,
    without_lost: bool = False,
) -> str:
    """Return a query of the packed samples of the batch ``batch_id``, whose times are from ``first`` to ``last``, all SQL.

    Its rows have ``columns``. It can be used with LATERAL. Without ``archived``, those that are only on archive servers are left out;
    ``without_lost``, those of weeks that are lost.
    """
    wanted = tuple(dict.fromkeys([*columns, "batch_id"]))
    weeks = f"(SELECT * FROM packed_batch noted WHERE noted.batch_id = {batch_id} AND {_NOT_LOST} OFFSET 0)"
    return f"""
SELECT {", ".join(f"e.{column}" for column in columns)}
FROM {weeks if without_lost else "packed_batch"} of_week
JOIN series_list l ON l.id = of_week.series_list_id
CROSS JOIN LATERAL unnest(l.series_ids) AS of_batch (series_id)
CROSS JOIN LATERAL (
    {(unpacked if archived else unpacked_here)(wanted, first=first, last=last)}
    WHERE p.series_id = of_batch.series_id AND p.first <= {last} AND p.last >= {first}
    AND p.first >= {MONDAY.format("of_week.week")} AND p.first < {MONDAY.format("of_week.week + 7")}
    OFFSET 0
) AS e
WHERE of_week.batch_id = {batch_id} AND e.batch_id = {batch_id}
"""
