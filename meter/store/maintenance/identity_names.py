"""Deletes names of projects, domains and users that nothing refers to any more, and evidence that is not needed any more.

Names stay as long as samples or rollups of the identity exist: of one that was deleted, all; of one that was renamed, those that
were valid within the time of which samples or rollups are retained.
"""

from __future__ import annotations

from datetime import datetime
from datetime import timedelta

from meter.store.maintenance.garbage_collection import BATCH_ROWS
from meter.store.maintenance.garbage_collection import COUNT
from meter.store.maintenance.garbage_collection import oldest_retained
from meter.store.postgres.pool import Session
from meter.store.write.identity_names import LOCK

RETAINED = timedelta(days=40)
"""How long complete lists, notifications and names without samples stay: reports and samples of that time may still arrive."""

DELETE_LISTS = """
WITH deleted AS (DELETE FROM identity_list WHERE at < %(since)s RETURNING 1) SELECT count(*) FROM deleted
"""

# The others tell since when a name is valid.
DELETE_CHANGES = """
WITH deleted AS (
    DELETE FROM identity_change WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM identity_change AS c WHERE at < %(since)s AND NOT EXISTS (
            SELECT FROM identity_name AS n WHERE (n.kind, n.identity) = (c.kind, c.identity)
                AND n.name IS NOT NULL AND c.at <= n.seen AND c.at > coalesce(n.not_before, '-infinity'))
        LIMIT %(rows)s)) RETURNING 1
) SELECT count(*) FROM deleted
"""

DELETE_NAMES = """
WITH deleted AS (
    DELETE FROM identity_name WHERE ctid = ANY(ARRAY({unused} LIMIT %(rows)s)) RETURNING 1
), counted AS ({count})
SELECT count(*) FROM deleted
"""

FORMER_NAMES = """
SELECT old.ctid FROM identity_name AS old WHERE EXISTS (
    SELECT FROM identity_name AS later
    WHERE (later.kind, later.identity, later.origin) = (old.kind, old.identity, old.origin)
        AND later.seen > old.seen AND later.seen <= %(before)s AND later.name IS NOT NULL)
"""

DELETED_IDENTITIES = """
SELECT n.ctid FROM identity_name AS n JOIN (
    SELECT DISTINCT ON (kind, identity, origin) kind, identity, origin, seen, name FROM identity_name
    ORDER BY kind, identity, origin, seen DESC
) AS latest USING (kind, identity, origin)
WHERE latest.name IS NULL AND latest.seen < %(since)s AND CASE kind
    WHEN 'project' THEN NOT EXISTS (SELECT FROM project WHERE project.name = identity)
    WHEN 'user' THEN NOT EXISTS (SELECT FROM "user" WHERE "user".name = identity)
    ELSE identity NOT IN (SELECT domain FROM identity_name WHERE domain IS NOT NULL) END
"""


async def collect_identity_names(session: Session, now: datetime) -> int:
    """Delete a batch of what is not needed ``now``; return how many rows, less than ``BATCH_ROWS`` if nothing is left."""
    await session.count("SET LOCAL lock_timeout = '2s'")
    await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    parameters = {"since": now - RETAINED, "rows": BATCH_ROWS, "dimension": "identity_name"}
    statements = [DELETE_LISTS, DELETE_CHANGES, DELETE_NAMES.format(unused=DELETED_IDENTITIES, count=COUNT)]
    oldest = await oldest_retained(session)
    if oldest is not None:
        statements.append(DELETE_NAMES.format(unused=FORMER_NAMES, count=COUNT))
        parameters["before"] = oldest[1]
    most = 0
    for statement in statements:
        [[deleted]] = await session.rows(statement, parameters)
        most = max(most, int(deleted)) if statement is not DELETE_LISTS else most
    return most
