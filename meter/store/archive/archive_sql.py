"""The statements of :mod:`meter.store.archive`. ``{table}`` is the partition of a week, ``{archive}`` the foreign table of its server."""

from __future__ import annotations

from meter.store.packing.packed_rows import ARRAYS
from meter.store.packing.packed_rows import DESCRIBING_COLUMNS
from meter.store.packing.packed_rows import EDGE
from meter.store.packing.packed_rows import IS_ARCHIVED
from meter.store.packing.packed_rows import PACKED_COLUMNS
from meter.store.packing.packed_rows import edges

STORE = "SELECT id::text FROM store_identity"

ROW_TEXT = f"ROW({PACKED_COLUMNS})::text"
"""A packed row as text, every column exactly: both servers write it with :data:`EXACT_TEXT`."""

EXACT_TEXT = "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'"
"""postgres_fdw has the same settings on the other side, but for ``bytea_output``, which is an option of Meter's servers."""

CHECKSUM = f"encode(sha256(convert_to({ROW_TEXT}, 'UTF8')), 'hex')"

REMOTE_SCHEMA = "meter_archive"

ARCHIVE_COLUMNS = """
    store_id uuid NOT NULL,
    first timestamptz NOT NULL,
    last timestamptz NOT NULL,
    last_recorded timestamptz NOT NULL,
    step bigint NOT NULL,
    series_id integer NOT NULL,
    count integer NOT NULL,
    least_offset integer NOT NULL,
    greatest_offset integer NOT NULL,
    part smallint NOT NULL,
    time_offsets integer[],
    times timestamptz[],
    delays integer[],
    recorded_times timestamptz[],
    message_ids uuid[] NOT NULL,
    volumes double precision[] NOT NULL,
    metadata_ids integer[] NOT NULL,
    wire_format_ids integer[] NOT NULL,
    signatures_left uuid[],
    signatures_right uuid[],
    signatures bytea[],
    verbatim_jsons text[],
    batch_ids bigint[],
    batch_positions smallint[]"""
"""The columns of the table on the server, and of its foreign table here."""

MAKE_REMOTE_TABLES = f"""
CREATE TABLE {REMOTE_SCHEMA}.packed_samples ({ARCHIVE_COLUMNS},
    PRIMARY KEY (store_id, series_id, first, part)
);
CREATE INDEX packed_samples_first ON {REMOTE_SCHEMA}.packed_samples (store_id, first);
CREATE VIEW {REMOTE_SCHEMA}.packed_checksums AS
    SELECT store_id, series_id, first, part, {CHECKSUM} AS checksum FROM {REMOTE_SCHEMA}.packed_samples;
"""
"""The tables of an archive server. Rows are whole, so that an archive can be read without the store."""

MAKE_FOREIGN_TABLES = f"""
CREATE FOREIGN TABLE {{archive}} ({ARCHIVE_COLUMNS}
) SERVER {{server}} OPTIONS (schema_name '{REMOTE_SCHEMA}', table_name 'packed_samples', batch_size '100');
CREATE FOREIGN TABLE {{archive}}_checksums (
    store_id uuid NOT NULL, series_id integer NOT NULL, first timestamptz NOT NULL, part smallint NOT NULL, checksum text NOT NULL
) SERVER {{server}} OPTIONS (schema_name '{REMOTE_SCHEMA}', table_name 'packed_checksums');
"""

OF_WEEK = "a.store_id = %(store)s::uuid AND a.first >= %(start)s AND a.first < %(end)s"
OF_GROUP = f"{OF_WEEK} AND a.series_id > %(after)s AND a.series_id <= %(last)s"
"""Conditions of rows in the archive; both are sent to the server."""

_HERE = "p.series_id > %(after)s AND p.series_id <= %(last)s"
_SAME_KEY = "(a.series_id, a.first, a.part) = (p.series_id, p.first, p.part)"

NEXT_GROUP = """
SELECT series_id, samples FROM (
    SELECT p.series_id, sum(p.count)::bigint AS samples FROM {table} p WHERE p.series_id > %(after)s AND {state}
    GROUP BY p.series_id ORDER BY p.series_id LIMIT 1000
) AS next
"""
"""The next series with rows in the ``state``, and the samples of these rows."""

IN_ARCHIVE = IS_ARCHIVED
HERE = f"NOT {IS_ARCHIVED} AND p.count > {2 * EDGE}"

LEFTOVERS = f"SELECT count(*) FROM {{archive}} a WHERE {OF_GROUP}"

NOT_LEFT = f"""
SELECT a.series_id, a.first, a.part FROM {{archive}} a WHERE {OF_GROUP}
AND NOT EXISTS (SELECT FROM {{table}} p WHERE {_SAME_KEY} AND {IS_ARCHIVED})
"""
"""The keys of a group of rows in the archive that are no part of it: a copy that was not finished."""

DELETE_ROW = """
DELETE FROM {archive} a WHERE a.store_id = %(store)s::uuid AND a.series_id = %(series)s AND a.first = %(first)s AND a.part = %(part)s
"""

COPY = f"""
INSERT INTO {{archive}} (store_id, {PACKED_COLUMNS})
SELECT %(store)s::uuid, {PACKED_COLUMNS} FROM {{table}} p WHERE {_HERE} AND {HERE}
"""

DIFFERENT = f"""
WITH there AS MATERIALIZED (
    SELECT a.series_id, a.first, a.part, a.checksum FROM {{archive}}_checksums a WHERE {OF_GROUP}
), here AS MATERIALIZED (
    SELECT p.series_id, p.first, p.part, p.count, {CHECKSUM} AS checksum FROM {{table}} p WHERE {_HERE} AND {HERE}
)
SELECT count(*), coalesce(sum(here.count), 0), count(*) FILTER (WHERE there.checksum IS DISTINCT FROM here.checksum)
FROM here LEFT JOIN there USING (series_id, first, part)
"""
"""The rows of a group that are here, their samples, and how many of them the archive does not have exactly so."""

_SIZES = " + ".join(f"coalesce(pg_column_size(p.{array}), 0)" for array in ARRAYS)

LEAVE_STUBS = f"""
WITH sized AS MATERIALIZED (
    SELECT p.series_id, p.first, p.part, {_SIZES} AS bytes FROM {{table}} p WHERE {_HERE} AND {HERE}
), moved AS (
    UPDATE {{table}} p SET archived = true, {", ".join(f"{array} = {edges(array)}" for array in ARRAYS)}
    FROM sized WHERE (sized.series_id, sized.first, sized.part) = (p.series_id, p.first, p.part)
    RETURNING p.count, sized.bytes
)
UPDATE archived_week w SET rows = w.rows + moved.rows, samples = w.samples + moved.samples, bytes = w.bytes + moved.bytes
FROM (SELECT count(*) AS rows, coalesce(sum(count), 0) AS samples, coalesce(sum(bytes), 0) AS bytes FROM moved) AS moved
WHERE w.week = %(week)s
RETURNING moved.rows, moved.samples
"""
"""Takes the arrays of a group out of the rows that are here, and counts what has been moved."""

_SAME_DESCRIPTION = " AND ".join(f"a.{column} = p.{column}" for column in DESCRIBING_COLUMNS)

BRING_BACK = f"""
UPDATE {{table}} p SET archived = false, {", ".join(f"{array} = a.{array}" for array in ARRAYS)}
FROM {{archive}} a WHERE {OF_GROUP} AND {_SAME_KEY} AND {_SAME_DESCRIPTION} AND {IS_ARCHIVED}
"""

COUNT_BACK = """
UPDATE archived_week SET rows = greatest(rows - %(rows)s, 0), samples = greatest(samples - %(samples)s, 0), archived_at = NULL
WHERE week = %(week)s
"""

STUBS = f"SELECT count(*), coalesce(sum(p.count), 0) FROM {{table}} p WHERE {_HERE} AND {IS_ARCHIVED}"

BACK_EXACTLY = f"""
WITH there AS MATERIALIZED (
    SELECT a.series_id, a.first, a.part, a.checksum FROM {{archive}}_checksums a WHERE {OF_GROUP}
)
SELECT count(*) FROM there JOIN {{table}} p USING (series_id, first, part) WHERE {CHECKSUM} <> there.checksum
"""
"""How many rows that are back here are not exactly those of the archive."""

BEGIN_WEEK = "INSERT INTO archived_week (week, server) VALUES (%(week)s, %(server)s) ON CONFLICT DO NOTHING"
END_WEEK = "UPDATE archived_week SET archived_at = clock_timestamp() WHERE week = %(week)s"
FORGET_WEEK = "DELETE FROM archived_week WHERE week = %(week)s"
REMOVE_LATER = "INSERT INTO archive_removal (server, week, series_ids) VALUES (%(server)s, %(week)s, %(series)s)"

REMOVALS = "SELECT id, server, week, series_ids FROM archive_removal ORDER BY id"
FORGET_REMOVAL = "DELETE FROM archive_removal WHERE id = %(id)s"

_OF_SERIES = "(%(series)s::integer[] IS NULL OR {row}.series_id = ANY(%(series)s::integer[]))"

REMOVE_WEEK = f"DELETE FROM {{archive}} a WHERE {OF_WEEK}"
REMOVE_SERIES = f"DELETE FROM {{archive}} a WHERE {OF_WEEK} AND a.series_id = ANY(%(series)s::integer[])"

STILL_REFERRED_TO = f"""
SELECT EXISTS (
    SELECT FROM packed_samples p WHERE p.first >= %(start)s AND p.first < %(end)s AND {IS_ARCHIVED}
    AND {_OF_SERIES.format(row="p")}
)
"""

NOT_REFERRED_TO = f"""
SELECT a.series_id, a.first, a.part FROM {{archive}} a WHERE {OF_WEEK} AND {_OF_SERIES.format(row="a")}
AND NOT EXISTS (SELECT FROM packed_samples p WHERE {_SAME_KEY} AND p.first >= %(start)s AND p.first < %(end)s AND {IS_ARCHIVED})
"""

WEEKS_OF_SERVER = "SELECT week FROM archived_week WHERE server = %(name)s AND lost_at IS NULL ORDER BY week"
REFERS_TO_WEEK = (
    f"SELECT EXISTS (SELECT FROM packed_samples p WHERE p.first >= %(start)s AND p.first < %(end)s AND {IS_ARCHIVED})"
)
HAS_WEEK = """
SELECT a.part FROM {archive} a WHERE a.store_id = (SELECT id FROM store_identity) AND a.first >= %(start)s AND a.first < %(end)s LIMIT 1
"""
"""A row of a week, if the archive has one; conditions and limit are sent to the server."""
