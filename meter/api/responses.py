"""Responses that a handler can return in place of a plain record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import msgspec

from meter.api.errors import ApiError
from meter.api.rendering.sample_pages import SampleEncoder
from meter.daemon.shared_slices import OwnedSlices
from meter.sample_page import SamplePage

_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """A record to encode as JSON, and additional headers."""

    content: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListResponse:
    """A list of any length, of which ``render`` returns a record per row; it is rendered and encoded in slices.

    ``rows`` is emptied meanwhile.
    With ``member`` the response is an object, which has the list in this member; with ``envelope`` it is these bytes, from
    the first through the bracket that opens the list, and from the one that closes it through the last. ``rows_per_slice``
    is the number of rows that are rendered before the time is checked.
    """

    rows: list[Any]
    render: Callable[[Any], Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    member: str | None = None
    envelope: tuple[bytes, bytes] | None = None
    rows_per_slice: int = 10

    async def encoded(self, slices: OwnedSlices) -> AsyncIterator[bytes]:
        """Yield the JSON of the entries, each with a comma after it."""
        async for rows in slices.consume(self.rows, self.rows_per_slice):
            yield _ENCODER.encode([self.render(row) for row in rows])[1:-1] + b","

    def around(self) -> tuple[bytes, bytes]:
        """Return what comes before the entries, and after them."""
        if self.envelope is not None:
            return self.envelope
        return (b"[", b"]") if self.member is None else (b'{"%b":[' % self.member.encode(), b"]}")


@dataclass(frozen=True, slots=True)
class SampleListResponse:
    """A list of samples, encoded in bulk: ``page`` is emptied meanwhile."""

    page: SamplePage
    encoder: SampleEncoder
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self, slices: OwnedSlices) -> AsyncIterator[bytes]:
        """Yield the JSON of the samples, each with a comma after it."""
        return self.encoder.encoded(self.page, slices)

    async def records(self, slices: OwnedSlices) -> list[Any]:
        """Return the samples as records, for a page of a browser."""
        batches = [batch async for batch in self.encoded(slices)]
        record = self.encoder.schema.record
        return msgspec.json.decode(b"[%b]" % b"".join(batches)[:-1], type=list[record])  # type: ignore[valid-type] # mypy knows only names

    def around(self) -> tuple[bytes, bytes]:
        """Return what comes before the samples, and after them."""
        return b"[", b"]"


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An encoded body, additional headers, and headers ``Set-Cookie``. ``status`` is that of the operation by default."""

    media_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None
    cookies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamingResponse:
    """A body of unknown length, produced in chunks at the speed of the client.

    ``last_chunk`` makes the last chunk of a body that ends because its authorization has ended; without it, the
    connection is aborted, as nothing else shows a client that an export is not complete.
    """

    media_type: str
    chunks: AsyncIterator[bytes]
    last_chunk: Callable[[ApiError], bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
