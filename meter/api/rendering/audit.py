"""JSON schema of the audit log."""

from __future__ import annotations

from typing import Any

import msgspec

from meter.query import AuditEntry
from meter.sample import utc_text


class AuditLogEntry(msgspec.Struct, kw_only=True):
    """What an administrator did. ``hash`` covers all other members, ``previous`` is the hash of the entry before."""

    seq: int
    at: str
    who: str
    action: str
    reason: str
    details: dict[str, Any]
    key_id: str
    previous: str
    hash: str


def audit_log_entry(entry: AuditEntry) -> AuditLogEntry:
    """Return ``entry`` as JSON; its time is in UTC."""
    return AuditLogEntry(
        seq=entry.seq,
        at=utc_text(entry.at),
        who=entry.who,
        action=entry.action,
        reason=entry.reason,
        details=msgspec.json.decode(entry.details),
        key_id=entry.key_id,
        previous=entry.previous,
        hash=entry.hash,
    )
