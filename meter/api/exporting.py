"""Export: all samples of a question as CSV or as lines of JSON, page by page, so that memory does not grow with them."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from collections.abc import Sequence

import msgspec
from twisted.internet.defer import Deferred

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
        sent += len(rows)
        wanted = PAGE_SAMPLES if limit is None else min(PAGE_SAMPLES, limit - sent)
        if len(rows) < PAGE_SAMPLES or wanted <= 0:
            yield write(shape.rendered(rows))
            return
        # The database finds the next page while this one is written, and is at most that one page ahead of the client.
        after = Marker(rows[-1].timestamp, rows[-1].message_id)
        coming = Deferred.fromCoroutine(store.samples(filter, wanted, (), after))
        try:
            yield write(shape.rendered(rows))
            rows = await coming
        finally:
            if not coming.called:
                coming.cancel()  # the client is gone
            coming.addErrback(lambda _: None)


def _json_lines(records: Sequence[msgspec.Struct]) -> bytes:
    return msgspec.json.Encoder().encode_lines(records)


def _csv(records: Sequence[msgspec.Struct]) -> bytes:
    told: dict[int, str] = {}

    def text_of(metadata: dict[str, str]) -> str:
        """Return the JSON of ``metadata``, which is shared by many records, all of which are kept meanwhile."""
        text = told.get(id(metadata))
        if text is None:
            text = told[id(metadata)] = msgspec.json.encode(metadata).decode()
        return text

    text = io.StringIO(newline="")
    csv.writer(text).writerows(
        [text_of(value) if type(value) is dict else value for value in msgspec.structs.astuple(record)]
        for record in records
    )
    return text.getvalue().encode()


def _csv_line(names: Sequence[str]) -> bytes:
    return (",".join(names) + "\r\n").encode()
