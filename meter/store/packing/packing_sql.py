"""The statements of :mod:`meter.store.packing.packer`. ``{table}`` is the partition of the samples of the week."""

from __future__ import annotations

from meter.store.packing.packed_rows import PACKED
from meter.store.packing.packed_rows import PACKED_COLUMNS
from meter.store.packing.packed_rows import SAMPLE_COLUMNS
from meter.store.packing.packed_rows import unpacked

COLUMNS = ", ".join(SAMPLE_COLUMNS)

WORKING_TABLE = "CREATE TEMPORARY TABLE IF NOT EXISTS packing (LIKE sample) ON COMMIT DELETE ROWS"

ALWAYS = ("'-infinity'::timestamptz", "'infinity'::timestamptz")

IN_WEEK = "p.first >= %(start)s AND p.first < %(end)s"

# Found by series: the planner would otherwise read the partition for each group, while its statistics are old.
BY_SERIES = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"

# Packed samples of these series are unpacked and packed again.
NEXT_SERIES = f"""
SELECT g.series_id, g.samples + coalesce((SELECT sum(p.count) FROM packed_samples p WHERE p.series_id = g.series_id AND {IN_WEEK}), 0)
FROM (
    SELECT series_id, count(*) AS samples
    FROM (
        SELECT s.series_id FROM {{table}} s WHERE s.series_id > %(after)s AND s.recorded_at <= %(until)s
        ORDER BY s.series_id LIMIT %(samples)s
    ) AS s
    GROUP BY series_id
) AS g
ORDER BY g.series_id
"""
"""The next series after ``after`` that have samples to pack, and how many samples of them one group would pack."""

TAKE_PLAIN = f"""
WITH taken AS (
    DELETE FROM {{table}} s WHERE s.series_id > %(after)s AND s.series_id <= %(last)s AND s.recorded_at <= %(until)s
    RETURNING {COLUMNS}
)
INSERT INTO packing ({COLUMNS}) SELECT {COLUMNS} FROM taken
"""

OF_GROUP = f"p.series_id = ANY(ARRAY(SELECT DISTINCT series_id FROM packing)) AND {IN_WEEK}"

COPY_PACKED = f"""
INSERT INTO packing ({COLUMNS})
{unpacked(SAMPLE_COLUMNS, first=ALWAYS[0], last=ALWAYS[1])}
WHERE {OF_GROUP}
"""

DELETE_PACKED = f"DELETE FROM packed_samples p WHERE {OF_GROUP}"

INSERT_PACKED = f"""
INSERT INTO packed_samples ({PACKED_COLUMNS})
{PACKED.format(samples=f"SELECT {COLUMNS} FROM packing")}
"""

# Two numbers can be equal and have different bits: 0 and -0.
EXACTLY = COLUMNS.replace("volume", "float8send(volume)")

DIFFERENCES = f"""
WITH found AS MATERIALIZED (
    {unpacked(SAMPLE_COLUMNS, first=ALWAYS[0], last=ALWAYS[1])}
    WHERE {OF_GROUP}
)
SELECT (SELECT count(*) FROM packing), (SELECT count(*) FROM found),
    (SELECT count(*) FROM (SELECT {EXACTLY} FROM packing EXCEPT ALL SELECT {EXACTLY} FROM found) AS missing)
"""
"""How many samples were to be packed, how many are read back, and how many of the former are not among the latter."""

_ROW = unpacked(("timestamp", "recorded_at", "message_id"), first=ALWAYS[0], last=ALWAYS[1])

WRONG_BOUNDS = f"""
EXISTS (
    SELECT FROM (
        SELECT count(*) AS count, min(timestamp) AS first, max(timestamp) AS last, max(recorded_at) AS last_recorded,
            bool_and(previous IS NULL OR previous < ROW(timestamp, message_id)) AS in_order
        FROM (
            SELECT *, lag(ROW(timestamp, message_id)) OVER () AS previous
            FROM ({_ROW} WHERE p.series_id = q.series_id AND p.first = q.first AND p.part = q.part) AS s
        ) AS s
    ) AS found
    WHERE (q.count, q.first, q.last, q.last_recorded) IS DISTINCT FROM (found.count, found.first, found.last, found.last_recorded)
    OR NOT found.in_order
    OR q.least_offset <> (SELECT min(o) FROM unnest(q.time_offsets) AS o)
    OR q.greatest_offset <> (SELECT max(o) FROM unnest(q.time_offsets) AS o)
)
"""
"""Whether the row ``q`` of ``packed_samples`` does not bound its samples rightly, or has them in another order than that of timestamp and id."""

WRONG_ROWS = f"""
SELECT count(*)
FROM packed_samples q
WHERE q.series_id = ANY(ARRAY(SELECT DISTINCT series_id FROM packing)) AND q.first >= %(start)s AND q.first < %(end)s
AND {WRONG_BOUNDS}
"""
"""How many of the new rows are wrong."""

STILL_PLAIN = "SELECT EXISTS (SELECT FROM {table} s WHERE s.recorded_at <= %(until)s)"

FINISH_WEEK = """
UPDATE packed_week SET packed_at = CASE WHEN packed_at IS NULL OR %(samples)s > 0 THEN clock_timestamp() ELSE packed_at END
WHERE week = %(week)s
"""

MAX_LEFT_ROWS = 1000
"""Plain samples of a packed week, late ones, with which its table still counts as almost empty."""

ALMOST_EMPTY = f"""
SELECT pg_total_relation_size('{{table}}'), (SELECT count(*) FROM (SELECT FROM {{table}} LIMIT {MAX_LEFT_ROWS}) AS few)
"""

INDEXES = """
SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
WHERE t.relname = %s AND t.relnamespace = current_schema()::regnamespace AND i.indisvalid ORDER BY c.relname
"""
