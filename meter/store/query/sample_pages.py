"""Pages of samples for responses: PostgreSQL writes the values of each sample as one text, which is neither parsed nor made again here."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from operator import itemgetter
from typing import Any

from meter.daemon.shared_slices import OwnedSlices
from meter.query import StoredSample
from meter.sample_page import PagedSeries
from meter.sample_page import SamplePage
from meter.store.postgres.sql import Sql
from meter.store.query.dimension_cache import DimensionCaches
from meter.store.query.samples import ROWS
from meter.store.query.samples import samples_of_rows
from meter.store.write.record import WireFormat

# The values are of types whose texts have no comma. The last column is for the few messages that do not fit into the others.
VALUES = """s.series_id, s.metadata_id, s.wire_format_id, concat_ws(',', s.message_id, s.timestamp AT TIME ZONE 'UTC',
    s.recorded_at AT TIME ZONE 'UTC', s.volume, encode(s.signature, 'hex')),
    CASE WHEN starts_with(s.verbatim_json, '{') THEN s.verbatim_json END"""

_CONVERTED_ROWS = 500
"""Rows that are looked at before the time is checked: a tenth of a millisecond."""

_series, _metadata, _wire_format, _whole = map(itemgetter, (0, 1, 2, 4))


def as_values(statement: Sql) -> Sql:
    """Return ``statement``, which selects samples, so that its rows begin with a :class:`~meter.sample_page.PagedSample`."""
    before, found, after = statement.text.partition(ROWS)
    if not found:
        raise ValueError("the statement does not select the rows of samples")
    return Sql(before + VALUES + after, statement.parameters)


async def sample_page(rows: Sequence[tuple[Any, ...]], dimensions: DimensionCaches, slices: OwnedSlices) -> SamplePage:
    """Return the page of ``rows`` of a statement of :func:`as_values`, without those that refer to deleted rows."""
    ids: tuple[set[int], set[int], set[int]] = (set(), set(), set())
    whole: list[int] = []
    start = 0
    async for batch in slices.batches(rows, _CONVERTED_ROWS):
        for known, column in zip(ids, (_series, _metadata, _wire_format), strict=True):
            known.update(map(column, batch))
        if any(map(_whole, batch)):
            whole += [index for index, row in enumerate(batch, start) if row[-1] is not None]
        start += len(batch)
    series: Mapping[int, tuple[Any, ...]] = await dimensions.series.get_many(ids[0], slices)
    metadata = await dimensions.metadata.get_many(ids[1], slices)
    wire_formats = await dimensions.wire_formats.get_many(ids[2], slices)
    page: list[Any] = list(rows)
    for index in whole:
        if slices.over:
            await slices.pause()
        page[index] = next(iter(_samples([page[index]], series, metadata, wire_formats)), None)
    found = (series, metadata, wire_formats)
    if whole or list(map(len, found)) != list(map(len, ids)):
        page = [row for row in page if row is not None and _is_complete(row, found)]
    return SamplePage(
        rows=page,
        series={id: PagedSeries(*each[:7]) for id, each in series.items()},
        metadata=metadata,
        schemes={id: each.scheme for id, each in wire_formats.items()},
        is_mixed=bool(whole),
    )


def _is_complete(row: Any, found: Sequence[Mapping[int, Any]]) -> bool:
    return isinstance(row, StoredSample) or all(id in there for id, there in zip(row[:3], found, strict=True))


def _samples(
    rows: Sequence[tuple[Any, ...]],
    series: Mapping[int, tuple[Any, ...]],
    metadata: Mapping[int, Mapping[str, Any]],
    wire_formats: Mapping[int, WireFormat],
) -> list[StoredSample]:
    """Return the samples of ``rows`` that have a whole message."""
    made = []
    for *ids, values, whole in rows:
        message_id, timestamp, recorded_at, volume, signature = values.split(",")
        made.append((*ids, message_id, _time(timestamp), float(volume), signature, whole, _time(recorded_at)))
    return samples_of_rows(made, series, metadata, wire_formats)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
