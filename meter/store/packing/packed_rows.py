"""SQL that makes rows of ``packed_samples`` of samples, and samples of rows of ``packed_samples``.

Both directions are exact: every column of every sample comes back as it was.
"""

from __future__ import annotations

from collections.abc import Collection

MAX_SAMPLES = 4096
"""Samples in a row of ``packed_samples`` at most: reading one of them decompresses the arrays of all."""

SAMPLE_COLUMNS = (
    "timestamp",
    "recorded_at",
    "message_id",
    "volume",
    "metadata_id",
    "series_id",
    "wire_format_id",
    "signature",
    "verbatim_json",
    "batch_id",
    "batch_position",
)
"""The columns of a sample, in the order of the table ``sample``."""

ROW_ID = "row_id"
"""One more column, a ``tid``, which tells samples with the same time and id apart: made of the series and the position in the row."""

VALUE_COLUMNS = ("timestamp", "recorded_at", "message_id", "volume", "metadata_id", "series_id")
"""The columns that most queries need: of a packed row, the arrays of the others are not decompressed."""

_ARRAYS = {
    "timestamp": ("times", "time_offsets"),
    "recorded_at": ("times", "time_offsets", "recorded_times", "delays"),
    "message_id": ("message_ids",),
    "volume": ("volumes",),
    "metadata_id": ("metadata_ids",),
    "series_id": (),
    "wire_format_id": ("wire_format_ids",),
    "signature": ("signatures_left", "signatures_right", "signatures"),
    "verbatim_json": ("verbatim_jsons",),
    "batch_id": ("batch_ids",),
    "batch_position": ("batch_positions",),
    ROW_ID: (),
}
"""The arrays of a packed row that each column is made of."""

_ELEMENTS = {
    "time_offsets": "integer",
    "times": "timestamptz",
    "delays": "integer",
    "recorded_times": "timestamptz",
    "message_ids": "uuid",
    "volumes": "double precision",
    "metadata_ids": "integer",
    "wire_format_ids": "integer",
    "signatures_left": "uuid",
    "signatures_right": "uuid",
    "signatures": "bytea",
    "verbatim_jsons": "text",
    "batch_ids": "bigint",
    "batch_positions": "smallint",
}
"""The arrays of a packed row, in the order of ``archived_arrays()``, with the types of their elements."""

ARRAYS = tuple(_ELEMENTS)

IS_ARCHIVED = "p.archived"
"""The condition that the arrays of the packed row ``p`` are on an archive server, but for their ends."""

ANY_ARCHIVED = "(SELECT EXISTS (SELECT FROM archived_week))"
"""Where nothing is archived, PostgreSQL leaves out what has this condition."""

_TIMESTAMP = (
    "coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond')"
)

_UNPACKED = {
    "timestamp": _TIMESTAMP,
    "recorded_at": f"coalesce(u.recorded_times, {_TIMESTAMP} + u.delays * interval '1 microsecond')",
    "message_id": "u.message_ids",
    "volume": "u.volumes",
    "metadata_id": "u.metadata_ids",
    "series_id": "p.series_id",
    "wire_format_id": "u.wire_format_ids",
    "signature": "coalesce(uuid_send(u.signatures_left) || uuid_send(u.signatures_right), u.signatures, '')",
    "verbatim_json": "coalesce(u.verbatim_jsons, '')",
    "batch_id": "coalesce(u.batch_ids, 0)",
    "batch_position": "coalesce(u.batch_positions, 0::smallint)",
    ROW_ID: "('(' || p.series_id || ',' || u.n + slice.lower - 1 || ')')::tid",
}
"""Each column as SQL over a packed row ``p``, its ``slice`` and the elements ``u`` of its arrays."""

_MAX_AFTER_RANGE = 3
"""How many elements of a slice may lie after the range, and are read beside those that are wanted."""

EDGE = 1 + _MAX_AFTER_RANGE
"""How many elements stay at each end of the arrays of an archived row: what is read to find its first or its last sample.

Lists of resources need these of every row that has the newest or the oldest sample of a series. Rows with no more samples than
twice this number are not archived.
"""

_AT_END = f"(slice.upper <= {EDGE} OR slice.lower > p.count - {EDGE})"

_SLICE = """
SELECT
    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
        ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest({first}, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
    END AS lower,
    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
        ELSE least(p.count, ceil((date_part('epoch', least({last}, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
    END AS upper
OFFSET 0
"""
"""The positions of the elements that may lie between the times ``first`` and ``last``, and at most a few more."""


def unpacked(columns: Collection[str], *, first: str, last: str) -> str:
    """Return the select list and FROM items that make samples with ``columns`` of the rows ``p`` of ``packed_samples``.

    ``first`` and ``last`` are SQL for the range of time that is wanted, both included, ``'-infinity'::timestamptz`` for no limit: all
    samples within it are selected, and a few others. A WHERE clause can follow: the condition that selects the rows ``p``
    (:func:`overlaps`, and the series), and conditions on the samples cannot refer to names of columns there.
    """
    select, elements = _selected(columns)
    return (
        f"SELECT {select}\n"
        f"FROM packed_samples p CROSS JOIN LATERAL ({_SLICE.format(first=first, last=last)}) AS slice\n"
        f"CROSS JOIN {elements}"
    )


def unpacked_slice(columns: Collection[str]) -> str:
    """Return the SELECT that makes samples with ``columns`` of one row ``p`` of ``packed_samples`` and one ``slice`` of its elements."""
    select, elements = _selected(columns)
    return f"SELECT {select} FROM {elements}"


def slices_from_end(size: int | str, *, first: str, last: str, oldest: bool) -> str:
    """Return the FROM items that join to the row ``p`` the ``slice`` of its last elements in the range, and then that of the others.

    The first slice has ``size`` elements and a few more, as a range of time is not exactly one of elements. ``oldest``: of its first
    elements. Of an archived row it is no longer than what stays here, if the range ends there.
    """
    end = f"{size} + {_MAX_AFTER_RANGE}"
    if oldest:
        size_here = f"CASE WHEN {IS_ARCHIVED} AND whole.lower <= {EDGE} THEN least({EDGE + 1} - whole.lower, {end}) ELSE {end} END"
        slices = (
            "(whole.lower, least(whole.upper, whole.lower + ahead.size - 1)), (whole.lower + ahead.size, whole.upper)"
        )
    else:
        kept = f"whole.upper - p.count + {EDGE}"
        size_here = f"CASE WHEN {IS_ARCHIVED} AND {kept} > 0 THEN least({kept}, {end}) ELSE {end} END"
        slices = "(greatest(whole.lower, whole.upper - ahead.size + 1), whole.upper), (whole.lower, whole.upper - ahead.size)"
    return (
        f"CROSS JOIN LATERAL ({_SLICE.format(first=first, last=last)}) AS whole\n"
        f"CROSS JOIN LATERAL (SELECT {size_here} AS size OFFSET 0) AS ahead\n"
        f"CROSS JOIN LATERAL (SELECT * FROM (VALUES {slices}) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice"
    )


def unpacked_here(columns: Collection[str], *, first: str, last: str) -> str:
    """Return :func:`unpacked` without what is only on archive servers: :func:`archived_between` has it."""
    select, elements = _selected(columns, archived=False)
    return (
        f"SELECT {select}\n"
        f"FROM packed_samples p CROSS JOIN LATERAL ({_SLICE.format(first=first, last=last)}) AS slice\n"
        f"CROSS JOIN {elements}"
    )


def archived_between(
    columns: Collection[str], *, series: str, first: str, last: str, recorded_since: str, without_lost: bool = False
) -> str:
    """Return the SELECT of the samples on archive servers, with ``columns``, that may lie between two times, and of a few others.

    ``series`` is SQL for an array of the ids of their series, ``NULL`` for all, and ``recorded_since`` for the time since which a row must
    have recorded samples, ``NULL`` for any. The rows of a week are read together. ``without_lost``: those of weeks that are lost are left out.
    """
    return _from_function(
        columns, "archived_slices", f"{series}, {first}, {last}, {recorded_since}, {str(without_lost).lower()}"
    )


def archived_around(columns: Collection[str], *, series: str, at: str, until: bool, since: bool) -> str:
    """Return the SELECT of the samples on archive servers of the rows that have the time ``at`` in their middle, as above.

    They are those that may have this time and a few before and after; ``until``: and all that come before, ``since``: and all that follow.
    """
    arguments = f"{series}, {at}, {at}, NULL, false"
    return _from_function(
        columns,
        "archived_slices",
        arguments,
        lower="1" if until else "k.lower",
        upper="a.count" if since else "k.upper",
    )


def archived_with_ids(columns: Collection[str], ids: str, *, first: str, last: str, without_lost: bool = False) -> str:
    """Return the SELECT of the samples on archive servers that have one of ``ids``, SQL for an array, and a few others of their rows.

    They are those of weeks that have times from ``first`` to ``last``. ``without_lost``: those of weeks that are lost are left out.
    """
    return _from_function(columns, "archived_with_ids", f"{ids}, {first}, {last}, {str(without_lost).lower()}")


def _from_function(
    columns: Collection[str], function: str, arguments: str, *, lower: str = "k.lower", upper: str = "k.upper"
) -> str:
    """Return the SELECT of the samples that ``function`` reads: of each row ``a`` and its slice ``k``, elements ``lower`` to ``upper``."""
    select, arrays = _select_list(columns), _arrays_of(columns)
    wanted = ", ".join(
        f"a.{array}[{lower}:{upper}]" if array in arrays else f"NULL::{type}[]" for array, type in _ELEMENTS.items()
    )
    elements = ", ".join(f"p.{array}" for array in arrays)
    return (
        f"SELECT {select}\n"
        f"FROM {function}('{wanted}', {arguments}) AS p CROSS JOIN LATERAL (SELECT {lower.replace('k.', 'p.')} AS lower) AS slice\n"
        f"CROSS JOIN LATERAL unnest({elements}) WITH ORDINALITY AS u ({', '.join(arrays)}, n)\n"
        f"WHERE {ANY_ARCHIVED}"
    )


def whole_array(array: str) -> str:
    """Return the subquery of one ``array`` of the row ``p`` of ``packed_samples``, wherever it is, to be used with LATERAL."""
    return f"SELECT p.{array} WHERE NOT {IS_ARCHIVED} UNION ALL SELECT a.{array} FROM {_archived([array])} WHERE {IS_ARCHIVED}"


def edges(array: str, *, row: str = "p") -> str:
    """Return the SQL of what of ``array`` stays in an archived row: its first and its last elements."""
    return f"{row}.{array}[1:{EDGE}] || {row}.{array}[{row}.count - {EDGE - 1}:{row}.count]"


def _archived(arrays: Collection[str]) -> str:
    """Return the FROM item ``a`` with ``arrays`` of the row ``p``, from its archive server."""
    wanted = ", ".join(array if array in arrays else f"NULL::{type}[]" for array, type in _ELEMENTS.items())
    return f"archived_arrays('{wanted}', p.series_id, p.first, p.part, p.count) AS a"


def _slices(arrays: Collection[str], *, archived: bool) -> str:
    """Return the subquery of the ``slice`` of ``arrays`` of the row ``p`` to be used with LATERAL: wherever they are, or if they are here.

    The archive server is connected to only for elements that are not at an end of the row.
    """

    def sliced(row: str, shift: str = "") -> str:
        return ", ".join(f"{row}.{array}[slice.lower{shift}:slice.upper{shift}]" for array in arrays)

    here = (
        f"SELECT {sliced('p')} WHERE NOT {IS_ARCHIVED} UNION ALL\n"
        f"SELECT {sliced('p', ' - shift')}"
        f" FROM (SELECT CASE WHEN slice.upper <= {EDGE} THEN 0 ELSE p.count - {2 * EDGE} END AS shift) AS edge"
        f" WHERE {IS_ARCHIVED} AND {_AT_END}"
    )
    if not archived:
        return here
    return (
        f"{here} UNION ALL\n"
        f"SELECT {sliced('a')} FROM {_archived(arrays)} WHERE {IS_ARCHIVED} AND NOT {_AT_END} AND slice.lower <= slice.upper"
    )


def _selected(columns: Collection[str], *, archived: bool = True) -> tuple[str, str]:
    """Return the select list that makes samples with ``columns``, and the FROM items that make the elements ``u`` of arrays."""
    arrays = _arrays_of(columns)
    elements = ", ".join(f"held.{array}" for array in arrays)
    return (
        _select_list(columns),
        f"LATERAL ({_slices(arrays, archived=archived)}) AS held ({', '.join(arrays)})\n"
        f"CROSS JOIN LATERAL unnest({elements}) WITH ORDINALITY AS u ({', '.join(arrays)}, n)",
    )


def _select_list(columns: Collection[str]) -> str:
    return ", ".join(f"{_UNPACKED[column]} AS {column}" for column in columns)


def _arrays_of(columns: Collection[str]) -> list[str]:
    return list(dict.fromkeys(array for column in columns for array in _ARRAYS[column]))


WEEKS_SINCE = "p.first >= (({first}) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC'"
"""The condition that the row ``p`` of ``packed_samples`` is of a week that has times since ``first``.

Without a time zone in between, the result of the subtraction would not be a constant for PostgreSQL, which then plans all weeks.
"""


def overlaps(first: str, last: str) -> str:
    """Return the condition that the row ``p`` of ``packed_samples`` may have samples from ``first`` to ``last``, SQL for times.

    The third part excludes the partitions of earlier weeks.
    """
    return f"p.first <= {last} AND p.last >= {first} AND {WEEKS_SINCE.format(first=first)}"


DESCRIBING_COLUMNS = ("count", "last", "last_recorded", "step", "least_offset", "greatest_offset")
"""What a packed row says of its arrays. An archived row is read, or brought back, only if its archive server says the same of it."""

PACKED_COLUMNS = (
    "series_id, part, step, count, first, last, last_recorded, least_offset, greatest_offset, time_offsets, times, delays, recorded_times,"
    " message_ids, volumes, metadata_ids, wire_format_ids, signatures_left, signatures_right, signatures, verbatim_jsons, batch_ids,"
    " batch_positions"
)

_FITS = "BETWEEN -2147483648 AND 2147483647"
_HALF = "CASE WHEN length(signature) = 32 THEN encode(substr(signature, {}, 16), 'hex')::uuid END"

PACKED = f"""
SELECT series_id, part, step, count(*), min(timestamp), max(timestamp), max(recorded_at),
    CASE WHEN bool_and(time_offset {_FITS}) THEN min(time_offset)::integer ELSE 0 END,
    CASE WHEN bool_and(time_offset {_FITS}) THEN max(time_offset)::integer ELSE 0 END,
    CASE WHEN bool_and(time_offset {_FITS}) THEN array_agg(CASE WHEN time_offset {_FITS} THEN time_offset::integer END) END,
    CASE WHEN NOT bool_and(time_offset {_FITS}) THEN array_agg(timestamp) END,
    CASE WHEN bool_and(delay {_FITS}) THEN array_agg(CASE WHEN delay {_FITS} THEN delay::integer END) END,
    CASE WHEN NOT bool_and(delay {_FITS}) THEN array_agg(recorded_at) END,
    array_agg(message_id), array_agg(volume), array_agg(metadata_id), array_agg(wire_format_id),
    CASE WHEN bool_and(length(signature) = 32) THEN array_agg({_HALF.format(1)}) END,
    CASE WHEN bool_and(length(signature) = 32) THEN array_agg({_HALF.format(17)}) END,
    CASE WHEN NOT bool_and(length(signature) = 32) AND bool_or(signature <> '') THEN array_agg(signature) END,
    CASE WHEN bool_or(verbatim_json <> '') THEN array_agg(verbatim_json) END,
    CASE WHEN bool_or(batch_id <> 0) THEN array_agg(batch_id) END,
    CASE WHEN bool_or(batch_id <> 0) THEN array_agg(batch_position) END
FROM (
    SELECT s.*,
        (extract(epoch FROM timestamp - first_value(timestamp) OVER in_order) * 1000000)::bigint
            - (row_number() OVER in_order - 1) * step AS time_offset,
        (extract(epoch FROM recorded_at - timestamp) * 1000000)::bigint AS delay
    FROM (
        SELECT s.*, CASE WHEN x.polling_interval > 0 THEN (x.polling_interval * 1000000)::bigint
            ELSE (extract(epoch FROM max(timestamp) OVER of_part - min(timestamp) OVER of_part) * 1000000)::bigint
                / greatest(1, count(*) OVER of_part - 1) END AS step
        FROM (
            SELECT s.*, ((row_number() OVER (PARTITION BY s.series_id ORDER BY s.timestamp, s.message_id) - 1) / {MAX_SAMPLES})::smallint AS part
            FROM ({{samples}}) AS s
        ) AS s LEFT JOIN series x ON x.id = s.series_id
        WINDOW of_part AS (PARTITION BY s.series_id, s.part)
    ) AS s
    WINDOW in_order AS (PARTITION BY series_id, part ORDER BY timestamp, message_id)
) AS s
GROUP BY series_id, part, step
"""
"""The rows of ``packed_samples``, with :data:`PACKED_COLUMNS`, of ``samples``, which are of one week. Elements of arrays are in the order
in which the subquery's window sorts the samples: whoever packs compares what is read back."""
