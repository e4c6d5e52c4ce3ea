"""SQL functions that read samples of a spread store: each runs one distributed statement in which all values are constants.

Citus refuses to join distributed tables with local ones, and plans only statements whose values it can see. A function of these can
stand where a statement for one server names the table of samples, also with LATERAL. On one server they return the same.
"""

from __future__ import annotations

from meter.store.postgres.pool import Session
from meter.store.query.access_paths import IN_ORDER_OF_RECORDING
from meter.store.query.access_paths import IN_ORDER_OF_TIME

VERSION = 4
"""Grows with each change of the functions: a daemon that may upgrade the schema makes them anew."""

TYPE = """
DO $$ BEGIN
    IF to_regtype('spread_sample') IS NULL THEN
        CREATE TYPE spread_sample AS (
            timestamp timestamptz, recorded_at timestamptz, message_id uuid, volume float8, metadata_id integer, series_id integer,
            wire_format_id integer, signature bytea, verbatim_json text, batch_id bigint, batch_position smallint
        );
    END IF;
END $$
"""
"""A row of ``sample``. The type of the table itself cannot be named: while it is distributed, Citus makes another table of this name."""

TYPES_OF_PARTIALS = """
DO $$ BEGIN
    IF to_regtype('spread_partial') IS NULL THEN
        CREATE TYPE spread_partial AS (
            series_id integer, metadata_id integer, first timestamptz, last timestamptz, count float8, min_volume float8,
            max_volume float8, sum_volume float8, squared_deviations float8, first_volume float8, last_volume float8
        );
        CREATE TYPE spread_volumes AS (
            series_id integer, metadata_id integer, times timestamptz[], volumes float8[], ids uuid[]
        );
    END IF;
END $$
"""
"""The sums of the samples of a series, and their times, volumes and ids."""

_COLUMNS = (
    "s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, {signature}, {verbatim_json},"
    " s.batch_id, s.batch_position"
)
_WIDE = _COLUMNS.format(signature="s.signature", verbatim_json="s.verbatim_json")
_NARROW = _COLUMNS.format(signature="''''::bytea AS signature", verbatim_json="''''::text AS verbatim_json")
_LIST = f"CASE WHEN wide THEN '{_WIDE}' ELSE '{_NARROW}' END"
_SELECT = f"'SELECT ' || {_LIST} || ' FROM sample s WHERE true'"

_BETWEEN = """
    || CASE WHEN since > '-infinity' THEN format(' AND s.timestamp >= %L::timestamptz', since) ELSE '' END
    || CASE WHEN until < 'infinity' THEN format(' AND s.timestamp <= %L::timestamptz', until) ELSE '' END"""

_OF_SERIES = f"""
    || CASE WHEN series IS NULL THEN '' ELSE format(' AND s.series_id = ANY(%L::integer[])', series) END
    || CASE WHEN cardinality(series) = 1 THEN '' ELSE ' AND {IN_ORDER_OF_TIME}' END"""

_FUNCTION = """
CREATE OR REPLACE FUNCTION {name}({arguments}) RETURNS SETOF spread_sample LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $function$
BEGIN
    IF {nothing} THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE {statement};
END
$function$;
"""


def _function(name: str, arguments: str, nothing: str, statement: str) -> str:
    return _FUNCTION.format(name=name, arguments=arguments, nothing=nothing, statement=statement)


SAMPLES_OF_SERIES = _function(
    "spread_samples",
    "series integer[], since timestamptz, until timestamptz, wide boolean",
    "cardinality(series) = 0 OR since > until",
    f"{_SELECT} {_OF_SERIES} {_BETWEEN}",
)
"""``spread_samples``: the samples of ``series``, null for all, from ``since`` to ``until``.

With ``wide`` false, here as elsewhere, signatures and verbatim JSON come back empty: they are not sent.
"""

SAMPLES_OF_RANGES = f"""
CREATE OR REPLACE FUNCTION spread_samples_of_ranges(series integer[], ranges tstzmultirange, wide boolean) RETURNS SETOF spread_sample
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $function$
BEGIN
    IF coalesce(cardinality(series), 0) = 0 OR ranges IS NULL OR isempty(ranges) THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE 'SELECT ' || {_LIST} || (
        SELECT format(' FROM unnest(%L::timestamptz[], %L::timestamptz[]) AS r (first, last) JOIN sample s ON s.timestamp >= r.first'
            ' AND s.timestamp <= r.last AND s.series_id = ANY(%L::integer[])', array_agg(lower(r)), array_agg(upper(r)), series)
        FROM unnest(ranges) AS r
    ) || format(' WHERE s.timestamp >= %L::timestamptz AND s.timestamp <= %L::timestamptz', lower(ranges), upper(ranges));
END
$function$;
"""
"""``spread_samples_of_ranges``: the samples of ``series`` within ranges of time, both ends of which are included."""

# The shards of other series are not asked, nor those of other weeks.
SAMPLES_OF_SPANS = f"""
CREATE OR REPLACE FUNCTION spread_samples_of_spans(series integer[], firsts timestamptz[], lasts timestamptz[], wide boolean)
RETURNS SETOF spread_sample LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $function$
BEGIN
    IF coalesce(cardinality(series), 0) = 0 THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE 'SELECT ' || {_LIST} || (
        SELECT format(' FROM unnest(%L::integer[], %L::timestamptz[], %L::timestamptz[]) AS span (series_id, first, last) JOIN sample s'
            ' ON s.series_id = span.series_id AND s.timestamp >= span.first AND s.timestamp <= span.last'
            ' WHERE s.series_id = ANY(%L::integer[]) AND s.timestamp >= %L::timestamptz AND s.timestamp <= %L::timestamptz',
            series, firsts, lasts, array_agg(DISTINCT asked.series_id), min(asked.first), max(asked.last))
        FROM unnest(series, firsts, lasts) AS asked (series_id, first, last)
    );
END
$function$;
"""
"""``spread_samples_of_spans``: the samples of each of ``series`` from its first time to its last, in the same place of the arrays.

A series can be there several times, with spans that do not overlap.
"""

SAMPLES_IN_ORDER = _function(
    "spread_samples_in_order",
    "series integer[], since timestamptz, until timestamptz, oldest boolean, skipped bigint, rows bigint, wide boolean",
    "cardinality(series) = 0 OR since > until",
    f"""{_SELECT} {_OF_SERIES} {_BETWEEN}
    || CASE WHEN oldest THEN ' ORDER BY s.timestamp, s.message_id, s.series_id'
        ELSE ' ORDER BY s.timestamp DESC, s.message_id DESC, s.series_id DESC' END
    || CASE WHEN rows IS NULL THEN '' ELSE format(' LIMIT %s', rows) END
    || CASE WHEN skipped > 0 THEN format(' OFFSET %s', skipped) ELSE '' END""",
)
"""``spread_samples_in_order``: the same, newest first or ``oldest`` first; ``rows`` of them, null for all, after those that are ``skipped``."""

SAMPLES_WITH_IDS = _function(
    "spread_samples_with_ids",
    "ids uuid[], since timestamptz, until timestamptz, wide boolean",
    "coalesce(cardinality(ids), 0) = 0 OR since > until",
    f"{_SELECT} || format(' AND s.message_id = ANY(%L::uuid[])', ids) {_BETWEEN}",
)
"""``spread_samples_with_ids``: the samples with these ids, of any series: all shards of the weeks are asked."""

SAMPLES_OF_BATCHES = _function(
    "spread_samples_of_batches",
    "ids bigint[], since timestamptz, until timestamptz, wide boolean",
    "coalesce(cardinality(ids), 0) = 0 OR since > until",
    f"{_SELECT} || format(' AND {IN_ORDER_OF_TIME} AND s.batch_id = ANY(%L::bigint[])', ids) {_BETWEEN}",
)
"""``spread_samples_of_batches``: the samples of these signed batches."""

SAMPLES_RECORDED = _function(
    "spread_samples_recorded",
    "recorded_since timestamptz, since timestamptz, until timestamptz, rows bigint, wide boolean",
    "since > until",
    f"""{_SELECT} || format(' AND {IN_ORDER_OF_RECORDING} AND s.recorded_at >= %L::timestamptz', recorded_since) {_BETWEEN}
    || CASE WHEN rows IS NULL THEN '' ELSE format(' ORDER BY s.recorded_at DESC LIMIT %s', rows) END""",
)
"""``spread_samples_recorded``: the samples that were recorded at ``recorded_since`` or later, or the newest ``rows`` of them."""

_OF_EACH = f"""'SELECT s.* FROM sampled_series c CROSS JOIN LATERAL (SELECT ' || {_LIST}
    || ' FROM sample s WHERE s.series_id = c.series_id' {_BETWEEN}
    || CASE WHEN oldest THEN ' ORDER BY s.timestamp, s.message_id' ELSE ' ORDER BY s.timestamp DESC, s.message_id DESC' END
    || CASE WHEN rows IS NULL THEN '' ELSE format(' LIMIT %s', rows) END || ') s'
    || format(' WHERE c.series_id = ANY(%L::integer[])', series)
    || CASE WHEN newest_of_all THEN ' ORDER BY s.timestamp DESC, s.message_id DESC'
        || CASE WHEN rows IS NULL THEN '' ELSE format(' LIMIT %s', rows) END ELSE '' END"""

# sampled_series is distributed after the samples: until then each series is one statement.
SAMPLES_OF_EACH = f"""
CREATE OR REPLACE FUNCTION spread_samples_of_each(
    series integer[], since timestamptz, until timestamptz, oldest boolean, rows bigint, newest_of_all boolean, wide boolean
) RETURNS SETOF spread_sample LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $function$
BEGIN
    IF coalesce(cardinality(series), 0) = 0 OR since > until THEN
        RETURN;
    END IF;
    IF (SELECT count(*) = 1 FROM pg_dist_partition WHERE logicalrelid IN ('sample'::regclass, 'sampled_series'::regclass) AND partmethod = 'h') THEN
        RETURN QUERY SELECT s.* FROM unnest(series) AS x (id)
            CROSS JOIN LATERAL spread_samples_in_order(ARRAY[x.id], since, until, oldest, 0, rows, wide) s;
        RETURN;
    END IF;
    RETURN QUERY EXECUTE {_OF_EACH};
END
$function$;
"""
"""``spread_samples_of_each``: the newest ``rows`` samples of each of ``series``, or the ``oldest``: one walk along the index each, on its shard.

With ``newest_of_all`` only the newest ``rows`` of them all.
"""

_WITHIN = f"""' FROM sample s WHERE true' {_OF_SERIES} {_BETWEEN}
    || CASE WHEN recorded_until < 'infinity' THEN format(' AND s.recorded_at <= %L::timestamptz', recorded_until) ELSE '' END
    || ' GROUP BY s.series_id'
    || CASE WHEN by_metadata THEN ', s.metadata_id' ELSE '' END"""
_METADATA = "CASE WHEN by_metadata THEN 's.metadata_id' ELSE '0' END"

# All groups are of one series: each is computed where its samples are. The volume at an end is the least, or the greatest, of those at
# its time, as in statistics.
PARTIALS = f"""
CREATE OR REPLACE FUNCTION spread_partials(
    series integer[], since timestamptz, until timestamptz, recorded_until timestamptz, seconds bigint, origin timestamptz,
    by_metadata boolean, ends boolean
) RETURNS SETOF spread_partial LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $function$
BEGIN
    IF coalesce(cardinality(series), 0) = 0 OR since > until THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE 'SELECT s.series_id, ' || {_METADATA} || ', min(s.timestamp), max(s.timestamp), count(*)::float8, min(s.volume),'
        || ' max(s.volume), sum(s.volume), var_pop(s.volume) * count(*), '
        || CASE WHEN ends THEN
            '(min(ARRAY[date_part(''epoch'', s.timestamp), s.volume]))[2], (max(ARRAY[date_part(''epoch'', s.timestamp), s.volume]))[2]'
            ELSE 'NULL::float8, NULL::float8' END
        || {_WITHIN}
        || CASE WHEN seconds IS NULL THEN ''
            ELSE format(', date_bin(%L::interval, s.timestamp, %L::timestamptz)', seconds * interval '1 second', origin) END;
END
$function$;
"""
"""``spread_partials``: the sums of the samples of each of ``series``, by windows of ``seconds`` from ``origin`` on if these are given.

Only samples recorded by ``recorded_until`` count. There is one for each metadata ``by_metadata``, and the first and the last volume
with ``ends``.
"""

VOLUMES = f"""
CREATE OR REPLACE FUNCTION spread_volumes_of(
    series integer[], since timestamptz, until timestamptz, recorded_until timestamptz, by_metadata boolean, with_ids boolean
) RETURNS SETOF spread_volumes LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $function$
BEGIN
    IF coalesce(cardinality(series), 0) = 0 OR since > until THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE 'SELECT s.series_id, ' || {_METADATA} || ', array_agg(s.timestamp), array_agg(s.volume), '
        || CASE WHEN with_ids THEN 'array_agg(s.message_id)' ELSE 'NULL::uuid[]' END
        || {_WITHIN} || ', date_bin(''7 days'', s.timestamp, ''2001-01-01 00:00Z'')';
END
$function$;
"""
"""``spread_volumes_of``: the samples of ``series`` as arrays, several for each series: a fraction of the bytes that rows would take."""

GIVEN_IDS = """
CREATE OR REPLACE FUNCTION spread_given_ids() RETURNS bigint[] LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $function$
    SELECT array_agg(coalesce(pg_sequence_last_value(pg_get_serial_sequence(name, 'id')), 0) ORDER BY number)
    FROM unnest(ARRAY['series', 'metadata', 'wire_format', 'signed_batch']) WITH ORDINALITY AS of_ids (name, number)
$function$;
"""
"""``spread_given_ids``: the last id of each of these tables that was given out. Who may only write rows may not read sequences."""

FUNCTIONS = (
    GIVEN_IDS,
    SAMPLES_OF_SERIES,
    SAMPLES_OF_RANGES,
    SAMPLES_OF_SPANS,
    SAMPLES_IN_ORDER,
    SAMPLES_WITH_IDS,
    SAMPLES_OF_BATCHES,
    SAMPLES_RECORDED,
    SAMPLES_OF_EACH,
    PARTIALS,
    VOLUMES,
)


async def make_functions(session: Session) -> None:
    """Make the functions anew, in the transaction of ``session``."""
    await session.count(TYPE)
    await session.count(TYPES_OF_PARTIALS)
    for function in FUNCTIONS:
        await session.count(function)


async def renew_functions(session: Session) -> None:
    """Make the functions anew, in the transaction of ``session``, if they are those of an older Meter.

    Several sessions find that at once: all but the first wait for it, and then find the new ones.
    """
    if await session.rows("SELECT FROM spread_store WHERE functions < %s FOR UPDATE", [VERSION]):
        await make_functions(session)
        await session.count("UPDATE spread_store SET functions = %s", [VERSION])
