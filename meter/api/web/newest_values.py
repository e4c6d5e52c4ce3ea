"""The newest sample of each meter of a resource, in a bounded number of questions."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from meter.api.request.context import RequestContext
from meter.query import In
from meter.query import SampleFilter
from meter.query import StoredSample

NEWEST_SAMPLES = 200
"""Samples of one question."""

MAX_QUESTIONS = 3
"""Questions after those for all meters. Each is for the meters that were not among the newest samples so far."""


async def newest_values(
    context: RequestContext, resource_id: str, meters: Sequence[str]
) -> Mapping[tuple[str, str], StoredSample]:
    """Return the newest sample by meter and unit, without those that are older than many samples of other meters."""
    found: dict[tuple[str, str], StoredSample] = {}
    missing = set(meters)
    for _ in range(1 + MAX_QUESTIONS):
        if not missing:
            break
        among = In("meter", tuple(sorted(missing)))
        filter = SampleFilter(equals={"resource_id": resource_id}, expression=among)
        rows = await context.store.samples(filter, NEWEST_SAMPLES)
        for each in rows:
            found.setdefault((each.name, each.unit), each)
        missing -= {each.name for each in rows}
        if len(rows) < NEWEST_SAMPLES:
            break
    return found
