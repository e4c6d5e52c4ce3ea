"""Lives of resources for rating, as of a time: from rollups where these are final, and from samples elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from meter.completeness.lives.life_store import ListedTime
from meter.completeness.lives.life_store import SampleRun
from meter.daemon.shared_slices import SharedSlices
from meter.query import SampleFilter
from meter.store.postgres.pool import Pool
from meter.store.postgres.sql import Sql
from meter.store.query.dimension_cache import DimensionCaches
from meter.store.query.life_queries import LifeQueries


class RatedLives:
    """Reads over ``pool`` what lives are computed from. With ``final_rollups``, no rollup is newer than the times that are asked for."""

    def __init__(self, pool: Pool, slices: SharedSlices, *, final_rollups: bool) -> None:
        async def rows(statement: Sql) -> list[tuple[object, ...]]:
            return await pool.rows(statement.text, statement.parameters)

        self._queries = LifeQueries(rows, DimensionCaches(pool))
        self._slices = slices
        self._final_rollups = final_rollups

    async def life_resources(self, filter: SampleFilter, meters: Sequence[str], limit: int) -> Sequence[str]:
        """Return the ids of resources; see ``ILifeStore.life_resources``."""
        return await self._queries.resources(filter, meters, limit)

    async def life_runs(
        self, resources: Sequence[str], meters: Sequence[str], as_of: datetime | None = None
    ) -> Sequence[SampleRun]:
        """Return runs of samples; see ``ILifeStore.life_runs``."""
        slices = self._slices.of(object())
        return await self._queries.runs(resources, meters, as_of, slices, final_rollups=self._final_rollups)

    async def life_reports(
        self, resources: Sequence[str], pollsters: Sequence[str], as_of: datetime | None = None
    ) -> Sequence[ListedTime]:
        """Return what cycle reports listed; see ``ILifeStore.life_reports``."""
        return await self._queries.reports(resources, pollsters, as_of)
