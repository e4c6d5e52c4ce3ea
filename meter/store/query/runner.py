"""QueryRunner: runs the queries of ``IStore``, each as one statement or a few, and makes records of the rows."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import TypeVar

import msgspec
from twisted.internet.interfaces import IReactorTime

from meter.archive_unavailable import ArchiveUnavailable
from meter.completeness.lives.life_store import ListedTime
from meter.completeness.lives.life_store import SampleRun
from meter.daemon.shared_slices import OwnedSlices
from meter.daemon.shared_slices import SharedSlices
from meter.interfaces import QueryTimeout
from meter.interfaces import RequestError
from meter.query import AuditEntry
from meter.query import AuditFilter
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.sample_page import KnownDimensions
from meter.sample_page import SamplePage
from meter.store.audit.log import entries_statement
from meter.store.audit.log import entry_of
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Pool
from meter.store.postgres.sql import Sql
from meter.store.query.activity import ActivityReader
from meter.store.query.as_of import wait_for_writers_before
from meter.store.query.conditions import FilterConditions
from meter.store.query.conditions import split_filter
from meter.store.query.dimension_cache import DimensionCaches
from meter.store.query.life_queries import LifeQueries
from meter.store.query.meters import StoredMeterRow
from meter.store.query.meters import candidates_of
from meter.store.query.meters import meters_query
from meter.store.query.newest_weeks import StoredWeeksReader
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.page_rows import PageRows
from meter.store.query.resource_owner import NamesOfOthers
from meter.store.query.resource_owner import names_of_others_query
from meter.store.query.resources import ResourceRow
from meter.store.query.resources import resources_query
from meter.store.query.sample_pages import as_values
from meter.store.query.sample_pages import sample_page
from meter.store.query.sample_rows import samples_with_ids
from meter.store.query.samples import CONVERTED_ROWS
from meter.store.query.samples import SampleRow
from meter.store.query.samples import samples_query
from meter.store.query.samples import stored_samples
from meter.store.query.series_ends import EndWeeks
from meter.store.query.statistics import looks_before
from meter.store.query.statistics import statistics_rows
from meter.store.query.statistics import statistics_statement
from meter.store.query.stored_rows import ROW_COLUMNS
from meter.store.query.stored_rows import VOIDED_ROWS
from meter.store.query.stored_rows import batches_with_rows
from meter.store.query.stored_rows import rows_statement
from meter.store.query.stored_rows import stored_row
from meter.store.write.record import uuid_of
from meter.stored_batch import StoredProof

NEWEST_VOIDED = """
s.message_id = %s::uuid AND s.timestamp = (SELECT max(timestamp) FROM voided_sample WHERE message_id = %s::uuid)
"""

RECENT = timedelta(days=1)
"""Most series are expected to have samples since then, in lists of resources and meters."""

UNEXECUTABLE = (
    "the query cannot be executed: a value in it, or one that is computed for it, is out of range, too large or of a type"
    " that cannot be compared"
)


Found = TypeVar("Found")


class QueryRunner:
    """Runs queries over ``pool``, each statement of which may take ``seconds``; many rows are converted in ``slices``."""

    def __init__(self, pool: Pool, clock: IReactorTime, seconds: float, slices: SharedSlices | None = None) -> None:
        self._slices = slices or SharedSlices(clock)
        self._pool = pool
        self._clock = clock
        self._seconds = seconds
        self._dimensions = DimensionCaches(pool)
        self._weeks = StoredWeeksReader(self._query, clock)
        self._page_rows = PageRows(self._query, self._weeks, spread=lambda: pool.spread)
        self._lives = LifeQueries(self._query, self._dimensions)
        self.activity = ActivityReader(self._query)

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """See ``IStore.samples``."""
        return await self._without_archive(
            filter, limit, order, lambda within: self._samples(within, limit, order, after), len
        )

    async def _samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order], after: Marker | None
    ) -> Sequence[StoredSample]:
        if order and after:
            raise RequestError("only a page in the order newest first can be continued after a marker")
        await self._wait_for_writers(filter)
        rows = await self._page_rows.rows(filter, limit, order, after)
        samples = await self._complete(rows)
        if len(samples) < len(rows):
            # Samples that expired between two statements are not found again. Others with broken references are left out.
            samples = await self._complete(await self._page_rows.rows(filter, limit, order, after))
        return samples

    async def sample_page(
        self,
        filter: SampleFilter,
        limit: int,
        order: Sequence[Order],
        after: Marker | None,
        known: KnownDimensions,
    ) -> SamplePage:
        """See ``ISamplePages``."""
        return await self._without_archive(
            filter,
            limit,
            order,
            lambda within: self._sample_page(within, limit, order, after, known),
            lambda page: len(page.rows),
        )

    async def _sample_page(
        self,
        filter: SampleFilter,
        limit: int,
        order: Sequence[Order],
        after: Marker | None,
        known: KnownDimensions,
    ) -> SamplePage:
        if order and after:
            raise RequestError("only a page in the order newest first can be continued after a marker")
        await self._wait_for_writers(filter)
        rows = await self._page_rows.rows(filter, limit, order, after, as_values)
        page = await self._page(rows, known)
        if len(page.rows) < len(rows):
            page = await self._page(await self._page_rows.rows(filter, limit, order, after, as_values), known)
        return page

    async def _without_archive(
        self,
        filter: SampleFilter,
        limit: int,
        order: Sequence[Order],
        read: Callable[[SampleFilter], Awaitable[Found]],
        size: Callable[[Found], int],
    ) -> Found:
        """Return what ``read`` finds of ``filter``: at most ``limit`` samples, as ``size`` counts them.

        Newest first, a page that is full of samples that are newer than those of an archive server does without that server.
        """
        try:
            return await read(filter)
        except ArchiveUnavailable as away:
            if order or away.end is None or (filter.start is not None and filter.start >= away.end):
                raise
            newer = replace(filter, start=away.end, after_start=False)
            found = await self._without_archive(newer, limit, order, read, size)
            if size(found) < limit:
                raise
            return found

    async def _page(self, rows: list[tuple[Any, ...]], known: KnownDimensions) -> SamplePage:
        with self._request_errors():
            return await sample_page(rows, self._dimensions, known, self._own_slices())

    async def _complete(self, rows: Sequence[tuple[Any, ...]]) -> list[StoredSample]:
        with self._request_errors():
            return await stored_samples(rows, self._dimensions, self._own_slices())

    def _own_slices(self) -> OwnedSlices:
        """Return slices that the query shares with no other: all queries convert their rows in rotation."""
        return self._slices.of(object())

    async def sample(self, message_id: str, filter: SampleFilter) -> StoredSample | None:
        """See ``IStore.sample``."""
        if filter.equals.get("message_id", message_id) != message_id:
            return None
        found = await self.samples(replace(filter, equals={**filter.equals, "message_id": message_id}), 1)
        return found[0] if found else None

    async def proof(self, message_id: str, filter: SampleFilter) -> StoredProof | None:
        """See ``IStore.proof``."""
        conditions = split_filter(replace(filter, equals={**filter.equals, "message_id": message_id}))
        rows = await self._query(samples_query(conditions, 1, (), None))
        with self._request_errors():
            if not rows:
                return None
            row = SampleRow(*rows[0])
            at = Sql("%s::timestamptz", (row.timestamp,))
            found = samples_with_ids(ROW_COLUMNS, TimeBounds(at, at), Sql("ARRAY[%s::uuid]", (row.message_id,)))
            return await self._proof(found, Sql("s.timestamp = %s", (row.timestamp,)))

    async def voided_proof(self, message_id: str) -> StoredProof | None:
        """See ``IStore.voided_proof``."""
        with self._request_errors():
            return await self._proof(VOIDED_ROWS, Sql(NEWEST_VOIDED, (uuid_of(message_id),) * 2))

    async def _proof(self, rows: Sql, condition: Sql) -> StoredProof | None:
        statement = rows_statement(rows, condition, 1)
        found = await self._pool.rows(statement.text, statement.parameters)
        stored = stored_row(found[0]) if found else None
        if stored is None or stored.fields is None:
            return None
        batches = await batches_with_rows(self._pool.rows, [stored.batch_id]) if stored.batch_id else {}
        batch = batches[stored.batch_id].batch if batches else None
        return StoredProof(
            message=stored.fields,
            key_id=stored.key_id,
            scheme=stored.scheme,
            batch=batch,
            position=stored.batch_position,
            voided=stored.audit_seq is not None,
        )

    async def names_of_others(
        self, project_id: str, meters: Collection[str], resources: Collection[str]
    ) -> tuple[Collection[str], Collection[str]]:
        """See ``IStore.names_of_others``."""
        [row] = await self._query(names_of_others_query(project_id, meters, resources))
        return NamesOfOthers(*row)

    async def meters(self, filter: SampleFilter, limit: int, unique: bool) -> Sequence[StoredMeter]:
        """See ``IStore.meters``."""
        conditions = split_filter(filter)
        candidates = candidates_of(conditions, limit, unique=unique)
        await self._wait_for_writers(filter)
        rows = await self._meter_rows(conditions, limit, candidates, unique=unique)
        all_looked_up = candidates is None or bool(rows and rows[0][-1] < candidates)
        if len(rows) < limit and not all_looked_up:
            # Some candidates have no samples any more; others after them may have.
            rows = await self._meter_rows(conditions, limit, None, unique=unique)
        meters: list[StoredMeter] = []
        width = 3 if unique else len(StoredMeterRow._fields)
        async for batch in self._own_slices().batches(rows, CONVERTED_ROWS):
            meters += [StoredMeter(**StoredMeterRow(*row[:width])._asdict()) for row in batch]
        return meters

    async def _meter_rows(
        self, conditions: FilterConditions, limit: int, candidates: int | None, *, unique: bool
    ) -> list[tuple[Any, ...]]:
        recent, decided = self._recent(), 3 if unique else len(StoredMeterRow._fields)
        if weeks := await self._end_weeks(conditions):
            statement = meters_query(conditions, limit, recent, unique=unique, candidates=candidates, weeks=weeks)
            rows = await self._query(statement)
            if all(row[decided] for row in rows):
                return rows
        return await self._query(meters_query(conditions, limit, recent, unique=unique, candidates=candidates))

    async def _end_weeks(self, conditions: FilterConditions) -> EndWeeks | None:
        """Return the weeks that a list is asked of first; ``None`` if it is asked of all at once."""
        if self._pool.spread or not conditions.of_all_samples:
            return None
        return (await self._weeks.read()).ends(self._weeks.now())

    def _recent(self) -> datetime:
        """Return the time since which most series are expected to have samples."""
        return self._weeks.now() - RECENT

    async def resources(self, filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """See ``IStore.resources``."""
        conditions, recent = split_filter(filter), self._recent()
        await self._wait_for_writers(filter)
        rows: list[tuple[Any, ...]] = []
        if weeks := await self._end_weeks(conditions):
            rows = await self._query(resources_query(conditions, limit, recent, weeks))
        if not rows or not all(row[-1] for row in rows):
            rows = await self._query(resources_query(conditions, limit, recent))
        resources: list[StoredResource] = []
        async for batch in self._own_slices().batches(rows, 1):  # their metadata can be long
            resources += [_stored_resource(ResourceRow(*row[:-1])) for row in batch]
        return resources

    async def statistics(self, query: StatisticsQuery) -> Sequence[Statistics]:
        """See ``IStore.statistics``."""
        statement = statistics_statement(query)
        await self._wait_for_writers(query.filter)
        rows = await self._statistics_in_weeks(query)
        if rows is None:
            rows = await self._query(statement)
        statistics: list[Statistics] = []
        async for batch in self._own_slices().consume(rows, CONVERTED_ROWS):
            statistics += statistics_rows(query, batch)
        return statistics

    async def _statistics_in_weeks(self, query: StatisticsQuery) -> list[tuple[Any, ...]] | None:
        """Return the rows of ``query`` if few weeks before its start suffice for its steps; ``None`` if all must be asked."""
        if self._pool.spread or query.filter.start is None or not looks_before(query):
            return None
        weeks = (await self._weeks.read()).before(query.filter.start, self._weeks.now())
        if weeks is None:
            return None
        rows = await self._query(statistics_statement(query, weeks))
        return rows if all(row[-1] for row in rows) else None

    async def life_resources(self, filter: SampleFilter, meters: Sequence[str], limit: int) -> Sequence[str]:
        """See ``ILifeStore.life_resources``."""
        return await self._lives.resources(filter, meters, limit)

    async def life_runs(
        self, resources: Sequence[str], meters: Sequence[str], as_of: datetime | None
    ) -> Sequence[SampleRun]:
        """See ``ILifeStore.life_runs``."""
        await self._wait_for_writers(SampleFilter(as_of=as_of))
        with self._request_errors():
            return await self._lives.runs(resources, meters, as_of, self._own_slices())

    async def life_reports(
        self, resources: Sequence[str], pollsters: Sequence[str], as_of: datetime | None
    ) -> Sequence[ListedTime]:
        """See ``ILifeStore.life_reports``."""
        return await self._lives.reports(resources, pollsters, as_of)

    async def audit_entries(self, filter: AuditFilter, limit: int, before: int | None) -> Sequence[AuditEntry]:
        """See ``IStore.audit_entries``."""
        return [entry_of(row) for row in await self._query(entries_statement(filter, limit, before))]

    async def _wait_for_writers(self, filter: SampleFilter) -> None:
        """Return once all samples recorded until ``filter.as_of`` are committed."""
        if filter.as_of is not None:
            with self._request_errors():
                await wait_for_writers_before(self._pool, self._clock, filter.as_of)

    async def _query(self, statement: Sql) -> list[tuple[Any, ...]]:
        with self._request_errors():
            return await self._pool.rows(statement.text, statement.parameters)

    @contextmanager
    def _request_errors(self) -> Iterator[None]:
        """Translate PostgreSQL's rejections and timeouts into :class:`RequestError`."""
        try:
            yield
        except TimedOut as error:
            raise QueryTimeout(
                f"the query took longer than {self._seconds:g} s: narrow its time range or select fewer resources"
            ) from error
        except Rejected as error:
            # The message of PostgreSQL can quote a value of any row that the statement has read, or name a table.
            raise RequestError(UNEXECUTABLE, cause=str(error)) from error


def _stored_resource(row: ResourceRow) -> StoredResource:
    return StoredResource(
        resource_id=row.resource_id,
        user_id=row.user_id,
        project_id=row.project_id,
        source=row.source,
        first_sample=row.first_sample,
        last_sample=row.last_sample,
        metadata=msgspec.json.decode(row.metadata),
        meters=tuple(row.meters),
    )
