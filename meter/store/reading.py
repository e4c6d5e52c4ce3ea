"""Reading: each question of ``IStore`` is one statement."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from meter.interfaces import RequestError
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.store.conditions import beyond
from meter.store.conditions import of_sample
from meter.store.conditions import of_series
from meter.store.connection import Rejected
from meter.store.connection import TimedOut
from meter.store.expressions import COLUMNS
from meter.store.expressions import METADATA
from meter.store.expressions import Column
from meter.store.expressions import column_of
from meter.store.pool import Pool
from meter.store.record import Record
from meter.store.record import Series
from meter.store.record import fields_of
from meter.store.record import form_of
from meter.store.record import message_id_of
from meter.store.record import volume_of
from meter.store.recording import all_recorded
from meter.store.sql import Sql
from meter.store.sql import both
from meter.store.statistics import statistics_rows
from meter.store.statistics import statistics_statement

RECORD = """
SELECT m.name, m.type, m.unit, r.name, u.name, p.name, o.name, d.text, f.text, s.message_id::text, s.timestamp, s.volume,
    encode(s.signature, 'hex'), s.rest, s.recorded_at
FROM ({picked}) s
JOIN meter m ON m.id = s.meter_id
JOIN resource r ON r.id = s.resource_id
LEFT JOIN "user" u ON u.id = s.user_id
LEFT JOIN project p ON p.id = s.project_id
LEFT JOIN source o ON o.id = s.source_id
JOIN metadata d ON d.id = s.metadata_id
JOIN form f ON f.id = s.form_id
ORDER BY {order} s.timestamp DESC, s.message_id DESC
"""

NEWEST = """
SELECT s.*, x.meter_id, x.resource_id, x.user_id, x.project_id, x.source_id {keys}
FROM sample s JOIN series x ON x.id = s.series_id
WHERE {of_series} AND {of_sample}
ORDER BY {order} s.timestamp DESC, s.message_id DESC LIMIT %s
"""

# A resource has few series: the newest of each, read from the end of the index, and then the newest of these.
NEWEST_OF_RESOURCE = """
SELECT s.*, x.meter_id, x.resource_id, x.user_id, x.project_id, x.source_id
FROM series x CROSS JOIN LATERAL (
    SELECT s.* FROM sample s
    WHERE s.series_id = x.id AND {of_sample}
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT %s
) s
WHERE {of_series}
ORDER BY s.timestamp DESC, s.message_id DESC LIMIT %s
"""

METERS = """
SELECT pair.name, newest.type, newest.unit, r.name, u.name, p.name, o.name
FROM (SELECT DISTINCT m.name, x.resource_id FROM series x JOIN meter m ON m.id = x.meter_id WHERE {of_series}) pair
JOIN resource r ON r.id = pair.resource_id
CROSS JOIN LATERAL (
    SELECT m.type, m.unit, x.user_id, x.project_id, x.source_id
    FROM meter m JOIN series x ON x.meter_id = m.id AND x.resource_id = pair.resource_id
    CROSS JOIN LATERAL (
        SELECT s.timestamp, s.message_id FROM sample s
        WHERE s.series_id = x.id AND {of_sample}
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
    ) sample
    WHERE m.name = pair.name AND {of_series}
    ORDER BY sample.timestamp DESC, sample.message_id DESC LIMIT 1
) newest
LEFT JOIN "user" u ON u.id = newest.user_id
LEFT JOIN project p ON p.id = newest.project_id
LEFT JOIN source o ON o.id = newest.source_id
ORDER BY pair.name, r.name LIMIT %s
"""

UNIQUE_METERS = """
SELECT m.name, m.type, m.unit
FROM meter m
WHERE EXISTS (
    SELECT FROM series x
    WHERE x.meter_id = m.id AND {of_series}
    AND EXISTS (SELECT FROM sample s WHERE s.series_id = x.id AND {of_sample})
)
ORDER BY m.name, m.type, m.unit LIMIT %s
"""

RESOURCES = """
SELECT r.name, u.name, p.name, o.name, span.first_sample, span.last_sample, d.text, span.meters
FROM resource r
CROSS JOIN LATERAL (
    SELECT min(oldest.timestamp) AS first_sample, max(newest.timestamp) AS last_sample,
        array_agg(DISTINCT m.name) AS meters,
        (array_agg(x.id ORDER BY newest.timestamp DESC, newest.message_id DESC))[1] AS series_id,
        (array_agg(newest.metadata_id ORDER BY newest.timestamp DESC, newest.message_id DESC))[1] AS metadata_id
    FROM series x
    JOIN meter m ON m.id = x.meter_id
    CROSS JOIN LATERAL (
        SELECT s.timestamp, s.message_id, s.metadata_id FROM sample s
        WHERE s.series_id = x.id AND {of_sample}
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
    ) newest
    CROSS JOIN LATERAL (
        SELECT s.timestamp FROM sample s
        WHERE s.series_id = x.id AND {of_sample}
        ORDER BY s.timestamp LIMIT 1
    ) oldest
    WHERE x.resource_id = r.id AND {of_series}
) span
JOIN metadata d ON d.id = span.metadata_id
JOIN series x ON x.id = span.series_id
LEFT JOIN "user" u ON u.id = x.user_id
LEFT JOIN project p ON p.id = x.project_id
LEFT JOIN source o ON o.id = x.source_id
WHERE r.id IN (SELECT x.resource_id FROM series x WHERE {of_series})
ORDER BY r.name LIMIT %s
"""


def statement(template: str, *parts: Sql | int, **named: Sql) -> tuple[str, list[Any]]:
    """Fill ``template`` with conditions; the parameters come in the order in which ``parts`` lists them."""
    parameters: list[Any] = []
    for part in parts:
        parameters.extend(part.parameters if isinstance(part, Sql) else [part])
    return template.format(**named), parameters


class Reading:
    """Answers questions over ``pool``, whose statements may take ``seconds``."""

    def __init__(self, pool: Pool, clock: IReactorTime, seconds: float) -> None:
        self._pool = pool
        self._clock = clock
        self._seconds = seconds

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """See ``IStore.samples``."""
        if order and after:
            raise RequestError("a page can be continued in the order newest first only")
        return _stored_samples(await self._records(filter, limit, order, after))

    async def message(self, message_id: str) -> Mapping[str, Any] | None:
        """See ``IStore.message``."""
        rows = await self._records(SampleFilter(equals={"message_id": message_id}), 1)
        return fields_of(_record(rows[0])) if rows else None

    async def meters(self, filter: SampleFilter, limit: int, unique: bool) -> Sequence[StoredMeter]:
        """See ``IStore.meters``."""
        series, sample = of_series(filter), of_sample(filter)
        parts = (series, sample, limit) if unique else (series, sample, series, limit)
        template = UNIQUE_METERS if unique else METERS
        rows = await self._rows(*statement(template, *parts, of_series=series, of_sample=sample), filter)
        nobody = (None,) * 4
        return [
            StoredMeter(
                name=row[0],
                type=row[1],
                unit=row[2],
                **dict(zip(("resource_id", "user_id", "project_id", "source"), row[3:] or nobody, strict=True)),
            )
            for row in rows
        ]

    async def resources(self, filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """See ``IStore.resources``."""
        series, sample = of_series(filter), of_sample(filter)
        parts = (sample, sample, series, series, limit)
        rows = await self._rows(*statement(RESOURCES, *parts, of_series=series, of_sample=sample), filter)
        return [
            StoredResource(
                resource_id=name,
                user_id=user_id,
                project_id=project_id,
                source=source,
                first_sample=first,
                last_sample=last,
                metadata=msgspec.json.decode(metadata),
                meters=tuple(meters),
            )
            for name, user_id, project_id, source, first, last, metadata, meters in rows
        ]

    async def statistics(self, query: StatisticsQuery) -> Sequence[Statistics]:
        """See ``IStore.statistics``."""
        asked = statistics_statement(query)
        return statistics_rows(query, await self._rows(asked.text, asked.parameters, query.filter))

    async def _records(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> list[tuple[Any, ...]]:
        series, sample = of_series(filter), both([of_sample(filter), beyond(after)])
        outer = ""
        if "resource_id" in filter.equals and "message_id" not in filter.equals and not order:
            text, parameters = statement(
                NEWEST_OF_RESOURCE, sample, limit, series, limit, of_series=series, of_sample=sample
            )
        else:
            keys = "".join(f", {_order_column(each).value} AS key_{n}" for n, each in enumerate(order))
            directions = ["DESC" if each.descending else "ASC" for each in order]
            inner = "".join(f"key_{n} {direction}, " for n, direction in enumerate(directions))
            outer = "".join(f"s.key_{n} {direction}, " for n, direction in enumerate(directions))
            text, parameters = statement(
                NEWEST, series, sample, limit, of_series=series, of_sample=sample, keys=Sql(keys), order=Sql(inner)
            )
        return await self._rows(RECORD.format(picked=text, order=outer), parameters, filter)

    async def _rows(self, text: str, parameters: Sequence[Any], filter: SampleFilter) -> list[tuple[Any, ...]]:
        try:
            if filter.as_of is not None:
                await all_recorded(self._pool, self._clock, filter.as_of)
            return await self._pool.rows(text, parameters)
        except TimedOut as error:
            raise RequestError(
                f"the question took longer than {self._seconds:g} s: narrow its time range, or ask for fewer resources"
            ) from error
        except Rejected as error:
            raise RequestError(f"the question cannot be answered: {error}") from error


def _order_column(order: Order) -> Column:
    if order.field.startswith(METADATA):
        raise RequestError(f"samples cannot be ordered by {order.field!r}: use {', '.join(COLUMNS)}")
    return column_of(order.field)


def _record(row: Sequence[Any]) -> Record:
    name, type_, unit, resource_id, user_id, project_id, source, metadata, form, *rest = row
    message_id, timestamp, volume, signature, left, _ = rest
    return Record(
        Series(name, type_, unit, resource_id, user_id, project_id, source),
        metadata,
        form_of(form),
        message_id,
        timestamp,
        volume,
        signature,
        left,
    )


def _stored_samples(rows: Sequence[Sequence[Any]]) -> list[StoredSample]:
    """Return ``rows`` as samples; those that have the same metadata share one object, which is decoded once.

    Tens of thousands pass here in a second, so that a row is taken apart as a :class:`Record` only where it has to be.
    """
    decoded: dict[str, Mapping[str, Any]] = {}
    samples = []
    for row in rows:
        name, type_, unit, resource_id, user_id, project_id, source, text, form_text = row[:9]
        message_id, timestamp, volume, signature, left, recorded_at = row[9:]
        metadata = decoded.get(text)
        if metadata is None:
            metadata = decoded[text] = msgspec.json.decode(text)
        form = form_of(form_text)
        if left.startswith("{"):
            record = _record(row)
            message_id, volume = message_id_of(record), volume_of(record)
        elif form.volume == "int":
            volume = int(volume)
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
                key_id=form.key_id,
            )
        )
    return samples
