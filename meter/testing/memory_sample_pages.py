"""Pages of samples for rendering in bulk, of a store in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from meter.interfaces import RequestError
from meter.query import Field
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StoredSample
from meter.sample_page import NOTHING_KNOWN
from meter.sample_page import KnownDimensions
from meter.sample_page import PagedSample
from meter.sample_page import PagedSeries
from meter.sample_page import SamplePage
from meter.signing_keys import SignatureScheme
from meter.testing.filters import ATTRIBUTES

_PLAIN = re.compile(r"([0-9A-Za-z][0-9A-Za-z-]*)?")
"""Ids and signatures that fit into the values of a page. In PostgreSQL they are a UUID and hexadecimal digits.

None begins with a minus sign: it would begin a formula in a spreadsheet.
"""


class MemorySamplePages:
    """Makes pages of the samples of a store."""

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return samples; see ``IStore.samples``."""
        raise NotImplementedError

    async def sample_page(
        self,
        filter: SampleFilter,
        limit: int,
        order: Sequence[Order] = (),
        after: Marker | None = None,
        known: KnownDimensions = NOTHING_KNOWN,
    ) -> SamplePage:
        """Return the same samples as a page, in which nothing is ``known``: its keys are of this page alone."""
        return page_of(await self.samples(filter, limit, order, after))


def page_of(samples: Sequence[StoredSample]) -> SamplePage:
    """Return ``samples`` as a page."""
    series: dict[PagedSeries, int] = {}
    metadata: dict[int, Mapping[str, Any]] = {}
    schemes: dict[SignatureScheme | None, int] = {}
    rows: list[Any] = []
    for each in samples:
        if not _PLAIN.fullmatch(each.message_id) or not _PLAIN.fullmatch(each.signature):
            rows.append(each)
            continue
        of_series = PagedSeries(
            each.name, each.type, each.unit, each.resource_id, each.user_id, each.project_id, each.source
        )
        times = (str(time.replace(tzinfo=None)) for time in (each.timestamp, each.recorded_at))
        metadata[id(each.metadata)] = each.metadata
        rows.append(
            PagedSample(
                series.setdefault(of_series, len(series)),
                id(each.metadata),
                schemes.setdefault(each.scheme, len(schemes)),
                ",".join((each.message_id, *times, repr(float(each.volume)), each.signature)),
            )
        )
    return SamplePage(
        rows,
        {number: each for each, number in series.items()},
        metadata,
        {number: each for each, number in schemes.items()},
        token=object(),
        is_mixed=any(isinstance(row, StoredSample) for row in rows),
    )


def sort_key(row: StoredSample, field: Field) -> tuple[bool, Any]:
    """Return the sort key of ``row``: an absent value comes last, or first in descending order."""
    if field not in ATTRIBUTES:
        raise RequestError(f"samples cannot be ordered by {field!r}: use {', '.join(ATTRIBUTES)}")
    value = getattr(row, ATTRIBUTES[field])
    return value is None, value if value is not None else 0
