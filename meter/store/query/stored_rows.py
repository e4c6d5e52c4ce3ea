"""Stored rows with everything that they refer to, as they are: also where what they refer to is missing or was altered.

Unlike :mod:`meter.store.query.runner`, which leaves such rows out, this is for proofs and for verification.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from meter.counter_runs import interval_of
from meter.counter_runs import run_of
from meter.message import MeteringMessage
from meter.sample import utc_text
from meter.signing_keys import SignatureScheme
from meter.store.packing.packed_rows import ROW_ID
from meter.store.packing.packed_rows import SAMPLE_COLUMNS
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.conditions import TRUE
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.sample_rows import samples_of_batches
from meter.store.write.record import Record
from meter.store.write.record import Series
from meter.store.write.record import fields_of
from meter.store.write.record import uuid_of
from meter.store.write.record import wire_format_of
from meter.stored_batch import StoredBatch
from meter.stored_batch import UnstoredEntry

Rows = Callable[[str, Sequence[Any]], Awaitable[Sequence[tuple[Any, ...]]]]
"""Runs a statement with parameters and returns its rows."""


def readable(column: str) -> str:
    """Return the SQL of a time that Python can represent: the nearest one to that of ``column``.

    PostgreSQL has earlier and later ones.
    """
    first, last = "timestamptz '0001-01-01 00:00:00+00'", "timestamptz '9999-12-31 23:59:59.999999+00'"
    return f"least(greatest({column}, {first}), {last})"


ROWS = """
SELECT m.name, m.type, m.unit, r.name, u.name, p.name, o.name, s.run_kind, run.name, s.polling_interval, d.text, f.text, s.message_id::text,
    {timestamp}, s.volume, encode(s.signature, 'hex'), s.verbatim_json, s.batch_id, s.batch_position,
    {audit_seq}, s.timestamp::text, s.row_id::text, s.metadata_id
FROM (
    SELECT s.*, x.meter_id, x.resource_id, x.user_id, x.project_id, x.source_id, x.run_kind, x.run_id, x.polling_interval
    FROM {rows} LEFT JOIN series x ON x.id = s.series_id
    WHERE {conditions}
    ORDER BY s.timestamp, s.message_id, s.row_id LIMIT {limit}
) s
LEFT JOIN meter m ON m.id = s.meter_id
LEFT JOIN resource r ON r.id = s.resource_id
LEFT JOIN "user" u ON u.id = s.user_id
LEFT JOIN project p ON p.id = s.project_id
LEFT JOIN source o ON o.id = s.source_id
LEFT JOIN run ON run.id = s.run_id
LEFT JOIN LATERAL (SELECT d.text FROM metadata d WHERE d.id = s.metadata_id OFFSET 0) d ON true
LEFT JOIN wire_format f ON f.id = s.wire_format_id
ORDER BY s.timestamp, s.message_id, s.row_id
"""

AFTER_ROW = "s.timestamp >= %s AND (s.timestamp, s.message_id, s.row_id) > (%s, %s, %s)"
"""The condition of the rows that come after one in this order; for :attr:`StoredRow.after`.

Rows with the same timestamp and message id, which exist where a unique index is missing, are in the order of their places. The first condition is redundant, but the index on time can use it.
"""


VOIDED_ROWS = Sql("(SELECT s.*, s.ctid AS row_id FROM voided_sample s) s")
"""The FROM item of voided samples; :mod:`meter.store.query.sample_rows` has those of others."""

ROW_COLUMNS = (*SAMPLE_COLUMNS, ROW_ID)
"""What rows of samples need for :func:`rows_statement`."""


def rows_statement(rows: Sql, conditions: Sql, limit: int | None) -> Sql:
    """Return the statement for the rows ``s`` of the FROM item ``rows`` that meet ``conditions``, oldest first."""
    return filled(
        ROWS,
        rows=rows,
        conditions=conditions,
        limit="ALL" if limit is None else str(int(limit)),
        audit_seq="s.audit_seq" if rows is VOIDED_ROWS else "NULL::bigint",
        timestamp=readable("s.timestamp"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRow:
    """A row and its message. If no message can be restored, ``fields`` is ``None`` and ``damage`` says why.

    ``meter`` and ``resource_id`` come from the columns, and are ``None`` if missing. ``key_id`` is the id of the key that
    verified the message when it arrived, with the signature of ``scheme``; ``None`` if it was unsigned. ``batch_id`` is the
    store's id of its signed batch, 0 if it has none, and ``batch_position`` its position in the batch. ``audit_seq`` is the entry
    of the audit log under which the sample was voided, ``None`` if it is not voided. ``after`` are the parameters of
    :data:`AFTER_ROW` for the rows that come after this one; they have its timestamp as PostgreSQL has it.
    """

    message_id: str
    timestamp: datetime
    meter: str | None
    resource_id: str | None
    key_id: str | None
    scheme: SignatureScheme | None
    batch_id: int
    batch_position: int
    fields: Mapping[str, Any] | None
    damage: str | None
    record: Record | None
    audit_seq: int | None = None
    after: Sequence[str] = ()

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


BATCHES = f"""
SELECT b.id, b.uuid::text, {readable("b.first")}, {readable("b.last")}, b.key_id, b.mac, b.checks FROM signed_batch b WHERE b.id = ANY(%s)
"""

UNSTORED_ENTRIES = (
    "SELECT batch_id, position, digest, reason, mac FROM unstored_entry WHERE batch_id = ANY(%s) ORDER BY 1, 2"
)

OF_BATCHES = "s.batch_id = ANY(%s) AND s.timestamp BETWEEN %s AND %s"


@dataclass(frozen=True, slots=True)
class BatchRows:
    """A signed batch, and its rows in the order of ``batch.messages``."""

    batch: StoredBatch
    rows: Sequence[StoredRow]


async def batches_with_rows(rows: Rows, ids: Iterable[int], *, without_lost: bool = False) -> Mapping[int, BatchRows]:
    """Return the signed batches with these ids of the store, without those that are missing, and all their rows.

    ``without_lost``: the rows of weeks that are lost are left out, instead of an error.
    """
    wanted = sorted(ids)
    batches = {row[0]: row[1:] for row in await rows(BATCHES, [wanted])}
    if not batches:
        return {}
    first, last = min(batch[1] for batch in batches.values()), max(batch[2] for batch in batches.values())
    of_batch: dict[int, list[StoredRow]] = {id: [] for id in batches}
    bounds = TimeBounds(Sql("%s::timestamptz", (first,)), Sql("%s::timestamptz", (last,)))
    samples = samples_of_batches(ROW_COLUMNS, bounds, Sql("%s::bigint[]", (list(batches),)), without_lost=without_lost)
    voided = Sql(OF_BATCHES, (list(batches), first, last))
    for statement in (rows_statement(samples, TRUE, None), rows_statement(VOIDED_ROWS, voided, None)):
        for row in await rows(statement.text, statement.parameters):
            stored = stored_row(row)
            of_batch[stored.batch_id].append(stored)
    unstored: dict[int, list[UnstoredEntry]] = {id: [] for id in batches}
    for id, position, digest, reason, mac in await rows(UNSTORED_ENTRIES, [list(batches)]):
        unstored[id].append(UnstoredEntry(position, bytes(digest), reason, bytes(mac)))
    return {
        id: BatchRows(
            StoredBatch(
                id=uuid,
                key_id=key_id,
                first=utc_text(first),
                last=utc_text(last),
                mac=bytes(mac),
                checks=bytes(checks),
                messages=[(row.batch_position, row.fields) for row in of_batch[id]],
                unstored=unstored[id],
            ),
            of_batch[id],
        )
        for id, (uuid, first, last, key_id, mac, checks) in batches.items()
    }


def _run_columns(series: Series, message: MeteringMessage) -> dict[str, tuple[Any, Any]]:
    """Return run and interval, each in the columns and in the metadata of ``message``."""
    run, interval = run_of(message.type, message.metadata), interval_of(message.metadata)
    return {"run": ((series.run_kind, series.run), run), "interval": (series.interval, interval)}


def _canonical(text: str) -> str:
    """Return JSON as the installed msgspec writes it: another version may have written a number in another way."""
    return _encoded(msgspec.json.decode(text))


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def stored_row(row: Sequence[Any], differing_metadata: frozenset[int] = frozenset()) -> StoredRow:
    """Return a row of :data:`ROWS`. ``differing_metadata`` are the ids of metadata whose document differs from their text."""
    name, type_, unit, resource_id, user_id, project_id, source, run_kind, run, interval, *other_columns = row
    (
        metadata,
        wire_format_text,
        message_id,
        timestamp,
        volume,
        signature,
        verbatim_json,
        *place,
        audit_seq,
        exact_timestamp,
        row_id,
        metadata_id,
    ) = other_columns
    batch_id, batch_position = place
    fields, key_id, scheme, damage, record = None, None, None, None, None
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
            key_id, scheme = wire_format.key_id, wire_format.scheme
            series = Series(name, type_, unit, resource_id, user_id, project_id, source, run_kind, run, interval)
            record = Record(series, metadata, wire_format, message_id, timestamp, volume, signature, verbatim_json)
            fields = fields_of(record)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
            damage = f"no message can be restored from the row: {type(error).__name__}: {error}"
        if damage is None and metadata_id in differing_metadata:
            damage = "the metadata that queries read (jsonb) differ from the signed metadata"
    return StoredRow(
        message_id=message_id,
        timestamp=timestamp,
        meter=name,
        resource_id=resource_id,
        key_id=key_id,
        scheme=scheme,
        batch_id=batch_id,
        batch_position=batch_position,
        fields=fields,
        damage=damage,
        record=record,
        audit_seq=audit_seq,
        after=(exact_timestamp, exact_timestamp, message_id, row_id),
    )
