"""Moves chosen samples of a spread store between ``sample``, on its workers, and ``voided_sample``, on its coordinator.

Each move is statements of one transaction, which is committed on all servers or on none: Citus refuses one statement that changes tables
of both.
"""

from __future__ import annotations

from collections.abc import Sequence

from meter.store.postgres.connection import Conflict
from meter.store.postgres.pool import Session

DELETED_AT_ONCE = 20_000

# Joined by hashing: the samples come from a function, without an index.
READ = """
SET LOCAL enable_hashjoin = on;
CREATE TEMPORARY TABLE moved ON COMMIT DROP AS
SELECT s.* FROM (SELECT array_agg(message_id) AS ids, min(timestamp) AS first, max(timestamp) AS last FROM chosen WHERE problem IS NULL) AS c
CROSS JOIN LATERAL spread_samples_with_ids(c.ids, c.first, c.last, true) AS s
JOIN chosen ON (chosen.message_id, chosen.timestamp, chosen.series_id) = (s.message_id, s.timestamp, s.series_id) AND chosen.problem IS NULL
"""
KEYS = "SELECT message_id::text, timestamp::text, series_id FROM moved ORDER BY timestamp, message_id, series_id"
INSERT_VOIDED = """
INSERT INTO voided_sample ({names}, voided_at, voided_by, reason, audit_seq) SELECT {columns}, now(), %s, %s, %s FROM moved s
"""
DELETE = """
DELETE FROM sample s WHERE (s.message_id, s.timestamp, s.series_id) IN (
    SELECT * FROM unnest(%s::uuid[], %s::timestamptz[], %s::integer[])
)
"""

INSERT_RESTORED = """
INSERT INTO sample ({names})
SELECT {columns} FROM voided_sample s JOIN chosen ON (chosen.message_id, chosen.timestamp) = (s.message_id, s.timestamp) AND chosen.problem IS NULL
"""
DELETE_VOIDED = """
DELETE FROM voided_sample s USING chosen
WHERE s.message_id = chosen.message_id AND s.timestamp = chosen.timestamp AND chosen.problem IS NULL
"""


async def move_spread_to_voided(session: Session, names: str, columns: str, values: Sequence[object]) -> None:
    """Move the chosen samples to ``voided_sample``; ``values`` say who voids them, why, and the entry in the audit log."""
    await session.count(READ)
    keys = await session.rows(KEYS)
    await session.count(INSERT_VOIDED.format(names=names, columns=columns), values)
    deleted = 0
    for n in range(0, len(keys), DELETED_AT_ONCE):
        ids, times, series = zip(*keys[n : n + DELETED_AT_ONCE], strict=True)
        deleted += await session.count(DELETE, [list(ids), list(times), list(series)])
    if deleted != len(keys):
        raise Conflict(f"{len(keys)} samples were read and {deleted} deleted: another transaction has changed them")


async def move_spread_back(session: Session, names: str, columns: str) -> None:
    """Move the chosen voided samples back to ``sample``."""
    given = await session.count(INSERT_RESTORED.format(names=names, columns=columns))
    deleted = await session.count(DELETE_VOIDED)
    if given != deleted:
        raise Conflict(f"{given} samples were restored and {deleted} of the voided ones deleted")
