"""Reads stored rows for verification: whether they still are what was signed.

Unlike :mod:`meter.store.query.runner` it leaves out no row whose series, metadata or wire format is missing, and it compares
everything that is stored in two places.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from meter.sample_identity import WEEK
from meter.sample_identity import compared_range
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from meter.signing_keys import SigningKey
from meter.store.archive.archived_weeks import LostWeek
from meter.store.archive.archived_weeks import lost_weeks
from meter.store.audit.void_statements import VoidedSamplesCheck
from meter.store.migrations import Schema
from meter.store.migrations import migrations
from meter.store.packing.packed_check import packed_damage
from meter.store.postgres.connection import Connection
from meter.store.postgres.connection import Rejected
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import conjunction
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.sample_rows import samples_of_batches
from meter.store.query.samples_by_time import samples_by_time
from meter.store.query.stored_rows import AFTER_ROW
from meter.store.query.stored_rows import ROW_COLUMNS
from meter.store.query.stored_rows import VOIDED_ROWS
from meter.store.query.stored_rows import BatchRows
from meter.store.query.stored_rows import StoredRow
from meter.store.query.stored_rows import batches_with_rows
from meter.store.query.stored_rows import readable
from meter.store.query.stored_rows import rows_statement
from meter.store.query.stored_rows import stored_row
from meter.store.query.time_range import TimeRange

PAGE_ROWS = 1000
"""Rows that are read, and in memory, at a time."""

PAGES_READ_AT_ONCE = 10
"""Pages that are read with one statement where samples are packed: it decompresses rows of all series."""

ANY_PACKED = "SELECT FROM packed_week LIMIT 1"

RETENTION_CUTOFFS = f"SELECT meter, {readable('before')} FROM retention_cutoff"

_METADATA_THAT_DIFFER = "SELECT id FROM metadata WHERE id = ANY(%s) AND document IS DISTINCT FROM text::jsonb"


# Two samples with one id: in a spread store no unique index refuses the second one, and no look-up finds a first one that is in doubt.
REPEATED_IDS = f"""
SELECT s.message_id::text, {readable("min(s.timestamp)")}
FROM spread_samples_with_ids(%s::uuid[], %s::timestamptz, %s::timestamptz, false) s
GROUP BY s.message_id HAVING min(s.timestamp) < max(s.timestamp)
"""

# All plain rows of the page's time are read once: no index finds a row by its batch.
WITHOUT_ROWS = """
SELECT unnest({ids})
EXCEPT SELECT s.batch_id FROM {samples}
EXCEPT SELECT s.batch_id FROM voided_sample s WHERE s.batch_id = ANY({ids}) AND s.timestamp BETWEEN {first} AND {last}
ORDER BY 1
"""

BATCH_TIMES = f"""
SELECT id, {readable("first")}, {readable("last")}, last::text FROM signed_batch WHERE {{conditions}} ORDER BY last, id LIMIT %s
"""

MAX_BATCH_SPAN = timedelta(days=1)
"""How long after the end of a range a batch may last that belongs to the range."""


class BatchTimes(NamedTuple):
    """The store's id of a signed batch, and its earliest and latest timestamp; ``exact_last`` is the latter as PostgreSQL has it."""

    id: int
    first: datetime
    last: datetime
    exact_last: str = ""


class Verification:
    """Reads the store at ``dsn`` over a connection of its own, the oldest row first, a page at a time.

    Methods raise :class:`~meter.interfaces.Unavailable` when the database cannot be reached or is too busy.
    """

    def __init__(
        self,
        reactor: Any,
        dsn: str,
        *,
        clock: IReactorTime,
        application_name: str = "meter-verify",
        statement_timeout_seconds: float = 30.0,
        silence_seconds: float = 10.0,
    ) -> None:
        parameters = connection_parameters(
            dsn,
            statement_timeout_seconds=statement_timeout_seconds,
            application_name=application_name,
            read_only=True,
        )
        self._connection = Connection(
            reactor, clock, parameters, answer_seconds=statement_timeout_seconds + silence_seconds
        )

    async def open(self) -> None:
        """Connect, and check that the database has the schema of this Meter."""
        await self._connection.open()
        await Schema(migrations()).check(self._connection)

    async def interrupt(self) -> None:
        """Disconnect, and keep the server from going on with the statement in progress."""
        await self._connection.interrupt()

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    async def pages(
        self, start: datetime | None, end: datetime | None, meter: str | None = None, page_rows: int = PAGE_ROWS
    ) -> AsyncIterator[Sequence[StoredRow]]:
        """Yield the rows with ``start <= timestamp < end``, of one meter or of all, in the order of their timestamps."""
        after: StoredRow | None = None
        pages = PAGES_READ_AT_ONCE if await self._connection.rows(ANY_PACKED) else 1
        while True:
            rows = await self._rows("sample", start, end, meter, after, pages * page_rows)
            for n in range(0, max(1, len(rows)), page_rows):
                page = await self._stored(rows[n : n + page_rows])
                yield page
            if len(rows) < pages * page_rows:
                return
            after = page[-1]

    async def lost_weeks(self, start: datetime | None, end: datetime | None) -> Sequence[LostWeek]:
        """Return the weeks whose samples are lost and that have times from ``start`` until before ``end``."""
        return [
            each
            for each in await lost_weeks(self._connection)
            if (start is None or start_of_week(each.week) + WEEK > start)
            and (end is None or start_of_week(each.week) < end)
        ]

    async def times_of_repeated_ids(self, page: Sequence[StoredRow]) -> Mapping[str, datetime]:
        """Return the earliest time of each id of ``page`` that samples of different times have, in the weeks that are compared.

        Nobody can store them on one server: there is nothing to look up.
        """
        if not page or not self._connection.spread:
            return {}
        first, _ = compared_range(week_of(page[0].timestamp))
        _, last = compared_range(week_of(page[-1].timestamp))
        ids = sorted({row.message_id for row in page if row.message_id})
        return dict(await self._connection.rows(REPEATED_IDS, [ids, first, last]))

    async def packed_damage(
        self, start: datetime | None, end: datetime | None, meter: str | None = None
    ) -> AsyncIterator[Sequence[str]]:
        """Yield what is wrong with packed weeks of the range as such: rows that hide, repeat or lose samples, and ids that are not found."""
        async for damage in packed_damage(self._connection, start, end, meter):
            yield [each.text for each in damage]

    async def voided_page(
        self,
        start: datetime | None,
        end: datetime | None,
        meter: str | None,
        after: StoredRow | None,
        page_rows: int = PAGE_ROWS,
    ) -> Sequence[StoredRow]:
        """Return the first voided rows of the range that come after ``after``."""
        return await self._page("voided_sample", start, end, meter, after, page_rows)

    async def batch_page(
        self,
        start: datetime | None,
        end: datetime | None,
        after: BatchTimes | None,
        before: datetime | None,
        limit: int = PAGE_ROWS,
    ) -> Sequence[BatchTimes]:
        """Return signed batches of the range in the order of their last timestamps, those that come after ``after``.

        They are those with messages from ``start <= timestamp < end``, as far as the times of a batch tell, and whose last
        timestamp is below ``before``. Where ``end`` is given, batches that last more than :data:`MAX_BATCH_SPAN` after it are
        left out: otherwise all later batches would be read. So are those with times in a week that is lost.
        """
        filters: list[tuple[str, Sequence[Any]]] = [("true", [])]
        for lost in await lost_weeks(self._connection):
            begin = start_of_week(lost.week)
            filters.append(("NOT (last >= %s AND first < %s)", [begin, begin + WEEK]))
        if start is not None:
            filters.append(("last >= %s", [start]))
        if end is not None:
            filters.append(("first < %s AND last < %s", [end, end + MAX_BATCH_SPAN]))
        if before is not None:
            filters.append(("last < %s", [before]))
        if after is not None:
            filters.append(("last >= %s AND (last, id) > (%s, %s)", [after.exact_last, after.exact_last, after.id]))
        conditions = " AND ".join(text for text, _ in filters)
        parameters = [value for _, values in filters for value in values]
        return [
            BatchTimes(*row)
            for row in await self._connection.rows(BATCH_TIMES.format(conditions=conditions), [*parameters, limit])
        ]

    async def without_rows(self, batches: Sequence[BatchTimes]) -> Sequence[int]:
        """Return the ids of those of ``batches`` that no sample belongs to, voided or not."""
        if not batches:
            return []
        ids = Sql("%s::bigint[]", ([each.id for each in batches],))
        first = Sql("%s::timestamptz", (min(each.first for each in batches),))
        last = Sql("%s::timestamptz", (max(each.last for each in batches),))
        samples = samples_of_batches(("batch_id",), TimeBounds(first, last), ids)
        statement = filled(WITHOUT_ROWS, ids=ids, samples=samples, first=first, last=last)
        return [id for [id] in await self._connection.rows(statement.text, statement.parameters)]

    async def check_of_voided_samples(self, keys: Sequence[SigningKey]) -> VoidedSamplesCheck:
        """Compare the voided samples with the audit log, as far as ``keys`` verify it."""
        check = VoidedSamplesCheck(self._connection.rows, keys)
        await self._connection.count("BEGIN ISOLATION LEVEL REPEATABLE READ")
        try:
            await check.run()
        finally:
            if not self._connection.closed:
                await self._connection.count("ROLLBACK")
        return check

    async def batches(self, ids: Iterable[int]) -> Mapping[int, BatchRows]:
        """Return the signed batches with these ids of the store and all their rows, whatever their timestamps, but for those that are lost."""
        return await batches_with_rows(self._connection.rows, ids, without_lost=True)

    async def retention_cutoffs(self) -> Mapping[str, datetime]:
        """Return the times before which samples have been deleted, by meter; that of the meter "" applies to all."""
        return dict(await self._connection.rows(RETENTION_CUTOFFS))

    async def _page(
        self,
        table: str,
        start: datetime | None,
        end: datetime | None,
        meter: str | None,
        after: StoredRow | None,
        limit: int,
    ) -> Sequence[StoredRow]:
        return await self._stored(await self._rows(table, start, end, meter, after, limit))

    async def _rows(
        self,
        table: str,
        start: datetime | None,
        end: datetime | None,
        meter: str | None,
        after: StoredRow | None,
        limit: int,
    ) -> Sequence[tuple[Any, ...]]:
        range = TimeRange(start, end, after_start=False, through_end=False)
        condition, bounds, series = range.contains_sample(), range.bounds(), TRUE
        if meter is not None:
            of_meter = Sql("x.meter_id IN (SELECT id FROM meter WHERE name = %s)", (meter,))
            condition = conjunction(condition, of_meter)
            series = filled("p.series_id = ANY(ARRAY(SELECT x.id FROM series x WHERE {of_meter}))", of_meter=of_meter)
        if after is not None:
            condition = conjunction(condition, Sql(AFTER_ROW, tuple(after.after)))
            bounds = bounds.within(Sql("%s::timestamptz", tuple(after.after[:1])), NO_END)
        if table == "voided_sample":
            statement = rows_statement(VOIDED_ROWS, condition, limit)
        else:
            joins = "LEFT JOIN series x ON x.id = s.series_id"
            samples = samples_by_time(
                ROW_COLUMNS, bounds, condition=condition, limit=limit, series=series, joins=joins, oldest=True
            )
            statement = rows_statement(samples, TRUE, limit)
        return await self._connection.rows(statement.text, statement.parameters)

    async def _stored(self, page: Sequence[tuple[Any, ...]]) -> Sequence[StoredRow]:
        differing = await self._documents_that_differ(page)
        return [stored_row(row, differing) for row in page]

    async def _documents_that_differ(self, page: Sequence[tuple[Any, ...]]) -> frozenset[int]:
        """Return the ids of metadata whose ``document`` (jsonb) differs from their text."""
        ids = sorted({row[-1] for row in page if row[-1] is not None})  # a damaged packed row has anything
        try:
            return frozenset(row[0] for row in await self._connection.rows(_METADATA_THAT_DIFFER, [ids]))
        except Rejected:
            found = set()
            for each in ids:
                try:
                    found |= {row[0] for row in await self._connection.rows(_METADATA_THAT_DIFFER, [[each]])}
                except Rejected:
                    found.add(each)  # its text is not JSON
            return frozenset(found)
