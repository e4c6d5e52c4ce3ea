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
from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.store.migrations import Schema
from meter.store.migrations import migrations
from meter.store.postgres.connection import Connection
from meter.store.postgres.connection import Rejected
from meter.store.postgres.dsn import connection_parameters
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.query.stored_rows import ROWS
from meter.store.query.stored_rows import BatchRows
from meter.store.query.stored_rows import StoredRow
from meter.store.query.stored_rows import batches_with_rows
from meter.store.query.stored_rows import stored_row

PAGE_ROWS = 1000
"""Rows that are read, and in memory, at a time."""

RETENTION_CUTOFFS = "SELECT meter, before FROM retention_cutoff"

_METADATA_THAT_DIFFER = "SELECT id FROM metadata WHERE id = ANY(%s) AND document IS DISTINCT FROM text::jsonb"


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

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    async def pages(
        self, start: datetime | None, end: datetime | None, meter: str | None = None, page_rows: int = PAGE_ROWS
    ) -> AsyncIterator[Sequence[StoredRow]]:
        """Yield the rows with ``start <= timestamp < end``, of one meter or of all, in the order of their timestamps."""
        after: tuple[datetime, str] | None = None
        while True:
            page = await self._page(start, end, meter, after, page_rows)
            differing = await self._documents_that_differ(page)
            yield [stored_row(row, differing) for row in page]
            if len(page) < page_rows:
                return
            after = (page[-1][13], page[-1][12])

    async def batches(self, ids: Iterable[int]) -> Mapping[int, BatchRows]:
        """Return the signed batches with these ids of the store and all their rows, whatever their timestamps."""
        return await batches_with_rows(self._connection.rows, ids)

    async def retention_cutoffs(self) -> Mapping[str, datetime]:
        """Return the times before which samples have been deleted, by meter; that of the meter "" applies to all."""
        return dict(await self._connection.rows(RETENTION_CUTOFFS))

    async def _page(
        self,
        start: datetime | None,
        end: datetime | None,
        meter: str | None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[tuple[Any, ...]]:
        filters: list[tuple[str, Sequence[Any]]] = [(IN_ORDER_OF_TIME, [])]
        if start is not None:
            filters.append(("s.timestamp >= %s", [start]))
        if end is not None:
            filters.append(("s.timestamp < %s", [end]))
        if meter is not None:
            filters.append(("x.meter_id IN (SELECT id FROM meter WHERE name = %s)", [meter]))
        if after is not None:
            # The first condition is redundant, but the index on time can use it.
            filters.append(("s.timestamp >= %s AND (s.timestamp, s.message_id) > (%s, %s::uuid)", [after[0], *after]))
        conditions = " AND ".join(text for text, _ in filters)
        parameters = [value for _, values in filters for value in values]
        return await self._connection.rows(
            ROWS.format(table="sample", conditions=conditions, limit="%s"), [*parameters, limit]
        )

    async def _documents_that_differ(self, page: Sequence[tuple[Any, ...]]) -> frozenset[int]:
        """Return the ids of metadata whose ``document`` (jsonb) differs from their text."""
        ids = sorted({row[-1] for row in page})
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
