"""Export: all samples of a question as CSV or as lines of JSON, page by page, so that memory does not grow with them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from meter.api.flattening import Flattening
from meter.api.rendering import SampleShape
from meter.api.visibility import VisibleStore
from meter.query import Marker
from meter.query import SampleFilter
from meter.query import StoredSample

CSV = "text/csv"
JSON_LINES = "application/x-ndjson"
MEDIA_TYPES = (CSV, JSON_LINES)

PAGE_SAMPLES = 1000
"""Samples asked for at a time. While a client takes its page, the export holds no connection to the database."""

_QUOTED = re.compile(r'["\r\n]')


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
    return msgspec.json.Encoder().encode_lines(records)


def _csv(records: Sequence[msgspec.Struct]) -> bytes:
    told: dict[int, str] = {}
    lines = []
    for record in records:
        before, metadata, after = _split(msgspec.structs.astuple(record))
        # Records share their metadata, and all are kept meanwhile: no two have the same id.
        cell = told.get(id(metadata))
        if cell is None:
            cell = told[id(metadata)] = _csv_cells([bytes(metadata).decode()])
        lines.append(f"{_csv_cells(before)},{cell},{_csv_cells(after)}\r\n")
    return "".join(lines).encode()


def _split(values: Sequence[Any]) -> tuple[Sequence[Any], msgspec.Raw, Sequence[Any]]:
    """Return what comes before the metadata, these, and what comes after them."""
    index = next(index for index, value in enumerate(values) if type(value) is msgspec.Raw)
    return values[:index], values[index], values[index + 1 :]


def _csv_cells(values: Sequence[Any]) -> str:
    """Return ``values`` as the ``csv`` module writes them, which is asked only where something is to be quoted."""
    texts = ["" if value is None else value if type(value) is str else _text(value) for value in values]
    line = ",".join(texts)
    if line.count(",") < len(texts) and not _QUOTED.search(line):
        return line
    cells = io.StringIO(newline="")
    csv.writer(cells).writerow(texts)
    return cells.getvalue().removesuffix("\r\n")


def _text(value: datetime | float) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)


def _csv_line(names: Sequence[str]) -> bytes:
    return (",".join(names) + "\r\n").encode()
