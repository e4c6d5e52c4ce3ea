"""The statements that find the samples of a page, by where they are: few series or many, plain, packed or on archive servers."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.store.packing.packed_ids import MONDAY
from meter.store.postgres.sql import Sql
from meter.store.query.access_paths import AccessPath
from meter.store.query.conditions import FilterConditions
from meter.store.query.conditions import split_filter
from meter.store.query.samples import MatchingSeries
from meter.store.query.samples import matching_series_query
from meter.store.query.samples import recent_samples_query
from meter.store.query.samples import samples_by_time_query
from meter.store.query.samples import samples_of_many_series_query
from meter.store.query.samples import samples_of_series_query
from meter.store.query.samples import samples_query
from meter.store.query.spread_pages import spread_page

ANY_PACKED = Sql("SELECT FROM packed_week LIMIT 1")

ARCHIVED_UNTIL = Sql(f"SELECT {MONDAY.format('max(week) + 7')} FROM archived_week HAVING max(week) IS NOT NULL")

KNOWN_SECONDS = 30.0
"""How long it is remembered which weeks are archived. Every answer is right without it: only the number of statements depends on it."""

FEW_ARCHIVED_SERIES = 3
"""Up to so many series of a page are each looked up by themselves in archived weeks; the samples of more are read together, by spans of time."""

Rows = list[tuple[Any, ...]]
Form = Callable[[Sql], Sql]
"""Changes a statement to select other columns."""


class PageRows:
    """Finds the rows of pages with statements that ``query`` executes; ``spread`` tells whether the store has several servers."""

    def __init__(
        self, query: Callable[[Sql], Awaitable[Rows]], clock: IReactorTime, *, spread: Callable[[], bool]
    ) -> None:
        self._query = query
        self._clock = clock
        self._spread = spread
        self._archived: datetime | None = None
        self._known_until = float("-inf")

    async def rows(
        self,
        filter: SampleFilter,
        limit: int,
        order: Sequence[Order],
        after: Marker | None,
        form: Form = lambda statement: statement,
    ) -> Rows:
        """Return the first ``limit`` rows in ``order`` after ``after`` of the samples that match ``filter``."""
        conditions = split_filter(filter)
        newest_first = not order and conditions.access_path in (AccessPath.SERIES, AccessPath.TIMESTAMP)
        if newest_first and self._spread():
            return await self._spread_rows(conditions, limit, after, form)
        if newest_first and (until := await self._archived_until(filter)) is not None:
            return await self._with_archived_rows(filter, until, limit, after, form)
        return await self._rows_by_path(conditions, limit, order, after, form)

    async def _archived_until(self, filter: SampleFilter) -> datetime | None:
        """Return until when weeks are archived that can have samples of ``filter``; ``None`` if none can."""
        if self._clock.seconds() >= self._known_until:
            found = await self._query(ARCHIVED_UNTIL)
            self._archived = found[0][0] if found else None
            self._known_until = self._clock.seconds() + KNOWN_SECONDS
        if self._archived is None or (filter.start is not None and filter.start >= self._archived):
            return None
        return self._archived

    async def _with_archived_rows(
        self, filter: SampleFilter, until: datetime, limit: int, after: Marker | None, form: Form
    ) -> Rows:
        """Read archived weeks only if there are not enough newer rows; those of many series together."""
        if filter.end is None or filter.end > until:
            newer = split_filter(replace(filter, start=until, after_start=False))
            rows = await self._rows_by_path(newer, limit, (), after, form)
            if len(rows) == limit:
                return rows
        conditions = split_filter(filter)
        if query := matching_series_query(conditions):
            [row] = await self._query(query)
            matching = MatchingSeries(*row)
            if not matching.ids:
                return []
            if len(matching.ids) <= FEW_ARCHIVED_SERIES:
                return await self._query(form(samples_of_series_query(conditions, limit, after, matching.ids)))
        return await self._query(form(samples_by_time_query(conditions, limit, after)))

    async def _rows_by_path(
        self,
        conditions: FilterConditions,
        limit: int,
        order: Sequence[Order],
        after: Marker | None,
        form: Form,
    ) -> Rows:
        query = None if order else matching_series_query(conditions)
        if query is None:
            rows = await self._query(form(samples_query(conditions, limit, order, after)))
            by_time = not order and conditions.access_path is AccessPath.TIMESTAMP
            if not by_time or len(rows) == limit or not await self._query(ANY_PACKED):
                return rows
            in_order = samples_by_time_query if conditions.selects_in_series else samples_of_many_series_query
            return await self._query(form(in_order(conditions, limit, after)))
        [row] = await self._query(query)
        matching = MatchingSeries(*row)
        if not matching.ids:
            return []
        if len(matching.ids) <= matching.few:
            return await self._query(form(samples_of_series_query(conditions, limit, after, matching.ids)))
        rows = await self._query(form(recent_samples_query(conditions, limit, after)))
        if len(rows) == limit:
            return rows
        if conditions.selects_in_series and await self._query(ANY_PACKED):
            return await self._query(form(samples_by_time_query(conditions, limit, after)))
        return await self._query(form(samples_of_many_series_query(conditions, limit, after)))

    async def _spread_rows(self, conditions: FilterConditions, limit: int, after: Marker | None, form: Form) -> Rows:
        if await self._query(ANY_PACKED):
            return await self._query(form(samples_by_time_query(conditions, limit, after)))
        return await spread_page(self._query, conditions, limit, after, form)
