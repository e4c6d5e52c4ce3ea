"""Samples in SQL: which rows a question is about, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from typing import NamedTuple

from meter.interfaces import RequestError
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StoredSample
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import IN_ORDER_OF_RECORDING
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.query.access_paths import NEWEST_FIRST
from meter.store.query.access_paths import SERIES_OF_SAMPLE
from meter.store.query.conditions import asks_for_ids
from meter.store.query.conditions import asks_since_recording
from meter.store.query.conditions import beyond
from meter.store.query.conditions import metadata_of_sample
from meter.store.query.conditions import needs_series
from meter.store.query.conditions import of_range
from meter.store.query.conditions import of_sample
from meter.store.query.conditions import of_series
from meter.store.query.dimension_cache import DimensionCaches
from meter.store.query.expressions import COLUMNS
from meter.store.query.expressions import METADATA
from meter.store.query.expressions import Column
from meter.store.query.expressions import column_of
from meter.store.write.record import Record
from meter.store.write.record import Series
from meter.store.write.record import message_id_of
from meter.store.write.record import volume_of

# The inner question picks, so that only what is picked is shaped.
ROWS = """
SELECT s.series_id, s.metadata_id, s.wire_format_id, s.message_id::text, s.timestamp, s.volume, encode(s.signature, 'hex'),
    s.verbatim_json, s.recorded_at
FROM ({picked}) s
ORDER BY {outer} s.timestamp DESC, s.message_id DESC
"""

PICKED = """
SELECT s.* {keys} FROM sample s {added}
WHERE {condition}
ORDER BY {order} s.timestamp DESC, s.message_id DESC LIMIT {limit}
"""

# Series that match, or one more than are few: of each, as many samples as are wanted are looked at.
FEW = """
SELECT few.most, ARRAY(SELECT x.id FROM series x WHERE {of_series} LIMIT few.most + 1)
FROM (SELECT sqrt(greatest(reltuples, 100))::bigint AS most FROM pg_class WHERE oid = 'series'::regclass) few
"""

NEWEST_OF_FEW = """
SELECT s.* FROM series x CROSS JOIN LATERAL (
    SELECT s.* FROM sample s {added}
    WHERE s.series_id = x.id AND {of_sample}
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {limit}
) s
WHERE x.id = ANY({series})
ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {limit}
"""

GLANCE = 3
"""So many pages of the newest samples of all series are looked at for a page of the series that match."""

# Whoever asks for many series is mostly answered by a glance at the newest samples of all.
AT_A_GLANCE = """
SELECT s.* FROM (
    SELECT s.* FROM sample s WHERE {in_order} AND {of_time}
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {most}
) s {added}
WHERE {condition}
ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {limit}
"""

# Of many series, those whose newest samples are the newest hold all that is wanted: what is older than the last of these
# is on a later page. Series that ended long ago are passed with one look each.
NEWEST_OF_MANY = """
WITH head AS MATERIALIZED (
    SELECT x.id, s.timestamp, s.message_id FROM series x CROSS JOIN LATERAL (
        SELECT s.timestamp, s.message_id FROM sample s {added}
        WHERE s.series_id = x.id AND {of_sample}
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
    ) s
    WHERE {of_series}
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {limit}
), oldest AS MATERIALIZED (
    SELECT CASE WHEN count(*) = {limit} THEN min(timestamp) ELSE '-infinity' END AS timestamp FROM head
)
SELECT s.* FROM oldest CROSS JOIN head JOIN series x ON x.id = head.id CROSS JOIN LATERAL (
    SELECT s.* FROM sample s {added}
    WHERE s.series_id = x.id AND s.timestamp >= oldest.timestamp AND {of_sample}
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {limit}
) s
ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {limit}
"""


class Row(NamedTuple):
    """A row of ``sample`` as :func:`samples_query` asks for it: numbers where others share what it refers to."""

    series_id: int
    metadata_id: int
    wire_format_id: int
    message_id: str
    timestamp: datetime
    volume: float
    signature: str
    verbatim_json: str
    recorded_at: datetime


def selective_series_query(filter: SampleFilter) -> Sql | None:
    """Return the statement whose one row has a number and as many ids of matching series, or more; ``None`` if all may match."""
    series = of_series(filter)
    if series == both(()) or asks_for_ids(filter) or asks_since_recording(filter):
        return None
    return filled(FEW, of_series=series)


def samples_of_series_query(filter: SampleFilter, limit: int, after: Marker | None, series: Sequence[int]) -> Sql:
    """Return the statement whose rows are those of ``IStore.samples``, where all that match are of a few ``series``."""
    return _shaped(
        filled(
            NEWEST_OF_FEW,
            added=metadata_of_sample(filter),
            of_sample=both([of_sample(filter), beyond(after)]),
            series=Sql("%s", (list(series),)),
            limit=limit,
        )
    )


def recent_samples_query(filter: SampleFilter, limit: int, after: Marker | None) -> Sql:
    """Return the statement whose rows are those of ``IStore.samples`` if it has ``limit`` rows, and too few otherwise."""
    return _shaped(
        filled(
            AT_A_GLANCE,
            in_order=IN_ORDER_OF_TIME,
            of_time=both([of_range(filter), beyond(after)]),
            most=GLANCE * limit,
            added=f"{SERIES_OF_SAMPLE} {metadata_of_sample(filter)}",
            condition=both([of_series(filter), of_sample(filter)]),
            limit=limit,
        )
    )


def samples_of_many_series_query(filter: SampleFilter, limit: int, after: Marker | None) -> Sql:
    """Return the statement whose rows are those of ``IStore.samples``, however many series match."""
    return _shaped(
        filled(
            NEWEST_OF_MANY,
            added=metadata_of_sample(filter),
            of_sample=both([of_sample(filter), beyond(after)]),
            of_series=of_series(filter),
            limit=limit,
        )
    )


def samples_query(filter: SampleFilter, limit: int, order: Sequence[Order], after: Marker | None) -> Sql:
    """Return the statement whose rows are those of ``IStore.samples``.

    Samples are found by their ids where these are given, by when they were recorded where that is bounded, by series
    where an order demands that all be seen, and else from the newest on.
    """
    series = of_series(filter)
    conditions = [of_sample(filter), beyond(after)]
    named = needs_series(filter) or any(column.of_series for column in map(_column, order))
    if asks_for_ids(filter):
        found, named = [series], named or series != both(())
    elif asks_since_recording(filter):
        found, named = [Sql(IN_ORDER_OF_RECORDING), series], named or series != both(())
    elif series != both(()):
        found = [Sql(f"s.series_id = ANY(ARRAY(SELECT x.id FROM series x WHERE {series}))", series.parameters)]
    else:
        found = [Sql(IN_ORDER_OF_TIME)]
    criteria = [f"key_{n} {'DESC' if each.descending else 'ASC'}, " for n, each in enumerate(order)]
    picked = filled(
        PICKED,
        keys="".join(f", {_column(each).value} AS key_{n}" for n, each in enumerate(order)),
        # Planning and joining what nobody asks about would take longer than all the rest of a small question.
        added=f"{SERIES_OF_SAMPLE if named else ''} {metadata_of_sample(filter)}",
        condition=both([*found, *conditions]),
        order="".join(criteria),
        limit=limit,
    )
    newest_first = not order and not asks_for_ids(filter)
    return _shaped(picked, order="".join(f"s.{criterion}" for criterion in criteria), newest_first=newest_first)


def _shaped(picked: Sql, *, order: str = "", newest_first: bool = True) -> Sql:
    return filled(f"{NEWEST_FIRST if newest_first else ''}{ROWS}", picked=picked, outer=order)


def _column(order: Order) -> Column:
    if order.field.startswith(METADATA):
        raise RequestError(f"samples cannot be ordered by {order.field!r}: use {', '.join(COLUMNS)}")
    return column_of(order.field)


async def complete(rows: Sequence[tuple[Any, ...]], dimension_caches: DimensionCaches) -> list[StoredSample]:
    """Return ``rows``, each like a :class:`Row`, as samples, without those that refer to what is there no longer.

    Tens of thousands pass here in a second, so that a row is taken apart as a :class:`Record` only where it has to be.
    """
    all_series: Mapping[int, tuple[Any, ...]] = await dimension_caches.series.get_many({row[0] for row in rows})
    all_metadata = await dimension_caches.metadata.get_many({row[1] for row in rows})
    forms = await dimension_caches.forms.get_many({row[2] for row in rows})
    samples = []
    for row in rows:
        series_id, metadata_id, wire_format_id, message_id, timestamp, volume, signature, verbatim_json, recorded_at = (
            row
        )
        try:
            series, metadata, wire_format = all_series[series_id], all_metadata[metadata_id], forms[wire_format_id]
        except KeyError:
            continue
        if verbatim_json.startswith("{"):
            record = Record(Series(*series), "", wire_format, message_id, timestamp, volume, signature, verbatim_json)
            message_id, number = message_id_of(record), volume_of(record)
        else:
            number = int(volume) if wire_format.volume == "int" else volume
        name, type_, unit, resource_id, user_id, project_id, source = series[:7]
        samples.append(
            StoredSample(
                message_id=message_id,
                name=name,
                type=type_,
                unit=unit,
                volume=number,
                resource_id=resource_id,
                user_id=user_id,
                project_id=project_id,
                source=source,
                timestamp=timestamp,
                recorded_at=recorded_at,
                metadata=metadata,
                signature=signature,
                key_id=wire_format.key_id,
            )
        )
    return samples
