"""Pages of samples as JSON or CSV, in bulk: no record and no line of Python per sample.

The text of a sample is divided into pieces. Those that its series determines are made once for the series, and so is the text of metadata
that samples share. The values of a sample's own are converted a column at a time, and all is joined at once. Names and order of the
members are those of the schema's records, and values are encoded as msgspec encodes records: the result is the same byte for byte.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from itertools import chain
from itertools import groupby
from itertools import repeat
from operator import itemgetter
from typing import Any
from typing import TypeVar

import msgspec

from meter.api.rendering.flattening import MetadataFlattener
from meter.api.rendering.v2 import SampleSchema
from meter.daemon.shared_slices import OwnedSlices
from meter.query import StoredSample
from meter.sample_page import VALUES
from meter.sample_page import PagedSeries
from meter.sample_page import SamplePage
from meter.spreadsheet import neutralize

T = TypeVar("T")

BATCH_SAMPLES = 200
"""Samples that are encoded before the time is checked: a fraction of a millisecond, unless they have long metadata."""

MAX_CACHED_SERIES = 20_000
"""The pieces of a series take about half a kilobyte."""

_JSON = msgspec.json.Encoder()
_TIMES = msgspec.json.Decoder(list[datetime])

_QUOTED = frozenset({"message_id", "timestamp", "recorded_at"})
"""Values that are texts in JSON, and are not null."""

_series, _metadata, _wire_format, _values = map(itemgetter, range(4))


class SampleFormat(Enum):
    """A format of many samples, and what separates them or ends their lines."""

    LIST = b","
    LINES = b"\n"
    CSV = b"\r\n"


class SampleEncoders:
    """The encoders of all schemas and formats, which share the flattened metadata of ``flatten``."""

    def __init__(self, flatten: MetadataFlattener) -> None:
        self._flatten = flatten
        self._made: dict[tuple[str, SampleFormat], SampleEncoder] = {}

    def of(self, schema: SampleSchema, format: SampleFormat) -> SampleEncoder:
        """Return the encoder of ``schema`` in ``format``."""
        key = schema.record.__name__, format
        if key not in self._made:
            self._made[key] = SampleEncoder(schema, format, self._flatten)
        return self._made[key]


class SampleEncoder:
    """Encodes samples in one schema and format."""

    def __init__(self, schema: SampleSchema, format: SampleFormat, flatten: MetadataFlattener) -> None:
        self.schema = schema
        self._flatten = flatten
        self._is_csv = format is SampleFormat.CSV
        self._end = format.value
        attributes = list(schema.attributes.values())
        self._holes = [each for each in attributes if each not in PagedSeries._fields]
        """The attributes that the series does not determine, in the order of the schema: between them are the pieces."""
        self._pieces: dict[PagedSeries, tuple[bytes, ...]] = {}
        of_none, of_some = (self._pieces_of(PagedSeries._make([text] * len(PagedSeries._fields))) for text in ("", "."))
        self._constants = [piece if piece == other else None for piece, other in zip(of_none, of_some, strict=True)]
        self._varying = [index for index, piece in enumerate(self._constants) if piece is None]

    @property
    def header(self) -> bytes:
        """The first line of CSV; nothing in JSON."""
        return ",".join(self.schema.attributes).encode() + self._end if self._is_csv else b""

    async def encoded(self, page: SamplePage, slices: OwnedSlices) -> AsyncIterator[bytes]:
        """Yield the samples of ``page``, which is emptied, each with the separator or end of the format after it."""
        series = _Table(lambda id: self._varying_pieces(page.series[id]))
        metadata = _Table(lambda id: self._metadata(self._flatten(page.metadata[id])))
        schemes = _Table(lambda id: self._scheme(page.schemes[id]))
        tables = (series, _series), (metadata, _metadata), (schemes, _wire_format)
        async for rows in slices.consume(page.rows, BATCH_SAMPLES):
            encoded = []
            for whole, group in _divided(rows, page.is_mixed):
                if whole:
                    encoded += [self._record(row) for row in group]
                    continue
                for table, id_of in tables:
                    for id in set(map(id_of, group)).difference(table):
                        if slices.over:
                            await slices.pause()
                        table[id]  # makes it
                encoded.append(self._encoded(group, series, metadata, schemes))
            yield b"".join(encoded)

    def _encoded(
        self,
        rows: Sequence[tuple[Any, ...]],
        series: _Table[tuple[bytes, ...]],
        metadata: _Table[bytes],
        schemes: _Table[bytes],
    ) -> bytes:
        values = ",".join(map(_values, rows)).encode("ascii").split(b",")
        if len(values) != len(VALUES) * len(rows):
            raise ValueError("a value of a sample has a comma")
        columns: dict[str, Sequence[bytes]] = {name: values[n :: len(VALUES)] for n, name in enumerate(VALUES)}
        columns["timestamp"] = _times(columns["timestamp"])
        columns["recorded_at"] = _times(columns["recorded_at"])
        columns["volume"] = _floats(columns["volume"])
        columns["signature"] = self._signatures(columns["signature"])
        columns["metadata"] = list(map(metadata.__getitem__, map(_metadata, rows)))
        columns["scheme"] = list(map(schemes.__getitem__, map(_wire_format, rows)))
        of_series = dict(
            zip(self._varying, zip(*map(series.__getitem__, map(_series, rows)), strict=True), strict=True)
        )
        parts: list[Any] = []
        for n, constant in enumerate(self._constants):
            parts.append(of_series[n] if constant is None else repeat(constant, len(rows)))
            if n < len(self._holes):
                parts.append(columns[self._holes[n]])
        return b"".join(chain.from_iterable(zip(*parts, strict=True)))

    def _varying_pieces(self, series: PagedSeries) -> tuple[bytes, ...]:
        """Return the pieces of ``series`` that differ between series."""
        pieces = self._pieces.get(series)
        if pieces is None:
            if len(self._pieces) >= MAX_CACHED_SERIES:
                self._pieces.clear()
            every = self._pieces_of(series)
            pieces = self._pieces[series] = tuple(every[n] for n in self._varying)
        return pieces

    def _pieces_of(self, series: PagedSeries) -> tuple[bytes, ...]:
        """Return what is before, between and after the holes in the text of a sample of ``series``."""
        pieces = [b"" if self._is_csv else b"{"]
        for n, (name, attribute) in enumerate(self.schema.attributes.items()):
            begin = b"," if n else b""
            if not self._is_csv:
                begin += b'"%b":' % name.encode()
            quote = b"" if self._is_csv or attribute not in _QUOTED else b'"'
            if attribute in self._holes:
                pieces[-1] += begin + quote
                pieces.append(quote)
            else:
                value = getattr(series, attribute)
                pieces[-1] += begin + (_cell(value) if self._is_csv else _JSON.encode(value))
        pieces[-1] += self._end if self._is_csv else b"}" + self._end
        return tuple(pieces)

    def _record(self, sample: StoredSample) -> bytes:
        """Return ``sample``, encoded by itself."""
        record = self.schema.render(sample, self._flatten)
        if not self._is_csv:
            return _JSON.encode(record) + self._end
        cells = [self._cell(value) for value in msgspec.structs.astuple(record)]
        return b",".join(cells) + self._end

    def _cell(self, value: Any) -> bytes:
        if value is None or isinstance(value, str):
            return _cell(value)
        encoded = _JSON.encode(value)
        return self._metadata(msgspec.Raw(encoded)) if isinstance(value, msgspec.Raw) else encoded.strip(b'"')

    def _metadata(self, flat: msgspec.Raw) -> bytes:
        """Return flattened metadata, in CSV as a cell. Only ``{}`` needs no quotation marks.

        A semicolon, after which a spreadsheet could see another cell, is written as its JSON escape: the value is the same.
        """
        text = bytes(flat)
        if not self._is_csv or len(text) <= len(b"{}"):
            return text
        return b'"%b"' % text.replace(b'"', b'""').replace(b";", b"\\u003b")

    def _scheme(self, scheme: str | None) -> bytes:
        return _cell(scheme) if self._is_csv else _JSON.encode(scheme)

    def _signatures(self, signatures: Sequence[bytes]) -> Sequence[bytes]:
        if self._is_csv:
            return signatures
        if not any(signatures):
            return [b"null"] * len(signatures)
        return [b'"%b"' % signature if signature else b"null" for signature in signatures]


class _Table(dict[int, T]):
    """Values by id, made on first use."""

    def __init__(self, make: Callable[[int], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, id: int) -> T:
        made = self[id] = self._make(id)
        return made


def _divided(rows: list[Any], is_mixed: bool) -> Iterator[tuple[bool, list[Any]]]:
    """Yield ``rows`` in turns of records, with ``True``, and of others."""
    if not is_mixed:
        yield False, rows
        return
    for whole, group in groupby(rows, lambda row: isinstance(row, StoredSample)):
        yield whole, list(group)


def _times(texts: Sequence[bytes]) -> Sequence[bytes]:
    """Return times, written by PostgreSQL, as JSON writes them, without quotation marks."""
    distinct = list(set(texts))
    times = _TIMES.decode(b'["%b"]' % b'","'.join(distinct))
    encoded = dict(zip(distinct, _JSON.encode(times)[2:-2].split(b'","'), strict=True))
    return list(map(encoded.__getitem__, texts))


def _floats(texts: Sequence[bytes]) -> Sequence[bytes]:
    """Return numbers, written by PostgreSQL, as JSON writes them."""
    return _JSON.encode(list(map(float, texts)))[1:-1].split(b",")


def _cell(text: str | None) -> bytes:
    """Return ``text`` as a cell of CSV, as the ``csv`` module writes it, with what a spreadsheet could evaluate neutralized."""
    cells = io.StringIO(newline="")
    csv.writer(cells).writerow((None if text is None else neutralize(text), 0))  # an empty cell alone would be quoted
    return cells.getvalue().removesuffix(",0\r\n").encode()
