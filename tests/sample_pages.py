"""What pages of samples, encoded in bulk, are compared with: each record, encoded by itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.api.rendering.flattening import MetadataFlattener
from meter.api.rendering.sample_pages import SampleEncoder
from meter.api.rendering.sample_pages import SampleFormat
from meter.api.rendering.v2 import SAMPLE
from meter.api.rendering.v2 import SampleSchema
from meter.daemon.shared_slices import SharedSlices
from meter.query import StoredSample
from meter.sample_page import SamplePage
from meter.spreadsheet import neutralize


def one_by_one(samples: Sequence[StoredSample], schema: SampleSchema, format: SampleFormat) -> bytes:
    """Encode each record by itself, with msgspec and the csv module."""
    flatten = MetadataFlattener()
    records = [schema.render(each, flatten) for each in samples]
    if format is not SampleFormat.CSV:
        return b"".join(msgspec.json.encode(each) + format.value for each in records)
    text = io.StringIO(newline="")
    for each in records:
        cells: list[Any] = []
        for value in msgspec.structs.astuple(each):
            if isinstance(value, msgspec.Raw):
                cells.append(bytes(value).decode().replace(";", "\\u003b"))
            elif value is None or isinstance(value, str):
                cells.append(None if value is None else neutralize(value))
            else:
                cells.append(msgspec.json.encode(value).decode().strip('"'))
        csv.writer(text).writerow(cells)
    return text.getvalue().encode()


def in_bulk(pages: Sequence[SamplePage], encoder: SampleEncoder) -> bytes:
    """Return what ``encoder`` makes of ``pages``, one after the other."""
    clock = Clock()
    slices = SharedSlices(clock).of("somebody")

    async def every() -> bytes:
        return b"".join([chunk for page in pages async for chunk in encoder.encoded(page, encoder.rendered, slices)])

    found: list[bytes] = []
    Deferred.fromCoroutine(every()).addCallback(found.append)
    while not found:
        clock.advance(0)
    return found[0]


def compare_pages(store: Any) -> None:
    """Make each call of ``store.samples`` also compare the page of the same query with what it returns."""
    samples, comparing = store.samples, [False]

    async def compared(*query: Any) -> Sequence[StoredSample]:
        found = await samples(*query)
        if comparing[0]:  # by a store that makes its pages of samples
            return found
        comparing[0] = True
        try:
            page = await store.sample_page(*query)
        finally:
            comparing[0] = False
        markers = [(page.marker(n).timestamp, page.marker(n).message_id) for n in range(len(page.rows))]
        assert markers == [(each.timestamp, each.message_id) for each in found]
        encoder = SampleEncoder(SAMPLE, SampleFormat.LINES, MetadataFlattener())
        assert in_bulk([page], encoder) == one_by_one(found, SAMPLE, SampleFormat.LINES)
        return found

    store.samples = compared
