"""Statements that select samples, and the samples made from their rows."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any
from typing import NamedTuple

from meter.daemon.shared_slices import OwnedSlices
from meter.interfaces import RequestError
from meter.query import Marker
from meter.query import Order
from meter.query import StoredSample
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import IN_ORDER_OF_RECORDING
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.query.access_paths import NEWEST_FIRST
from meter.store.query.access_paths import SERIES_OF_SAMPLE
from meter.store.query.access_paths import AccessPath
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import FilterConditions
from meter.store.query.conditions import after_marker
from meter.store.query.conditions import conjunction
from meter.store.query.conditions import newest_of_series
from meter.store.query.dimension_cache import DimensionCaches
from meter.store.query.expressions import COLUMNS
from meter.store.query.expressions import METADATA_PREFIX
from meter.store.query.expressions import Column
from meter.store.query.expressions import column_of
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import of_weeks_since
from meter.store.query.sample_rows import OF_ANY_SERIES
from meter.store.query.sample_rows import RECORDED_SINCE
from meter.store.query.sample_rows import after_packed
from meter.store.query.sample_rows import sample_columns
from meter.store.query.sample_rows import samples_between
from meter.store.query.sample_rows import samples_with_ids
from meter.store.query.samples_by_time import samples_by_time
from meter.store.write.record import Record
from meter.store.write.record import Series
from meter.store.write.record import WireFormat
from meter.store.write.record import message_id_of
from meter.store.write.record import volume_of

ROWS = """s.series_id, s.metadata_id, s.wire_format_id, s.message_id::text, s.timestamp, s.volume,
    encode(s.signature, 'hex') AS signature, s.verbatim_json, s.recorded_at"""
"""The select list of a :class:`SampleRow`."""

# The inner query limits the rows, so that only the rows of the result are converted.
SAMPLES = f"""
SELECT {ROWS}
FROM ({{page}}) s
ORDER BY {{order}} s.timestamp DESC, s.message_id DESC
"""

COLUMNS_OF_PAGE = "s.series_id, s.metadata_id, s.wire_format_id, s.message_id, s.timestamp, s.volume, s.signature, s.verbatim_json, s.recorded_at"

PAGE = """
SELECT s.* {keys} FROM {samples} {joins}
WHERE {condition}
ORDER BY {order} s.timestamp DESC, s.message_id DESC LIMIT {limit}
"""

NEWEST_OF_FEW_SERIES = """
SELECT s.* FROM series x CROSS JOIN LATERAL ({newest}) s
WHERE x.id = ANY({series})
ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {limit}
"""

CONVERTED_ROWS = 50
"""Rows that are made to samples before the time is checked."""

RECENT_PAGES = 10
"""How many pages of the newest samples of all series are read at most in search of one page of the matching series.

They are read one after the other until there are enough; to find the page by the newest sample of each series takes as long as ten.
"""

# If many series match, most of the newest samples match too.
NEWEST_AMONG_RECENT = """
SELECT s.* FROM (
    SELECT s.* FROM sample s WHERE {in_order} AND {time_range} AND {after_packed}
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {recent}
) s {joins}
WHERE {condition}
ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {limit}
"""

# The newest sample of each series tells which series can be on the page, and which samples are too old for it: those older than
# the newest samples of as many series as the page has rows. A series that ended long ago costs one index lookup.
NEWEST_OF_MANY_SERIES = """
WITH {reach} newest_of_series AS MATERIALIZED (
    SELECT x.id, s.timestamp, s.message_id FROM series x CROSS JOIN LATERAL ({newest}) s
    WHERE {series}
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {limit}
), oldest AS MATERIALIZED (
    SELECT CASE WHEN count(*) = {limit} THEN min(timestamp) ELSE '-infinity' END AS timestamp FROM newest_of_series
)
SELECT s.* FROM oldest CROSS JOIN newest_of_series JOIN series x ON x.id = newest_of_series.id CROSS JOIN LATERAL ({page_of_series}) s
ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {limit}
"""

# Each packed row has a sample at its last time. As many rows as the page has tell how far it reaches back at most, without unpacking
# any: the samples of the others are older. Other series' rows are looked at, too, but no more than some pages of them.
REACH = """reach AS MATERIALIZED (
    SELECT CASE WHEN count(*) = {limit} THEN min(p.last) ELSE '-infinity' END AS timestamp
    FROM (
        SELECT p.last
        FROM (
            SELECT p.last, p.series_id FROM packed_samples p
            WHERE {of_any_series} AND p.last > {first} AND p.last < {last} AND {of_weeks}
            ORDER BY p.last DESC LIMIT {rows}
        ) p
        WHERE EXISTS (SELECT FROM series x WHERE x.id = p.series_id AND {series} OFFSET 0)
        ORDER BY p.last DESC LIMIT {limit}
    ) p
),"""
SINCE_REACH = "(SELECT timestamp FROM reach)"
REACHING_PAGES = 10
"""How many pages of packed rows are looked at in search of one page of the matching series."""

# The plain samples are few: a page of those that are newer than all packed ones was not full.
WITHIN_REACH = """({since} = '-infinity' OR x.id IN (
    SELECT p.series_id FROM packed_samples p WHERE {of_any_series} AND p.last >= {since} AND {of_weeks}
    UNION ALL
    SELECT s.series_id FROM sample s WHERE {in_order} AND s.timestamp >= {since} AND s.timestamp >= {first} AND s.timestamp <= {last}
))"""


class SampleRow(NamedTuple):
    """A row of the statements that select samples; ids refer to the rows of dimension tables."""

    series_id: int
    metadata_id: int
    wire_format_id: int
    message_id: str
    timestamp: datetime
    volume: float
    signature: str
    verbatim_json: str
    recorded_at: datetime


_series_id, _metadata_id, _wire_format_id = (
    itemgetter(SampleRow._fields.index(field)) for field in ("series_id", "metadata_id", "wire_format_id")
)


def samples_of_series_query(
    conditions: FilterConditions, limit: int, after: Marker | None, series_ids: Sequence[int]
) -> Sql:
    """Return the statement for ``IStore.samples`` if only the few series ``series_ids`` match."""
    return _sample_rows(
        filled(
            NEWEST_OF_FEW_SERIES,
            newest=newest_of_series(conditions.after(after), COLUMNS_OF_PAGE, limit),
            series=Sql("%s", (list(series_ids),)),
            limit=limit,
        )
    )


def recent_samples_query(conditions: FilterConditions, limit: int, after: Marker | None) -> Sql:
    """Return a statement that is cheap for many series. Its rows are those of ``IStore.samples`` if there are ``limit``."""
    return _sample_rows(
        filled(
            NEWEST_AMONG_RECENT,
            in_order=IN_ORDER_OF_TIME,
            time_range=conjunction(conditions.range, after_marker(after)),
            after_packed=after_packed(conditions.bounds),
            recent=RECENT_PAGES * limit,
            joins=f"{SERIES_OF_SAMPLE} {conditions.joined_metadata}",
            condition=conjunction(conditions.series, conditions.sample_of_any_series),
            limit=limit,
        )
    )


def samples_by_time_query(conditions: FilterConditions, limit: int, after: Marker | None) -> Sql:
    """Return the statement for ``IStore.samples`` that reads samples of all matching series in the order of time.

    It suits conditions on samples and metadata that those of some series never meet: these would be read to their end.
    """
    conditions = conditions.after(after)
    joins = f"{SERIES_OF_SAMPLE} {conditions.joined_metadata}"
    condition = conjunction(conditions.series, conditions.sample_of_any_series)
    of_series = (
        "true"
        if conditions.series == TRUE
        else filled("p.series_id = ANY(ARRAY(SELECT x.id FROM series x WHERE {series}))", series=conditions.series)
    )
    columns = sample_columns(COLUMNS_OF_PAGE, joins, condition)
    samples = samples_by_time(
        columns, conditions.bounds, condition=condition, limit=limit, series=of_series, joins=joins
    )
    return _sample_rows(filled("SELECT s.* FROM {samples}", samples=samples))


def samples_of_many_series_query(conditions: FilterConditions, limit: int, after: Marker | None) -> Sql:
    """Return the statement for ``IStore.samples`` if many series match.

    If all do, those of the page that are newer than all packed samples must be fewer than ``limit``.
    """
    conditions = conditions.after(after)
    by_reach = conjunction(conditions.rest, conditions.metadata) == TRUE
    series = conditions.series if conditions.series != TRUE else Sql("x.resource_id > 0")
    reach: Sql | str = ""
    newest, condition = conditions, conditions.sample
    matching = series
    first, last, _ = conditions.bounds
    of_weeks = of_weeks_since(first)
    of_rows = filled(" AND {of_weeks}", of_weeks=of_weeks)
    if by_reach:
        reach = filled(
            REACH,
            limit=limit,
            rows=limit if conditions.series == TRUE else REACHING_PAGES * limit,
            of_any_series=OF_ANY_SERIES,
            first=first,
            last=last,
            of_weeks=of_weeks,
            series=series,
        )
        newest = conditions.within(Sql(SINCE_REACH), NO_END)
        condition = conjunction(Sql(f"s.timestamp >= {SINCE_REACH}"), conditions.sample)
        if conditions.series == TRUE:
            within = filled(
                WITHIN_REACH,
                since=SINCE_REACH,
                of_any_series=OF_ANY_SERIES,
                of_weeks=of_weeks,
                in_order=IN_ORDER_OF_TIME,
                first=first,
                last=last,
            )
            matching = conjunction(series, within)
    since = conjunction(Sql("s.timestamp >= oldest.timestamp"), conditions.sample)
    page = conditions.within(Sql("oldest.timestamp"), NO_END)
    return _sample_rows(
        filled(
            NEWEST_OF_MANY_SERIES,
            reach=reach,
            newest=newest_of_series(newest, "s.timestamp, s.message_id", 1, condition, of_rows=of_rows),
            page_of_series=newest_of_series(page, COLUMNS_OF_PAGE, limit, since, of_rows=of_rows),
            series=matching,
            limit=limit,
        )
    )


def samples_query(conditions: FilterConditions, limit: int, order: Sequence[Order], after: Marker | None) -> Sql:
    """Return the statement for ``IStore.samples`` in any order, by the access path of ``conditions``.

    Without an order, where samples are found by time, it reads only those that are newer than all packed ones: its rows are those
    of the page if there are ``limit``, or if nothing is packed. The others are found by series.
    """
    conditions = conditions.after(after)
    columns = [_sort_column(each) for each in order]
    needs_series = conditions.rest_needs_series or any(column.belongs_to_series for column in columns)
    series, sample = conditions.series, conditions.sample_of_any_series
    newest_first = not order and conditions.access_path is not AccessPath.MESSAGE_ID
    plain: Sql | str = ""
    packed: Sql | str = "true"
    of_series: Sql | str = "true"
    recorded_since: Sql | str = ""
    match conditions.access_path:
        case AccessPath.MESSAGE_ID:
            needs_series |= series != TRUE
        case AccessPath.RECORDED_AT:
            needs_series |= series != TRUE
            plain = IN_ORDER_OF_RECORDING
            packed = filled(RECORDED_SINCE, since=conditions.recorded_since)
            recorded_since = conditions.recorded_since
        case AccessPath.SERIES:
            matching = Sql(f"series_id = ANY(ARRAY(SELECT x.id FROM series x WHERE {series}))", series.parameters)
            series, of_series = filled("s.{matching}", matching=matching), filled("p.{matching}", matching=matching)
            sample = conditions.sample
        case AccessPath.TIMESTAMP:
            plain, packed, series = IN_ORDER_OF_TIME, OF_ANY_SERIES, TRUE
    sort_keys = "".join(f"key_{n} {'DESC' if each.descending else 'ASC'}, " for n, each in enumerate(order))
    joins = f"{SERIES_OF_SAMPLE if needs_series else ''} {conditions.joined_metadata}"
    condition = conjunction(series, sample)
    values = " ".join(column.value for column in columns)
    read = sample_columns(COLUMNS_OF_PAGE, joins, condition, values)
    if conditions.access_path is AccessPath.MESSAGE_ID:
        samples = samples_with_ids(read, conditions.bounds, conditions.message_ids, visible=conditions.visible)
    elif newest_first and conditions.access_path is AccessPath.TIMESTAMP:
        samples = Sql("sample s")
        condition = conjunction(Sql(IN_ORDER_OF_TIME), after_packed(conditions.bounds), condition)
    else:
        samples = samples_between(
            read,
            conditions.bounds,
            series=of_series,
            plain=plain,
            packed=packed,
            recorded_since=recorded_since,
            visible=conditions.visible,
        )
    page = filled(
        PAGE,
        samples=samples,
        keys="".join(f", {column.value} AS key_{n}" for n, column in enumerate(columns)),
        # Joining series that no condition needs would take longer than the rest of a small query.
        joins=joins,
        condition=condition,
        order=sort_keys,
        limit=limit,
    )
    return _sample_rows(page, order=sort_keys.replace("key_", "s.key_"), newest_first=newest_first)


def selected_rows(page: Sql) -> Sql:
    """Return the query that selects a :class:`SampleRow` of each row of ``page``, newest first."""
    return filled(SAMPLES, page=page, order="")


def _sample_rows(page: Sql, *, order: str = "", newest_first: bool = True) -> Sql:
    """Return the statement that selects a :class:`SampleRow` of each row of ``page``."""
    return filled(f"{NEWEST_FIRST if newest_first else ''}{SAMPLES}", page=page, order=order)


def _sort_column(order: Order) -> Column:
    if order.field.startswith(METADATA_PREFIX):
        raise RequestError(f"samples cannot be ordered by {order.field!r}: use {', '.join(COLUMNS)}")
    return column_of(order.field)


async def stored_samples(
    rows: Sequence[tuple[Any, ...]], dimensions: DimensionCaches, slices: OwnedSlices
) -> list[StoredSample]:
    """Return the samples of ``rows``, which are each a :class:`SampleRow`, without those that refer to deleted rows.

    This runs for tens of thousands of rows a second: therefore rows are unpacked instead of made to named tuples, and only
    messages that are stored as a whole are decoded as a :class:`Record`.
    """
    all_series: Mapping[int, tuple[Any, ...]] = await dimensions.series.get_many(set(map(_series_id, rows)), slices)
    all_metadata = await dimensions.metadata.get_many(set(map(_metadata_id, rows)), slices)
    wire_formats = await dimensions.wire_formats.get_many(set(map(_wire_format_id, rows)), slices)
    samples: list[StoredSample] = []
    async for batch in slices.batches(rows, CONVERTED_ROWS):
        samples += samples_of_rows(batch, all_series, all_metadata, wire_formats)
    return samples


def samples_of_rows(
    rows: Sequence[tuple[Any, ...]],
    all_series: Mapping[int, tuple[Any, ...]],
    all_metadata: Mapping[int, Mapping[str, Any]],
    wire_formats: Mapping[int, WireFormat],
) -> list[StoredSample]:
    """Return the samples of ``rows``, without those that refer to what the mappings do not have."""
    samples = []
    for row in rows:
        (
            series_id,
            metadata_id,
            wire_format_id,
            message_id,
            timestamp,
            volume,
            signature,
            verbatim_json,
            recorded_at,
        ) = row
        try:
            series, metadata, wire_format = (
                all_series[series_id],
                all_metadata[metadata_id],
                wire_formats[wire_format_id],
            )
        except KeyError:
            continue
        if verbatim_json.startswith("{"):
            record = Record(Series(*series), "", wire_format, message_id, timestamp, volume, signature, verbatim_json)
            message_id, volume = message_id_of(record), volume_of(record)
        elif wire_format.volume == "int":
            volume = int(volume)
        name, type_, unit, resource_id, user_id, project_id, source = series[:7]
        samples.append(
            StoredSample(
                message_id=message_id,
                name=name,
                type=type_,
                unit=unit,
                volume=volume,
                resource_id=resource_id,
                user_id=user_id,
                project_id=project_id,
                source=source,
                timestamp=timestamp,
                recorded_at=recorded_at,
                metadata=metadata,
                signature=signature,
                key_id=wire_format.key_id,
                scheme=wire_format.scheme,
            )
        )
    return samples
