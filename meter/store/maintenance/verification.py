"""Reads stored rows for verification: whether they still are what was signed.

Unlike :mod:`meter.store.query.runner` it leaves out no row whose series, metadata or wire format is missing, and it compares
everything that is stored in two places.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from meter.counter_runs import interval_of
from meter.counter_runs import run_of
from meter.message import MeteringMessage
from meter.store.migrations import Schema
from meter.store.migrations import migrations
from meter.store.postgres.connection import Connection
from meter.store.postgres.connection import Rejected
from meter.store.postgres.dsn import connection_parameters
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.write.record import Record
from meter.store.write.record import Series
from meter.store.write.record import fields_of
from meter.store.write.record import uuid_of
from meter.store.write.record import wire_format_of

PAGE_ROWS = 1000
"""Rows that are read, and in memory, at a time."""

_PAGE = """
SELECT m.name, m.type, m.unit, r.name, u.name, p.name, o.name, s.run_kind, run.name, s.polling_interval, d.text, f.text, s.message_id::text, s.timestamp,
    s.volume, encode(s.signature, 'hex'), s.verbatim_json, s.metadata_id
FROM (
    SELECT s.*, x.meter_id, x.resource_id, x.user_id, x.project_id, x.source_id, x.run_kind, x.run_id, x.polling_interval
    FROM sample s LEFT JOIN series x ON x.id = s.series_id
    WHERE {conditions}
    ORDER BY s.timestamp, s.message_id LIMIT %s
) s
LEFT JOIN meter m ON m.id = s.meter_id
LEFT JOIN resource r ON r.id = s.resource_id
LEFT JOIN "user" u ON u.id = s.user_id
LEFT JOIN project p ON p.id = s.project_id
LEFT JOIN source o ON o.id = s.source_id
LEFT JOIN run ON run.id = s.run_id
LEFT JOIN metadata d ON d.id = s.metadata_id
LEFT JOIN wire_format f ON f.id = s.wire_format_id
ORDER BY s.timestamp, s.message_id
"""

_METADATA_THAT_DIFFER = "SELECT id FROM metadata WHERE id = ANY(%s) AND document IS DISTINCT FROM text::jsonb"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRow:
    """A row and its message. If no message can be restored, ``fields`` is ``None`` and ``damage`` says why.

    ``meter`` and ``resource_id`` come from the columns, and are ``None`` if missing. ``key_id`` is the id of the key that
    verified the message when it arrived, ``None`` if it was unsigned.
    """

    message_id: str
    timestamp: datetime
    meter: str | None
    resource_id: str | None
    key_id: str | None
    fields: Mapping[str, Any] | None
    damage: str | None
    record: Record | None

    def difference(self, message: MeteringMessage) -> str | None:
        """Return which columns differ from ``message``, which was read from ``fields``; ``None`` if none does.

        A message that is stored whole may verify although the columns, which queries read, were changed.
        """
        if self.record is None:
            return self.damage
        series = self.record.series
        pairs = {
            "meter": (series.name, message.name),
            "type": (series.type, message.type),
            "unit": (series.unit, message.unit),
            "resource": (series.resource_id, message.resource_id),
            "user": (series.user_id, message.user_id),
            "project": (series.project_id, message.project_id),
            "source": (series.source, message.source),
            **_run_columns(series, message),
            "volume": (self.record.volume, float(message.volume)),
            "timestamp": (self.timestamp, message.timestamp),
            "message_id": (self.message_id, uuid_of(message.message_id)),
            "metadata": (_canonical(self.record.metadata), _encoded(message.metadata)),
        }
        different = [name for name, (column, signed) in pairs.items() if column != signed]
        return f"the signed message differs from the column {', '.join(different)}" if different else None


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

    async def rows(
        self, start: datetime | None, end: datetime | None, meter: str | None = None, page_rows: int = PAGE_ROWS
    ) -> AsyncIterator[StoredRow]:
        """Yield the rows with ``start <= timestamp < end``, of one meter or of all, in the order of their timestamps."""
        after: tuple[datetime, str] | None = None
        while True:
            page = await self._page(start, end, meter, after, page_rows)
            differing = await self._documents_that_differ(page)
            for row in page:
                yield _stored_row(row, differing)
            if len(page) < page_rows:
                return
            after = (page[-1][13], page[-1][12])

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
        return await self._connection.rows(_PAGE.format(conditions=conditions), [*parameters, limit])

    async def _documents_that_differ(self, page: Sequence[tuple[Any, ...]]) -> frozenset[int]:
        """Return the ids of metadata whose ``document`` (jsonb) differs from their text."""
        ids = sorted({row[17] for row in page})
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


def _run_columns(series: Series, message: MeteringMessage) -> dict[str, tuple[Any, Any]]:
    """Return run and interval, each in the columns and in the metadata of ``message``."""
    run, interval = run_of(message.type, message.metadata), interval_of(message.metadata)
    return {"run": ((series.run_kind, series.run), run), "interval": (series.interval, interval)}


def _canonical(text: str) -> str:
    """Return JSON as the installed msgspec writes it: another version may have written a number in another way."""
    return _encoded(msgspec.json.decode(text))


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _stored_row(row: Sequence[Any], differing_metadata: frozenset[int]) -> StoredRow:
    name, type_, unit, resource_id, user_id, project_id, source, run_kind, run, interval, *other_columns = row
    metadata, wire_format_text, message_id, timestamp, volume, signature, verbatim_json, metadata_id = other_columns
    fields, key_id, damage, record = None, None, None, None
    missing = [
        label
        for label, value in {
            "meter": name,
            "resource": resource_id,
            "metadata": metadata,
            "wire_format": wire_format_text,
        }.items()
        if value is None
    ]
    if missing:
        damage = f"the row refers to a missing row of {', '.join(missing)}"
    else:
        try:
            wire_format = wire_format_of(wire_format_text)
            key_id = wire_format.key_id
            series = Series(name, type_, unit, resource_id, user_id, project_id, source, run_kind, run, interval)
            record = Record(series, metadata, wire_format, message_id, timestamp, volume, signature, verbatim_json)
            fields = fields_of(record)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
            damage = f"no message can be restored from the row: {type(error).__name__}: {error}"
        if damage is None and metadata_id in differing_metadata:
            damage = "the metadata that queries read (jsonb) differ from the signed metadata"
    return StoredRow(
        message_id=message_id,
        timestamp=timestamp,
        meter=name,
        resource_id=resource_id,
        key_id=key_id,
        fields=fields,
        damage=damage,
        record=record,
    )
