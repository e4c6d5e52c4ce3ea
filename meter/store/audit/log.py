"""Appends to the audit log and reads it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from typing import Any

import msgspec

from meter.query import AuditEntry
from meter.query import AuditFilter
from meter.signing_keys import SigningKey
from meter.store.audit.chain import BEGINNING
from meter.store.audit.chain import canonical_details
from meter.store.audit.chain import entry_hash
from meter.store.audit.chain import storable_text
from meter.store.postgres.pool import Session
from meter.store.postgres.sql import Sql

LOCK = 0x6D65746572_05
"""Key of the advisory lock with which one transaction at a time appends, so that no two entries follow the same one."""

MAX_REASON = 2000
"""Maximum length of a reason, in characters."""

ENTRY_COLUMNS = "seq, at, who, action, reason, details, key_id, encode(previous, 'hex'), encode(hash, 'hex')"

# clock_timestamp() and not now(), so that times are in the order of the numbers.
LOCK_AND_READ_NEWEST = f"""
SELECT pg_advisory_xact_lock({LOCK});
SELECT clock_timestamp(), coalesce(max(seq), 0),
    coalesce((SELECT encode(hash, 'hex') FROM audit_entry WHERE seq > 0 ORDER BY seq DESC LIMIT 1), '{BEGINNING}')
FROM audit_entry WHERE seq > 0
"""

INSERT_ENTRY = """
INSERT INTO audit_entry (seq, at, who, action, reason, details, key_id, previous, hash)
VALUES (%s, %s, %s, %s, %s, %s, %s, decode(%s, 'hex'), decode(%s, 'hex'))
"""

ENTRIES = f"""
SELECT {ENTRY_COLUMNS} FROM audit_entry
WHERE {{conditions}}
ORDER BY seq {{direction}} LIMIT %s
"""


def key_for_audit(keys: Sequence[SigningKey], now: datetime) -> SigningKey:
    """Return the signing key from which the key of a new entry is derived: the first that covers ``now``, else the first."""
    return next((key for key in keys if key.covers(now)), keys[0])


async def next_seq(session: Session) -> int:
    """Return the number of the entry that this transaction will append, and let no other one append until it ends."""
    [[_, newest, _]] = await session.rows(LOCK_AND_READ_NEWEST)
    return int(newest) + 1


async def append(
    session: Session,
    keys: Sequence[SigningKey],
    *,
    who: str,
    action: str,
    reason: str = "",
    details: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Append an entry in the transaction of ``session`` and return it.

    ``who`` is a user, ``action`` a word such as ``void`` or ``token.create``. ``details`` are JSON. ``keys`` are the accepted
    signing keys, at least one. ``ValueError`` if the reason is too long.
    """
    if len(reason) > MAX_REASON:
        raise ValueError(f"the reason must have at most {MAX_REASON} characters, not {len(reason)}")
    [[now, newest, previous]] = await session.rows(LOCK_AND_READ_NEWEST)
    key = key_for_audit(keys, now)
    unhashed = AuditEntry(
        seq=int(newest) + 1,
        at=now.astimezone(UTC),
        who=storable_text(who),
        action=action,
        reason=storable_text(reason),
        details=canonical_details(details or {}),
        key_id=key.id,
        previous=previous,
        hash="",
    )
    entry = msgspec.structs.replace(unhashed, hash=entry_hash(unhashed, key.secret))
    await session.count(
        INSERT_ENTRY,
        [
            entry.seq,
            entry.at,
            entry.who,
            entry.action,
            entry.reason,
            entry.details,
            entry.key_id,
            entry.previous,
            entry.hash,
        ],
    )
    return entry


def entries_statement(filter: AuditFilter, limit: int, before: int | None) -> Sql:
    """Return the statement for matching entries with a number below ``before``, newest first."""
    conditions: list[tuple[str, Any]] = [
        (text, value)
        for text, value in (
            ("action = %s", filter.action),
            ("who = %s", filter.who),
            ("at >= %s", filter.start),
            ("at < %s", filter.end),
            ("seq < %s", before),
        )
        if value is not None
    ]
    text = ENTRIES.format(conditions=" AND ".join(text for text, _ in conditions) or "true", direction="DESC")
    return Sql(text, (*(value for _, value in conditions), limit))


async def entries_after(session: Session, seq: int | None, limit: int) -> list[AuditEntry]:
    """Return at most ``limit`` entries with numbers above ``seq``, oldest first; with ``None`` from the lowest number on."""
    text = ENTRIES.format(conditions="true" if seq is None else "seq > %s", direction="ASC")
    return [entry_of(row) for row in await session.rows(text, [limit] if seq is None else [seq, limit])]


def entry_of(row: Sequence[Any]) -> AuditEntry:
    """Return the entry in a row of :data:`ENTRY_COLUMNS`."""
    seq, at, who, action, reason, details, key_id, previous, hash = row
    return AuditEntry(
        seq=seq,
        at=at.astimezone(UTC),
        who=who,
        action=action,
        reason=reason,
        details=details,
        key_id=key_id,
        previous=previous,
        hash=hash,
    )
