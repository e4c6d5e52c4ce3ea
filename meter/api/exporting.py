"""Export: all samples of a question as CSV or as lines of JSON, page by page, so that memory does not grow with them."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import msgspec

from meter.api.rendering import SampleShape
from meter.api.visibility import VisibleStore
from meter.query import Marker
from meter.query import SampleFilter
from meter.query import StoredSample

CSV = "text/csv"
JSON_LINES = "application/x-ndjson"
MEDIA_TYPES = (CSV, JSON_LINES)

PAGE_SAMPLES = 1000
"""Samples asked for at a time. Between two pages the export holds no connection to the database."""


async def export(
    store: VisibleStore,
    filter: SampleFilter,
    media_type: str,
    shape: SampleShape,
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
        yield write(shape.rendered(rows))
        sent += len(rows)
        wanted = PAGE_SAMPLES if limit is None else min(PAGE_SAMPLES, limit - sent)
        if len(rows) < PAGE_SAMPLES or wanted <= 0:
            return
        rows = await store.samples(filter, wanted, (), Marker(rows[-1].timestamp, rows[-1].message_id))


def _json_lines(records: Sequence[msgspec.Struct]) -> bytes:
    return msgspec.json.Encoder().encode_lines(records)


def _csv(records: Sequence[msgspec.Struct]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_cell(value) for value in msgspec.structs.astuple(record)] for record in records)
    return text.getvalue().encode()


def _csv_line(names: Sequence[str]) -> bytes:
    return (",".join(names) + "\r\n").encode()


def _cell(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, Mapping) else value
