"""Export: all samples of a query as CSV or JSON lines, page by page, in constant memory."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from meter.api.auth.visibility import VisibleStore
from meter.api.rendering.flattening import MetadataFlattener
from meter.api.rendering.v2 import SampleSchema
from meter.daemon.shared_slices import OwnedSlices
from meter.query import Marker
from meter.query import SampleFilter
from meter.query import StoredSample

CSV = "text/csv"
JSON_LINES = "application/x-ndjson"
MEDIA_TYPES = (CSV, JSON_LINES)

PAGE_SAMPLES = 1000
"""Samples per query. While a client reads a page, the export holds no connection to the database."""

BATCH_SAMPLES = 100
"""Samples that are encoded, and written, before the time is checked."""

_ENCODER = msgspec.json.Encoder()


async def export(
    store: VisibleStore,
    filter: SampleFilter,
    media_type: str,
    schema: SampleSchema,
    flatten: MetadataFlattener,
    *,
    limit: int | None,
    rows: Sequence[StoredSample],
    slices: OwnedSlices,
) -> AsyncIterator[bytes]:
    """Yield the encoded samples of ``filter``, at most ``limit``, encoded in ``slices``; ``rows`` is their first page."""
    encode = _csv if media_type == CSV else _json_lines

    async def page(rows: Sequence[StoredSample]) -> AsyncIterator[bytes]:
        async for batch in slices.batches(rows, BATCH_SAMPLES):
            yield encode(schema.render_all(batch, flatten))

    if media_type == CSV:
        yield _csv_header(schema.record.__struct_fields__)
    sent = 0
    while rows:
        sent += len(rows)
        size = PAGE_SAMPLES if limit is None else min(PAGE_SAMPLES, limit - sent)
        if len(rows) < PAGE_SAMPLES or size <= 0:
            async for chunk in page(rows):
                yield chunk
            return
        # The next page is queried while this one is written: the database is at most one page ahead of the client.
        after = Marker(rows[-1].timestamp, rows[-1].message_id)
        next_page = Deferred.fromCoroutine(store.samples(filter, size, (), after))
        try:
            async for chunk in page(rows):
                yield chunk
            rows = await next_page
        finally:
            if not next_page.called:
                next_page.cancel()  # the client has disconnected
            next_page.addErrback(lambda _: None)


def _json_lines(records: Sequence[msgspec.Struct]) -> bytes:
    return _ENCODER.encode_lines(records)


def _csv(records: Sequence[msgspec.Struct]) -> bytes:
    """Return ``records`` as lines of CSV, byte for byte as the ``csv`` module writes them.

    Lines are made from JSON, since the ``csv`` module quotes and copies cell by cell: with it, a whole export from
    PostgreSQL to the client takes 1.6 times as long (200 000 samples, median of 4 runs, 5.1 s instead of 3.1 s). The
    module is used only for lines that need quotation marks outside the metadata.
    """
    metadata_index = [type(value) for value in msgspec.structs.astuple(records[0])].index(msgspec.Raw)
    cells: dict[int, bytes] = {}
    lines = []
    for values in map(msgspec.structs.astuple, records):
        metadata = values[metadata_index]
        # Records share their metadata, and all records are alive during this loop: no two have the same id().
        cell = cells.get(id(metadata))
        if cell is None:
            cell = cells[id(metadata)] = _csv_json(bytes(metadata))
        before, after = _csv_cells(values[:metadata_index]), _csv_cells(values[metadata_index + 1 :])
        lines.append(b"%b,%b,%b\r\n" % (before, cell, after))
    return b"".join(lines)


def _csv_json(text: bytes) -> bytes:
    """Return ``text``, a JSON object, as a CSV cell. Only ``{}`` needs no quotation marks."""
    return b'"%b"' % text.replace(b'"', b'""') if len(text) > len(b"{}") else text


def _csv_cells(values: Sequence[Any]) -> bytes:
    """Return ``values`` as CSV cells with commas between them.

    If no cell needs quotation marks, that is their JSON without its brackets and quotation marks.
    """
    line = _ENCODER.encode(values)
    if b"\\" not in line and line.count(b",") < len(values):
        # A leading comma is added and removed again, so that a null in the first cell is replaced too.
        return (b"," + line[1:-1]).replace(b",null", b",").replace(b'"', b"")[1:]
    cells = io.StringIO(newline="")
    csv.writer(cells).writerow(msgspec.to_builtins(values))
    return cells.getvalue().removesuffix("\r\n").encode()


def _csv_header(names: Sequence[str]) -> bytes:
    return (",".join(names) + "\r\n").encode()
