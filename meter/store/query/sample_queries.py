"""The queries of a store whose results are samples."""

from __future__ import annotations

from collections.abc import Sequence

from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StoredSample
from meter.sample_page import SamplePage
from meter.store.query.runner import QueryRunner


class SampleQueries:
    """Passes queries for samples on."""

    _query_runner: QueryRunner

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return the newest matching samples; see ``IStore.samples``."""
        return await self._query_runner.samples(filter, limit, order, after)

    async def sample_page(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> SamplePage:
        """Return the newest matching samples in bulk; see ``ISamplePages``."""
        return await self._query_runner.sample_page(filter, limit, order, after)

    async def sample(self, message_id: str, filter: SampleFilter) -> StoredSample | None:
        """Return one sample; see ``IStore.sample``."""
        return await self._query_runner.sample(message_id, filter)
