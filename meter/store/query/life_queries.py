"""LifeQueries: runs the queries of ``ILifeStore`` and makes records of their rows."""

from __future__ import annotations

from bisect import bisect_left
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from meter.completeness.lives.life_store import ListedTime
from meter.completeness.lives.life_store import SampleRun
from meter.completeness.lives.life_store import is_after_silence
from meter.daemon.shared_slices import OwnedSlices
from meter.query import SampleFilter
from meter.store.postgres.sql import Sql
from meter.store.query.dimension_cache import DimensionCaches
from meter.store.query.lives import ReportRow
from meter.store.query.lives import RunRow
from meter.store.query.lives import life_resources_query
from meter.store.query.lives import reports_query
from meter.store.query.lives import runs_query
from meter.store.query.lives import samples_of_runs_query

CONVERTED_RUNS = 50
"""Rows that are made to runs before the time is checked."""

Rows = Callable[[Sql], Awaitable[list[tuple[Any, ...]]]]


class LifeQueries:
    """Runs statements with ``rows``; texts and metadata come from the caches ``dimensions``."""

    def __init__(self, rows: Rows, dimensions: DimensionCaches) -> None:
        self._rows = rows
        self._dimensions = dimensions

    async def resources(self, filter: SampleFilter, meters: Sequence[str], limit: int) -> list[str]:
        """See ``ILifeStore.life_resources``."""
        return [name for (name,) in await self._rows(life_resources_query(filter, meters, limit))]

    async def runs(
        self,
        resources: Sequence[str],
        meters: Sequence[str],
        as_of: datetime | None,
        slices: OwnedSlices,
        *,
        final_rollups: bool = False,
    ) -> list[SampleRun]:
        """See ``ILifeStore.life_runs``. ``final_rollups``: no sample that rollups contain was recorded after ``as_of``."""
        if not resources:
            return []
        rows = [
            RunRow(*row) for row in await self._rows(runs_query(resources, meters, as_of, final_rollups=final_rollups))
        ]
        rows = await self._without_mixed(rows, as_of)
        all_series = await self._dimensions.series.get_many({row.series_id for row in rows}, slices)
        all_metadata = await self._dimensions.metadata.get_many({row.metadata_id for row in rows}, slices)
        runs: list[SampleRun] = []
        async for batch in slices.batches(rows, CONVERTED_RUNS):
            for row in batch:
                series, metadata = all_series.get(row.series_id), all_metadata.get(row.metadata_id)
                if series is not None and metadata is not None:
                    runs.append(
                        SampleRun(
                            meter=series.name,
                            resource_id=series.resource_id,
                            user_id=series.user_id,
                            project_id=series.project_id,
                            source=series.source,
                            interval=row.polling_interval,
                            first=row.first,
                            last=row.last,
                            volume=row.max_volume,
                            metadata=metadata,
                        )
                    )
        return runs

    async def reports(
        self, resources: Sequence[str], pollsters: Sequence[str], as_of: datetime | None
    ) -> list[ListedTime]:
        """See ``ILifeStore.life_reports``."""
        if not resources or not pollsters:
            return []
        rows = await self._rows(reports_query(resources, pollsters, as_of))
        return [piece for row in rows for piece in ReportRow(*row).pieces()]

    async def _without_mixed(self, rows: list[RunRow], as_of: datetime | None) -> list[RunRow]:
        """Return ``rows``, in which the samples of each row that is not of one state stand in its place."""
        mixed = [row for row in rows if not row.of_one_state]
        found = [end for row in rows if row.of_one_state for end in row.ends()]
        if mixed:
            samples = [RunRow(*row) for row in await self._rows(samples_of_runs_query(mixed, as_of))]
            found += samples
            read: defaultdict[tuple[int, int], list[datetime]] = defaultdict(list)
            for sample in samples:
                read[sample.series_id, sample.metadata_id].append(sample.first)
            for row in mixed:
                times = read[row.series_id, row.metadata_id]
                if row.min_volume == row.max_volume or bisect_left(times, row.first) == bisect_right(times, row.last):
                    # All samples have expired, or those at the ends may have: the ends are known, and the volume of some samples.
                    found += row._replace(min_volume=row.max_volume).ends()
        elif len(found) == len(rows):
            return rows
        return joined_runs(sorted(found, key=lambda row: (row.series_id, row.first, row.last)))


def joined_runs(rows: Iterable[RunRow]) -> list[RunRow]:
    """Return ``rows``, those of each series oldest first, with what follows in the same state joined, as the statement does."""
    found: list[RunRow] = []
    for row in rows:
        if found:
            last = found[-1]
            alike = last._replace(first=row.first, last=row.last, samples=row.samples) == row
            if alike and not is_after_silence(last.last, row.first, row.polling_interval):
                found[-1] = last._replace(last=row.last, samples=last.samples + row.samples)
                continue
        found.append(row)
    return found
