"""Long lists as JSON: rendered and encoded in slices, so that a response of any length does not block the reactor."""

from __future__ import annotations

from meter.api.responses import ListResponse
from meter.api.responses import SampleListResponse
from meter.daemon.shared_slices import OwnedSlices

PART_BYTES = 256 * 1024
"""Size at which a part of the response ends; a part is written at once."""


async def encoded_list(response: ListResponse | SampleListResponse, slices: OwnedSlices) -> list[bytes]:
    """Return the JSON of ``response`` in one or more parts."""
    before, after = response.around()
    parts: list[bytes] = []
    batches: list[bytes] = [before]
    size = 0
    async for batch in response.encoded(slices):
        if size >= PART_BYTES:
            parts.append(b"".join(batches))
            batches, size = [], 0
        batches.append(batch)
        size += len(batch)
    if size:
        batches[-1] = batches[-1][:-1]  # no comma after the last
    return [*parts, b"".join([*batches, after])]
