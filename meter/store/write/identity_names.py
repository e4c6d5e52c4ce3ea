"""Writes identity reports: sightings of names, changes and complete lists, from which histories of names are derived."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from meter.completeness.identities.identity_history import Sighting
from meter.completeness.identities.identity_history import is_keystone
from meter.completeness.identities.identity_merging import Deletions
from meter.completeness.identities.identity_merging import ListRange
from meter.completeness.identities.identity_merging import Sightings
from meter.completeness.identities.identity_merging import check_not_ahead
from meter.completeness.identities.identity_merging import deletions_in
from meter.completeness.identities.identity_merging import merged_deletions
from meter.completeness.identities.identity_merging import merged_names
from meter.completeness.identities.identity_merging import seen_in
from meter.identity_report import KINDS
from meter.identity_report import IdentityKind
from meter.identity_report import IdentityReport
from meter.identity_report import check_identity_report
from meter.identity_report import time_of
from meter.store.postgres.pool import Session

LOCK = 0x6D65746572_06
"""Key of the advisory lock with which one transaction at a time changes names: what it adds depends on what is there."""

# Of the identities of a complete list those count that exist, or were seen later; others did not exist, and still do not.
LOAD_SIGHTINGS = """
WITH latest AS (
    SELECT DISTINCT ON (identity) identity, seen, name FROM identity_name
    WHERE %(complete)s AND kind = %(kind)s AND origin = %(origin)s
        AND identity > %(after)s COLLATE "C" AND (%(until)s::text IS NULL OR identity <= %(until)s COLLATE "C")
    ORDER BY identity, seen DESC
), wanted AS (
    SELECT identity FROM latest WHERE name IS NOT NULL OR seen > %(at)s
    UNION SELECT unnest(%(ids)s::text[]) COLLATE "C"
)
SELECT identity, seen, name, domain, exact, not_before FROM identity_name JOIN wanted USING (identity)
WHERE kind = %(kind)s AND origin = %(origin)s ORDER BY identity, seen
"""

# Those after the report, and the last ones before it.
LOAD_LISTS = """
SELECT at, after_identity, until_identity FROM identity_list
WHERE kind = %(kind)s AND origin = %(origin)s AND at >= coalesce(
    (SELECT max(at) FROM identity_list WHERE kind = %(kind)s AND origin = %(origin)s AND at < %(since)s), '-infinity')
ORDER BY at
"""

LOAD_DELETIONS = """
SELECT identity, at FROM identity_change
WHERE kind = %(kind)s AND identity = ANY(%(ids)s) AND change = 'deleted' AND at > %(since)s ORDER BY identity, at
"""

INSERT_CHANGES = """
INSERT INTO identity_change (kind, identity, at, change)
SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::text[]) ON CONFLICT DO NOTHING
"""

INSERT_LIST = """
INSERT INTO identity_list (kind, origin, at, after_identity, until_identity) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (kind, origin, at, after_identity) DO UPDATE SET until_identity = excluded.until_identity
"""

ORIGINS_OF = "SELECT DISTINCT origin FROM identity_name WHERE kind = %s AND identity = ANY(%s) ORDER BY origin"

DELETE_SIGHTINGS = """
DELETE FROM identity_name USING unnest(%s::text[], %s::timestamptz[]) AS old (identity, seen)
WHERE kind = %s AND origin = %s AND identity_name.identity = old.identity AND identity_name.seen = old.seen
"""

INSERT_SIGHTINGS = """
INSERT INTO identity_name (kind, origin, identity, seen, name, domain, exact, not_before)
SELECT %s, %s, * FROM unnest(%s::text[], %s::timestamptz[], %s::text[], %s::text[], %s::boolean[], %s::timestamptz[])
"""


async def record_identities(session: Session, report: IdentityReport) -> None:
    """Add what ``report`` says, in the transaction of ``session``; see ``IIdentityNames.record_identities``."""
    check_identity_report(report)
    [[_, now]] = await session.rows("SELECT pg_advisory_xact_lock(%s), clock_timestamp()", [LOCK])
    check_not_ahead(report, now)
    if report.changes:
        columns = zip(*((each.kind, each.id, time_of(each.at), each.change) for each in report.changes), strict=True)
        await session.count(INSERT_CHANGES, [list(column) for column in columns])
    for kind in KINDS:
        if kind in report.complete or any(each.kind == kind for each in report.names):
            await _record_names(session, report, kind)
        if times := deletions_in(report, kind):
            await _record_deletions(session, times, kind)


async def _record_names(session: Session, report: IdentityReport, kind: IdentityKind) -> None:
    at, seen, complete = time_of(report.at), seen_in(report, kind), kind in report.complete
    wanted = {
        "kind": kind,
        "origin": report.origin,
        "complete": complete,
        "after": report.after,
        "until": report.until,
        "at": at,
        "since": min([at, *(each[0].seen for each in seen.values())]),
    }
    stored = await _stored(session, {**wanted, "ids": list(seen)})
    lists = [ListRange(*row) for row in await session.rows(LOAD_LISTS, wanted)]
    deletions = await _deletions(session, {**wanted, "ids": [*seen, *stored]})
    changed = merged_names(report, kind, seen, stored, lists, deletions)
    await _replace(session, kind, report.origin, stored, changed)
    if complete:
        await session.count(INSERT_LIST, [kind, report.origin, at, report.after, report.until])


async def _record_deletions(session: Session, times: Deletions, kind: IdentityKind) -> None:
    for [origin] in await session.rows(ORIGINS_OF, [kind, list(times)]):
        if not is_keystone(origin):
            continue
        since = min(each[0] for each in times.values())
        wanted = {"kind": kind, "origin": origin, "complete": False, "after": "", "until": None, "at": since}
        wanted |= {"since": since, "ids": list(times)}
        stored = await _stored(session, wanted)
        lists = [ListRange(*row) for row in await session.rows(LOAD_LISTS, wanted)]
        deletions = await _deletions(session, wanted)
        await _replace(session, kind, origin, stored, merged_deletions(times, stored, lists, deletions))


async def _stored(session: Session, parameters: Mapping[str, object]) -> dict[str, list[Sighting]]:
    stored: defaultdict[str, list[Sighting]] = defaultdict(list)
    for identity, *sighting in await session.rows(LOAD_SIGHTINGS, parameters):
        stored[identity].append(Sighting(*sighting))
    return dict(stored)


async def _deletions(session: Session, parameters: Mapping[str, object]) -> dict[str, list[datetime]]:
    result: defaultdict[str, list[datetime]] = defaultdict(list)
    if is_keystone(str(parameters["origin"])):
        for identity, at in await session.rows(LOAD_DELETIONS, parameters):
            result[identity].append(at)
    return result


async def _replace(
    session: Session,
    kind: IdentityKind,
    origin: str,
    stored: Sightings,
    changed: Sightings,
) -> None:
    """Write the difference between ``stored`` and ``changed``."""
    old = [(id, each.seen) for id, after in changed.items() for each in stored.get(id, ()) if each not in after]
    new = [(id, *each) for id, after in changed.items() for each in after if each not in stored.get(id, ())]
    if old:
        await session.count(DELETE_SIGHTINGS, [*map(list, zip(*old, strict=True)), kind, origin])
    if new:
        await session.count(INSERT_SIGHTINGS, [kind, origin, *map(list, zip(*new, strict=True))])
