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
from meter.store.conditions import beyond
from meter.store.conditions import of_sample
from meter.store.conditions import of_series
from meter.store.expressions import COLUMNS
from meter.store.expressions import METADATA
from meter.store.expressions import Column
from meter.store.expressions import column_of
from meter.store.lookups import Lookups
from meter.store.record import Record
from meter.store.record import Series
from meter.store.record import message_id_of
from meter.store.record import volume_of
from meter.store.sql import Sql
from meter.store.sql import both

# The inner question picks, so that only what is picked is shaped.
ROWS = """
SELECT s.series_id, s.metadata_id, s.form_id, s.message_id::text, s.timestamp, s.volume, encode(s.signature, 'hex'),
    s.rest, s.recorded_at
FROM ({picked}) s
ORDER BY {outer} s.timestamp DESC, s.message_id DESC
"""

NEWEST = """
SELECT s.* {keys} FROM sample s {series}
WHERE {of_series} AND {of_sample}
ORDER BY {order} s.timestamp DESC, s.message_id DESC LIMIT %s
"""

OF_SERIES = "JOIN series x ON x.id = s.series_id"

# Series that match, or one more than are few. Looking at samples from the newest on until enough match goes past more and
# more of others, the fewer series match; looking into each series that matches takes as many times what is wanted. The
# latter is less work while the square of their number is below that of all series; and of series that have ended, or have
# few samples, or are none, it does not go on to the oldest sample there is.
FEW = """
SELECT few.most, ARRAY(SELECT x.id FROM series x WHERE {of_series} LIMIT few.most + 1)
FROM (SELECT sqrt(greatest(reltuples, 100))::bigint AS most FROM pg_class WHERE oid = 'series'::regclass) few
"""

NEWEST_OF_FEW = """
SELECT s.* FROM series x CROSS JOIN LATERAL (
    SELECT s.* FROM sample s
    WHERE s.series_id = x.id AND {of_sample}
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT %s
) s
WHERE x.id = ANY(%s)
ORDER BY s.timestamp DESC, s.message_id DESC LIMIT %s
"""


class Row(NamedTuple):
    """A row of ``sample`` as :func:`samples_asked` asks for it: numbers where others share what it refers to."""

    series_id: int
    metadata_id: int
    form_id: int
    message_id: str
    timestamp: datetime
    volume: float
    signature: str
    rest: str
    recorded_at: datetime


def few_series_asked(filter: SampleFilter) -> Sql | None:
    """Return the statement whose one row has a number and as many ids of matching series, or more; ``None`` if all may match."""
    series = of_series(filter)
    if series == both(()) or "message_id" in filter.equals:
        return None
    return Sql(FEW.format(of_series=series), series.parameters)


def samples_of_series_asked(filter: SampleFilter, limit: int, after: Marker | None, series: Sequence[int]) -> Sql:
    """Return the statement whose rows are those of ``IStore.samples``, where all that match are of a few ``series``."""
    sample = both([of_sample(filter), beyond(after)])
    picked = NEWEST_OF_FEW.format(of_sample=sample)
    return Sql(ROWS.format(picked=picked, outer=""), (*sample.parameters, limit, list(series), limit))


def samples_asked(filter: SampleFilter, limit: int, order: Sequence[Order], after: Marker | None) -> Sql:
    """Return the statement whose rows are those of ``IStore.samples``."""
    series, sample = of_series(filter), both([of_sample(filter), beyond(after)])
    criteria = [f"key_{n} {'DESC' if each.descending else 'ASC'}, " for n, each in enumerate(order)]
    picked = NEWEST.format(
        keys="".join(f", {_column(each).value} AS key_{n}" for n, each in enumerate(order)),
        # Planning and joining what nobody asks about would take longer than all the rest of a small question.
        series=OF_SERIES if order or filter.expression or filter.equals.keys() - {"message_id"} else "",
        of_series=series,
        of_sample=sample,
        order="".join(criteria),
    )
    outer = "".join(f"s.{criterion}" for criterion in criteria)
    return Sql(ROWS.format(picked=picked, outer=outer), (*series.parameters, *sample.parameters, limit))


def _column(order: Order) -> Column:
    if order.field.startswith(METADATA):
        raise RequestError(f"samples cannot be ordered by {order.field!r}: use {', '.join(COLUMNS)}")
    return column_of(order.field)


async def complete(rows: Sequence[tuple[Any, ...]], lookups: Lookups) -> list[StoredSample]:
    """Return ``rows``, each like a :class:`Row`, as samples, without those that refer to what is there no longer.

    Tens of thousands pass here in a second, so that a row is taken apart as a :class:`Record` only where it has to be.
    """
    all_series: Mapping[int, tuple[Any, ...]] = await lookups.series.things({row[0] for row in rows})
    all_metadata = await lookups.metadata.things({row[1] for row in rows})
    forms = await lookups.forms.things({row[2] for row in rows})
    samples = []
    for row in rows:
        series_id, metadata_id, form_id, message_id, timestamp, volume, signature, rest, recorded_at = row
        try:
            series, metadata, form = all_series[series_id], all_metadata[metadata_id], forms[form_id]
        except KeyError:
            continue
        if rest.startswith("{"):
            record = Record(Series(*series), "", form, message_id, timestamp, volume, signature, rest)
            message_id, number = message_id_of(record), volume_of(record)
        else:
            number = int(volume) if form.volume == "int" else volume
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
                key_id=form.key_id,
            )
        )
    return samples
