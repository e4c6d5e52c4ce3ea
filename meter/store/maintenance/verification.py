"""What is stored, row by row, for whoever checks that it is still what was signed.

Unlike :mod:`meter.store.query.runner` it leaves out no row because something that it refers to is gone, and it believes
nothing that stands in two places before it has compared them.
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

from meter.counter_runs import RunKind
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
"""Rows in memory at a time."""

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

_OTHERWISE = "SELECT id FROM metadata WHERE id = ANY(%s) AND document IS DISTINCT FROM text::jsonb"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRow:
    """A row, and the message that it tells: ``fields`` is ``None`` where it tells none, and ``damage`` says why.

    ``meter`` and ``resource_id`` are those of its columns, ``None`` where they are gone. ``key_id`` names the key that
    verified it when it came, ``None`` if it was not signed then.
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
        """Say which column holds something else than ``message``, which was read from ``fields``; ``None`` if none does.

        A message that is kept whole besides its columns may verify while the columns, which answer questions, lie.
        """
        if self.record is None:
            return self.damage
        series = self.record.series
        told = {
            "meter": (series.name, message.name),
            "type": (series.type, message.type),
            "unit": (series.unit, message.unit),
            "resource": (series.resource_id, message.resource_id),
            "user": (series.user_id, message.user_id),
            "project": (series.project_id, message.project_id),
            "source": (series.source, message.source),
            **_runs(series, message),
            "volume": (self.record.volume, float(message.volume)),
            "timestamp": (self.timestamp, message.timestamp),
            "message_id": (self.message_id, uuid_of(message.message_id)),
            "metadata": (_canonical(self.record.metadata), _encoded(message.metadata)),
        }
        different = [name for name, (column, said) in told.items() if column != said]
        return f"what was signed differs from the column {', '.join(different)}" if different else None


class Verification:
    """Reads the store at ``dsn`` over one connection of its own, oldest row first, a page at a time.

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
        """Connect, and see that the schema is the one that this Meter knows."""
        await self._connection.open()
        await Schema(migrations()).check(self._connection)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    async def rows(
        self, start: datetime | None, end: datetime | None, meter: str | None = None, page_rows: int = PAGE_ROWS
    ) -> AsyncIterator[StoredRow]:
        """Yield the rows of ``start <= timestamp < end``, of one meter or of all, in the order of their times."""
        after: tuple[datetime, str] | None = None
        while True:
            page = await self._page(start, end, meter, after, page_rows)
            otherwise = await self._documents_that_differ(page)
            for row in page:
                yield _stored_row(row, otherwise)
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
        asked: list[tuple[str, Sequence[Any]]] = [(IN_ORDER_OF_TIME, [])]
        if start is not None:
            asked.append(("s.timestamp >= %s", [start]))
        if end is not None:
            asked.append(("s.timestamp < %s", [end]))
        if meter is not None:
            asked.append(("x.meter_id IN (SELECT id FROM meter WHERE name = %s)", [meter]))
        if after is not None:
            # The first condition alone would do the work of both for an index.
            asked.append(("s.timestamp >= %s AND (s.timestamp, s.message_id) > (%s, %s::uuid)", [after[0], *after]))
        conditions = " AND ".join(text for text, _ in asked)
        parameters = [value for _, values in asked for value in values]
        return await self._connection.rows(_PAGE.format(conditions=conditions), [*parameters, limit])

    async def _documents_that_differ(self, page: Sequence[tuple[Any, ...]]) -> frozenset[int]:
        """Return the ids of metadata whose searchable form says something else than their text."""
        ids = sorted({row[17] for row in page})
        try:
            return frozenset(row[0] for row in await self._connection.rows(_OTHERWISE, [ids]))
        except Rejected:
            found = set()
            for each in ids:
                try:
                    found |= {row[0] for row in await self._connection.rows(_OTHERWISE, [[each]])}
                except Rejected:
                    found.add(each)  # its text is no JSON
            return frozenset(found)


def _runs(series: Series, message: MeteringMessage) -> dict[str, tuple[Any, Any]]:
    """Return what the columns and the metadata say of run and interval. What an older version stored has neither."""
    if (series.run_kind, series.run, series.interval) == (RunKind.NONE, None, 0):
        return {}
    run, interval = run_of(message.type, message.metadata), interval_of(message.metadata)
    return {"run": ((series.run_kind, series.run), run), "interval": (series.interval, interval)}


def _canonical(text: str) -> str:
    """Return JSON as it is written today: an older library may have written a number otherwise."""
    return _encoded(msgspec.json.decode(text))


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _stored_row(row: Sequence[Any], otherwise: frozenset[int]) -> StoredRow:
    name, type_, unit, resource_id, user_id, project_id, source, *verbatim_json = row
    run_kind, run, interval, metadata, wire_format, message_id, timestamp, volume, signature, left, metadata_id = (
        verbatim_json
    )
    fields, key_id, damage, record = None, None, None, None
    missing = [
        label
        for label, value in {
            "meter": name,
            "resource": resource_id,
            "metadata": metadata,
            "wire_format": wire_format,
        }.items()
        if value is None
    ]
    if missing:
        damage = f"the row refers to a {', '.join(missing)} that is not there"
    else:
        try:
            written = wire_format_of(wire_format)
            key_id = written.key_id
            series = Series(name, type_, unit, resource_id, user_id, project_id, source, run_kind, run, interval)
            record = Record(series, metadata, written, message_id, timestamp, volume, signature, left)
            fields = fields_of(record)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
            damage = f"the row tells no message: {type(error).__name__}: {error}"
        if damage is None and metadata_id in otherwise:
            damage = "the metadata that is searched differs from the metadata that was signed"
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
