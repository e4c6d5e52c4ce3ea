"""Long lists as JSON: rendered and encoded in slices, so that a response of any length does not block the reactor."""

from __future__ import annotations

import msgspec

from meter.api.responses import ListResponse
from meter.daemon.shared_slices import OwnedSlices

PART_BYTES = 256 * 1024
"""Size at which a part of the response ends; a part is written at once."""

_ENCODER = msgspec.json.Encoder()


async def encoded_list(response: ListResponse, slices: OwnedSlices) -> list[bytes]:
    """Return the JSON of ``response`` in one or more parts."""
    parts: list[bytes] = []
    batches: list[bytes] = []
    size = 0
    async for rows in slices.consume(response.rows, response.rows_per_slice):
        batch = _ENCODER.encode([response.render(row) for row in rows])[1:-1]
        batches.append(batch)
        size += len(batch)
        if size >= PART_BYTES:
            parts.append(b",".join(batches) + b",")
            batches, size = [], 0
    if batches:
        parts.append(b",".join(batches))
    elif parts:
        parts[-1] = parts[-1][:-1]
    before, after = (b"[", b"]") if response.member is None else (b'{"%b":[' % response.member.encode(), b"]}")
    if response.envelope is not None:
        before, after = response.envelope
    if len(parts) <= 1:
        return [before + b"".join(parts) + after]
    return [before + parts[0], *parts[1:-1], parts[-1] + after]
