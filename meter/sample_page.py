"""A page of samples for a response: what each sample has of its own is one text, what samples share comes once for all.

To make a record of each sample, and then the JSON of each record, takes several times as long as PostgreSQL takes to select the
samples. A page in this form is rendered in bulk: see :mod:`meter.api.rendering.sample_pages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import NamedTuple

from zope.interface import Interface

from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StoredSample
from meter.sample import SampleType
from meter.signing_keys import SignatureScheme

VALUES = ("message_id", "timestamp", "recorded_at", "volume", "signature")
"""What :attr:`PagedSample.values` has, in this order, with commas between them."""


class PagedSample(NamedTuple):
    """A sample of a page. The first three are keys of the mappings of :class:`SamplePage`.

    ``values`` has the :data:`VALUES`, none of which has a comma or anything else that JSON or CSV would escape or a spreadsheet could evaluate: times in UTC
    as ``2026-11-22 17:00:59.7``, the volume as Python's ``float`` reads it, the signature empty if there is none.
    """

    series: int
    metadata: int
    wire_format: int
    values: str

    @property
    def marker(self) -> Marker:
        """The marker with which the next page begins after this sample."""
        message_id, timestamp, *_ = self.values.split(",")
        return Marker(datetime.fromisoformat(timestamp).replace(tzinfo=UTC), message_id)


class PagedSeries(NamedTuple):
    """What all samples of a series have in common."""

    name: str
    type: SampleType
    unit: str
    resource_id: str
    user_id: str | None
    project_id: str | None
    source: str | None


class KnownDimensions(NamedTuple):
    """What the caller has rendered before, by the keys of :class:`SamplePage`: the page does not repeat it.

    Keys mean the same in pages with the same ``token``. Another one comes after a failover.
    """

    token: object
    series: Set[int]
    metadata: Set[int]
    wire_formats: Set[int]


NOTHING_KNOWN = KnownDimensions(None, frozenset(), frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class SamplePage:
    """Samples in the order of the query: each a tuple that begins with a :class:`PagedSample`, or a :class:`StoredSample`.

    The mappings have what the samples refer to, without what was known by the same ``token``. ``is_mixed``: there is a whole
    :class:`StoredSample`, because its values do not fit into :attr:`PagedSample.values`.
    """

    rows: list[Any]
    series: Mapping[int, PagedSeries]
    metadata: Mapping[int, Mapping[str, Any]]
    schemes: Mapping[int, SignatureScheme | None]
    token: object
    is_mixed: bool = False

    def marker(self, index: int) -> Marker:
        """Return the marker with which the next page begins after the sample at ``index``."""
        row = self.rows[index]
        if isinstance(row, StoredSample):
            return Marker(row.timestamp, row.message_id)
        return PagedSample(*row[:4]).marker


class ISamplePages(Interface):
    """A store that returns pages of samples for rendering in bulk. It raises what the methods of :class:`meter.interfaces.IStore` raise."""

    async def sample_page(
        filter: SampleFilter,
        limit: int,
        order: Sequence[Order] = (),
        after: Marker | None = None,
        known: KnownDimensions = NOTHING_KNOWN,
    ) -> SamplePage:
        """Return the samples that ``IStore.samples`` returns, in a fraction of the time."""
