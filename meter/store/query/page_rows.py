"""The statements that find the samples of a page, by where they are: few series or many, plain, packed or on archive servers."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from typing import Any

from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.sample_identity import WEEK
from meter.store.postgres.sql import Sql
from meter.store.query.access_paths import AccessPath
from meter.store.query.conditions import FilterConditions
from meter.store.query.conditions import split_filter
from meter.store.query.matching_series import MatchingSeries
from meter.store.query.matching_series import matching_series_query
from meter.store.query.newest_weeks import StoredWeeks
from meter.store.query.newest_weeks import StoredWeeksReader
from meter.store.query.newest_weeks import oldest_rollup_query
from meter.store.query.samples import recent_samples_query
from meter.store.query.samples import samples_by_time_query
from meter.store.query.samples import samples_of_many_series_query
from meter.store.query.samples import samples_of_series_query
from meter.store.query.samples import samples_query
from meter.store.query.spread_pages import spread_page

ANY_PACKED = Sql("SELECT FROM packed_week LIMIT 1")

FEW_ARCHIVED_SERIES = 3
"""Up to so many series of a page are each looked up by themselves in archived weeks; the samples of more are read together, by spans of time."""

Rows = list[tuple[Any, ...]]
Form = Callable[[Sql], Sql]
"""Changes a statement to select other columns."""


class PageRows:
    """Finds the rows of pages with statements that ``query`` executes.

    ``weeks`` reads which weeks have samples; ``spread`` returns whether these are on several servers.
    """

    def __init__(
        self, query: Callable[[Sql], Awaitable[Rows]], weeks: StoredWeeksReader, *, spread: Callable[[], bool]
    ) -> None:
        self._query = query
        self._weeks = weeks
        self._spread = spread

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
        if order or conditions.access_path not in (AccessPath.SERIES, AccessPath.TIMESTAMP):
            return await self._query(form(samples_query(conditions, limit, order, after)))
        weeks = await self._weeks.read()
        matching = await self._matching(conditions)
        if matching and not matching.ids:
            return []
        if matching and matching.are_few and matching.until and matching.until < self._weeks.now() - WEEK:
            filter = _until(filter, matching.until)  # what they are of was deleted long ago
        page = _Page(limit, after, form, matching)
        begins: datetime | None = None
        for n, start in enumerate(weeks.starts(filter, after, self._weeks.now())):
            if begins and start <= begins:
                break
            rows = await self._newest_rows(replace(filter, start=start, after_start=False), weeks, page)
            if len(rows) == limit:
                return rows
            if matching and matching.are_few and n == 0:
                [[begins]] = await self._query(oldest_rollup_query(matching.ids))
        return await self._newest_rows(filter, weeks, page)

    async def _matching(self, conditions: FilterConditions) -> MatchingSeries | None:
        """Return the matching series; ``None`` where samples are not found by series, or several servers have them."""
        query = None if self._spread() else matching_series_query(conditions)
        return MatchingSeries(*(await self._query(query))[0]) if query else None

    async def _newest_rows(self, filter: SampleFilter, weeks: StoredWeeks, page: _Page) -> Rows:
        conditions = split_filter(filter)
        if self._spread():
            return await self._spread_rows(conditions, page)
        until = weeks.archived_until
        if until is not None and (filter.start is None or filter.start < until):
            return await self._with_archived_rows(filter, until, page)
        return await self._rows_by_path(conditions, page)

    async def _with_archived_rows(self, filter: SampleFilter, until: datetime, page: _Page) -> Rows:
        """Read archived weeks only if there are not enough newer rows; those of many series together."""
        if filter.end is None or filter.end > until:
            newer = split_filter(replace(filter, start=until, after_start=False))
            rows = await self._rows_by_path(newer, page)
            if len(rows) == page.limit:
                return rows
        conditions = split_filter(filter)
        if page.matching and len(page.matching.ids) <= FEW_ARCHIVED_SERIES:
            return await self._query(page.of_few_series(conditions))
        return await self._query(page.made(samples_by_time_query, conditions))

    async def _rows_by_path(self, conditions: FilterConditions, page: _Page) -> Rows:
        if page.matching is None:
            rows = await self._query(page.form(samples_query(conditions, page.limit, (), page.after)))
            if len(rows) == page.limit or not await self._query(ANY_PACKED):
                return rows
            in_order = samples_by_time_query if conditions.selects_in_series else samples_of_many_series_query
            return await self._query(page.made(in_order, conditions))
        if page.matching.are_few:
            return await self._query(page.of_few_series(conditions))
        rows = await self._query(page.made(recent_samples_query, conditions))
        if len(rows) == page.limit:
            return rows
        if conditions.selects_in_series and await self._query(ANY_PACKED):
            return await self._query(page.made(samples_by_time_query, conditions))
        return await self._query(page.made(samples_of_many_series_query, conditions))

    async def _spread_rows(self, conditions: FilterConditions, page: _Page) -> Rows:
        if await self._query(ANY_PACKED):
            return await self._query(page.made(samples_by_time_query, conditions))
        return await spread_page(self._query, conditions, page.limit, page.after, page.form)


@dataclass(frozen=True, slots=True)
class _Page:
    """What is asked for: ``limit`` samples after ``after``, with columns as ``form`` says; ``matching`` are their series, if these are known."""

    limit: int
    after: Marker | None
    form: Form
    matching: MatchingSeries | None

    def made(
        self, statement: Callable[[FilterConditions, int, Marker | None], Sql], conditions: FilterConditions
    ) -> Sql:
        """Return the ``statement`` for the page."""
        return self.form(statement(conditions, self.limit, self.after))

    def of_few_series(self, conditions: FilterConditions) -> Sql:
        """Return the statement for the page that reads each of the matching series."""
        ids = self.matching.ids if self.matching else ()
        return self.form(samples_of_series_query(conditions, self.limit, self.after, ids))


def _until(filter: SampleFilter, until: datetime) -> SampleFilter:
    """Return ``filter`` with an end at ``until``, which is included, unless it has one that is not later."""
    return filter if filter.end is not None and filter.end <= until else replace(filter, end=until, through_end=True)
