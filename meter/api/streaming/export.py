"""Export: all samples of a question as CSV or as lines of JSON, page by page, so that memory does not grow with them."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from meter.api.auth.visibility import VisibleStore
from meter.api.rendering.flattening import Flattening
from meter.api.rendering.v2 import SampleShape
from meter.query import Marker
from meter.query import SampleFilter
from meter.query import StoredSample

CSV = "text/csv"
JSON_LINES = "application/x-ndjson"
MEDIA_TYPES = (CSV, JSON_LINES)

PAGE_SAMPLES = 1000
"""Samples asked for at a time. While a client takes its page, the export holds no connection to the database."""

_ENCODER = msgspec.json.Encoder()


async def export(
    store: VisibleStore,
    filter: SampleFilter,
    media_type: str,
    shape: SampleShape,
    flat: Flattening,
    *,
    limit: int | None,
    rows: Sequence[StoredSample],
) -> AsyncIterator[bytes]:
    """Yield the samples of ``filter``, at most ``limit``, of which ``rows`` is the first page."""
    write = _csv if media_type == CSV else _json_lines
    if media_type == CSV:
        yield _csv_line(shape.record.__struct_fields__)
    sent = 0
    while rows:
        sent += len(rows)
        wanted = PAGE_SAMPLES if limit is None else min(PAGE_SAMPLES, limit - sent)
        if len(rows) < PAGE_SAMPLES or wanted <= 0:
            yield write(shape.rendered(rows, flat))
            return
        # The database finds the next page while this one is written, and is at most that one page ahead of the client.
        after = Marker(rows[-1].timestamp, rows[-1].message_id)
        coming = Deferred.fromCoroutine(store.samples(filter, wanted, (), after))
        try:
            yield write(shape.rendered(rows, flat))
            rows = await coming
        finally:
            if not coming.called:
                coming.cancel()  # the client is gone
            coming.addErrback(lambda _: None)


def _json_lines(records: Sequence[msgspec.Struct]) -> bytes:
    return _ENCODER.encode_lines(records)


def _csv(records: Sequence[msgspec.Struct]) -> bytes:
    place = [type(value) for value in msgspec.structs.astuple(records[0])].index(msgspec.Raw)
    told: dict[int, bytes] = {}
    lines = []
    for values in map(msgspec.structs.astuple, records):
        metadata = values[place]
        # Records share their metadata, and all are kept meanwhile: no two have the same id.
        cell = told.get(id(metadata))
        if cell is None:
            cell = told[id(metadata)] = _csv_json(bytes(metadata))
        lines.append(b"%b,%b,%b\r\n" % (_csv_cells(values[:place]), cell, _csv_cells(values[place + 1 :])))
    return b"".join(lines)


def _csv_json(text: bytes) -> bytes:
    """Return ``text``, which is a mapping, as the ``csv`` module writes it: only ``{}`` has nothing to be quoted."""
    return b'"%b"' % text.replace(b'"', b'""') if len(text) > len(b"{}") else text


def _csv_cells(values: Sequence[Any]) -> bytes:
    """Return ``values`` as the ``csv`` module writes them.

    Where nothing is to be quoted that is JSON without its quotation marks, which is made in a fourth of the time.
    """
    line = _ENCODER.encode(values)
    if b"\\" not in line and line.count(b",") < len(values):
        return line[1:-1].replace(b",null", b",").replace(b'"', b"")
    cells = io.StringIO(newline="")
    csv.writer(cells).writerow(msgspec.to_builtins(values))
    return cells.getvalue().removesuffix("\r\n").encode()


def _csv_line(names: Sequence[str]) -> bytes:
    return (",".join(names) + "\r\n").encode()
