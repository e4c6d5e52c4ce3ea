"""Statements that keep usage: they change only the rows that differ, so that repeating a computation changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from datetime import date
from datetime import datetime
from decimal import Decimal
from typing import Any
from typing import NamedTuple

import msgspec

from meter.rating.usage.existence import ExistenceSpan
from meter.store.postgres.pool import Session
from meter.store.query.named_edges import archived_edges_of
from meter.store.query.named_edges import edge_of_series

LOCK = 0x6D65746572_09
"""Key of the advisory lock that a transaction takes before it changes usage: two of them do not wait for each other's rows."""

LAST_RESOURCE = 2**31 - 1

NEXT_RESOURCES = """
SELECT used.resource_id, r.name FROM (
    SELECT x.resource_id FROM meter m CROSS JOIN LATERAL (
        SELECT DISTINCT x.resource_id FROM series x
        WHERE x.meter_id = m.id AND x.resource_id > %(after)s AND x.retained_until >= %(since)s
            AND (%(projects)s::text[] IS NULL OR EXISTS (
                SELECT FROM series o WHERE o.resource_id = x.resource_id AND o.project_id = ANY(ARRAY(
                    SELECT id FROM project WHERE name = ANY(%(projects)s) UNION ALL SELECT 0 WHERE '' = ANY(%(projects)s)))))
        ORDER BY 1 LIMIT %(rows)s
    ) AS x
    WHERE m.name = ANY(%(meters)s)
    UNION SELECT unnest(%(others)s::integer[]) ORDER BY 1 LIMIT %(rows)s
) AS used CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = used.resource_id OFFSET 0) AS r
ORDER BY 1
"""

_EDGE = (("timestamp", "message_id"), "%(since)s::timestamptz", "%(finish)s::timestamptz")
_BEFORE_FINISH = "s.timestamp < %(finish)s"
_OLDEST, _NEWEST = (
    edge_of_series(*_EDGE, series="x.id", condition=_BEFORE_FINISH, oldest=oldest, edges=edges)
    for oldest, edges in ((True, "archived_first"), (False, "archived_last"))
)
_ARCHIVED_FIRST, _ARCHIVED_LAST = (
    archived_edges_of(name, *_EDGE, ids="ARRAY(SELECT id FROM page)", condition=_BEFORE_FINISH, oldest=oldest)
    for oldest, name in ((True, "archived_first"), (False, "archived_last"))
)

RESOURCES_WITH_SAMPLES = f"""
WITH page AS MATERIALIZED (
    SELECT x.id, x.resource_id FROM series x
    WHERE x.meter_id IN (SELECT id FROM meter WHERE name = %(meter)s)
        AND x.retained_until >= %(since)s AND x.resource_id > %(after)s AND x.resource_id <= coalesce((
            SELECT max(resource_id) FROM (
                SELECT DISTINCT p.resource_id FROM series p
                WHERE p.meter_id IN (SELECT id FROM meter WHERE name = %(meter)s) AND p.retained_until >= %(since)s
                    AND p.resource_id > %(after)s
                ORDER BY 1 LIMIT %(rows)s
            ) AS next
        ), %(after)s)
    OFFSET 0
), {_ARCHIVED_FIRST}, {_ARCHIVED_LAST}
SELECT x.resource_id, min(sampled.first), max(sampled.last) FROM page AS x CROSS JOIN LATERAL (
    SELECT (SELECT s.timestamp FROM ({_OLDEST}) AS s) AS first, (SELECT s.timestamp FROM ({_NEWEST}) AS s) AS last
) AS sampled
GROUP BY x.resource_id ORDER BY 1
"""

HAS_ATOMS = "SELECT FROM usage_atom WHERE (sku_id, day) = (%s, %s) LIMIT 1"

KNOWN_SKUS = "SELECT fingerprint, id FROM usage_sku WHERE fingerprint = ANY(%s)"

SKU_IDS = """
INSERT INTO usage_sku (fingerprint, definition)
SELECT fingerprint, definition FROM unnest(%(fingerprints)s::bytea[], %(definitions)s::text[]) AS wanted (fingerprint, definition)
WHERE NOT EXISTS (SELECT FROM usage_sku k WHERE k.fingerprint = wanted.fingerprint)
ON CONFLICT DO NOTHING
"""

# Existing names are not inserted: an insert takes an id from the sequence even if the row exists.
ADD_PROJECTS = """
INSERT INTO project (name)
SELECT DISTINCT wanted.name COLLATE "C" FROM unnest(%(projects)s::text[]) AS wanted (name)
WHERE wanted.name <> '' AND NOT EXISTS (SELECT FROM project p WHERE p.name = wanted.name)
ORDER BY 1 ON CONFLICT DO NOTHING
"""

DATED = """
dated AS MATERIALIZED (
    SELECT %(day)s::date AS day, c.* FROM computed c WHERE NOT EXISTS (SELECT FROM stays s WHERE s.resource_id = c.resource_id)
)"""

NONE_STAYS = "stays AS (SELECT 0 AS resource_id WHERE false)"

_BEFORE_DAY = edge_of_series(
    ("timestamp", "message_id"),
    "%(expired)s::timestamptz",
    "%(start)s::timestamptz",
    series="x.id",
    condition="s.timestamp < %(start)s",
    oldest=False,
)

# Neighbours of the day's samples have expired, of resources of which no sample before the day is left. What was computed with them stays
# if it is more than what is computed without, unless samples were voided, which somebody wanted to change it. Of a gauge it may
# have been told long ago: then the resource existed before what has not expired. If it is known now to have been deleted before the end of the
# day, or if the day goes on, what is computed without counts, and the rest is unmetered.
EXPIRED_STAYS = f"""
stays AS MATERIALIZED (
    SELECT k.resource_id FROM (
        SELECT u.resource_id, sum(u.quantity) AS quantity FROM usage_atom u
        WHERE u.sku_id = %(sku)s AND u.day = %(day)s AND u.resource_id > %(after)s AND u.resource_id <= %(through)s
        GROUP BY u.resource_id
    ) AS k
    WHERE k.quantity > coalesce((SELECT sum(c.quantity) FROM computed c WHERE c.resource_id = k.resource_id), 0)
        AND (NOT %(told)s OR EXISTS (SELECT FROM usage_life l WHERE l.resource_id = k.resource_id AND l.began < %(expired)s))
        AND (NOT %(gauge)s OR (
            SELECT coalesce(bool_or(l.began < %(finish)s AND l.ended >= %(finish)s), true) FROM usage_life l WHERE l.resource_id = k.resource_id
        ))
        AND (NOT %(goes_on)s OR NOT EXISTS (SELECT FROM computed c WHERE c.resource_id = k.resource_id AND c.unmetered_seconds > 0))
        AND NOT EXISTS (
        SELECT FROM meter m CROSS JOIN LATERAL (
            SELECT x.id FROM series x WHERE x.meter_id = m.id AND x.resource_id = k.resource_id OFFSET 0
        ) AS x
        WHERE m.name = %(meter)s AND (EXISTS ({_BEFORE_DAY}) OR EXISTS (
            SELECT FROM voided_sample v WHERE v.series_id = x.id AND v.timestamp >= %(expired)s AND v.timestamp < %(finish)s))
    )
)"""

# One JSON text: psycopg2 would adapt each element of an array by itself, and hold the reactor for a tenth of a second.
GIVEN = """
dated AS MATERIALIZED (
    SELECT g.day, g.resource AS resource_id, coalesce(p.id, 0) AS project_id, g.document::jsonb AS document, g.quantity,
        g.unmetered_seconds
    FROM json_to_recordset(%(given)s::json)
        AS g (day date, resource integer, project text, document text, quantity numeric, unmetered_seconds integer)
    LEFT JOIN project p ON p.name = g.project
)"""

MERGE = """
document AS MATERIALIZED (
    SELECT document, sha256(convert_to(document::text, 'UTF8')) AS hash FROM (SELECT DISTINCT document FROM dated) AS _
), added AS (
    INSERT INTO usage_values (hash, document)
    SELECT hash, document FROM document d WHERE NOT EXISTS (SELECT FROM usage_values v WHERE v.hash = d.hash)
    ON CONFLICT DO NOTHING RETURNING id, hash
), known AS MATERIALIZED (
    SELECT d.document, v.id FROM document d JOIN usage_values v ON v.hash = d.hash
    UNION ALL SELECT d.document, a.id FROM document d JOIN added a ON a.hash = d.hash
), fresh AS MATERIALIZED (
    SELECT dated.day, dated.resource_id, dated.project_id, known.id AS values_id, dated.quantity, dated.unmetered_seconds
    FROM dated JOIN known ON known.document = dated.document
), resources AS (
    INSERT INTO usage_resource SELECT DISTINCT resource_id FROM fresh ON CONFLICT DO NOTHING
), projects AS (
    INSERT INTO usage_project SELECT DISTINCT project_id FROM fresh ON CONFLICT DO NOTHING
), deleted AS (
    DELETE FROM usage_atom u
    WHERE u.sku_id = %(sku)s AND u.day = ANY(%(days)s::date[]) AND u.resource_id > %(after)s AND u.resource_id <= %(through)s
        AND NOT EXISTS (SELECT FROM fresh f WHERE f.day = u.day AND f.resource_id = u.resource_id
            AND f.project_id = u.project_id AND f.values_id = u.values_id)
        AND NOT EXISTS (SELECT FROM stays s WHERE s.resource_id = u.resource_id)
    RETURNING u.day
), stored AS (
    INSERT INTO usage_atom (sku_id, day, resource_id, project_id, values_id, unmetered_seconds, quantity)
    SELECT %(sku)s, day, resource_id, project_id, values_id, unmetered_seconds, quantity FROM fresh
    ORDER BY day, resource_id, project_id, values_id
    ON CONFLICT (sku_id, day, resource_id, project_id, values_id)
    DO UPDATE SET unmetered_seconds = excluded.unmetered_seconds, quantity = excluded.quantity
    WHERE (usage_atom.unmetered_seconds, usage_atom.quantity) IS DISTINCT FROM (excluded.unmetered_seconds, excluded.quantity)
    RETURNING day
)
SELECT DISTINCT day FROM (SELECT day FROM deleted UNION ALL SELECT day FROM stored) AS changed
"""

FRESH_LIVES = """
fresh AS MATERIALIZED (
    SELECT g.resource_id, coalesce(p.id, 0) AS project_id, g.began, g.ended, g.is_off
    FROM unnest(%(resources)s::integer[], %(projects)s::text[], %(begins)s::timestamptz[], %(ends)s::timestamptz[], %(off)s::boolean[])
        AS g (resource_id, project, began, ended, is_off)
    LEFT JOIN project p ON p.name = g.project
), kept AS MATERIALIZED (
    SELECT * FROM usage_life WHERE resource_id = ANY(%(page)s::integer[])
)"""

MARK_CHANGED_LIVES = f"""
WITH {FRESH_LIVES}, difference AS MATERIALIZED (
    SELECT CASE WHEN (o.project_id, o.is_off) = (n.project_id, n.is_off) THEN least(o.ended, n.ended) ELSE coalesce(o.began, n.began) END AS since,
        greatest(o.ended, n.ended) AS until
    FROM kept o FULL JOIN fresh n ON n.resource_id = o.resource_id AND n.began = o.began
    WHERE (o.project_id, o.ended, o.is_off) IS DISTINCT FROM (n.project_id, n.ended, n.is_off)
)
UPDATE usage_day d SET as_of = '-infinity'
FROM usage_sku k
WHERE k.id = d.sku_id AND k.definition::json ->> 'usage' = 'integral' AND d.as_of > '-infinity'
    AND EXISTS (SELECT FROM difference WHERE since < d.finish AND until > d.start)
"""
"""Gauges of these days are integrated again, in whichever time zone and period."""

FORGET_LIVES = f"""
WITH {FRESH_LIVES}
DELETE FROM usage_life l USING kept
WHERE l.resource_id = kept.resource_id AND l.began = kept.began
    AND NOT EXISTS (SELECT FROM fresh f WHERE f.resource_id = l.resource_id AND f.began = l.began)
"""

KEEP_LIVES = f"""
WITH {FRESH_LIVES}
INSERT INTO usage_life (resource_id, project_id, began, ended, is_off)
SELECT resource_id, project_id, began, ended, is_off FROM fresh ORDER BY resource_id, began
ON CONFLICT (resource_id, began) DO UPDATE SET project_id = excluded.project_id, ended = excluded.ended, is_off = excluded.is_off
WHERE (usage_life.project_id, usage_life.ended, usage_life.is_off) IS DISTINCT FROM (excluded.project_id, excluded.ended, excluded.is_off)
"""

MARK_COMPUTED = """
INSERT INTO usage_day (sku_id, day, start, finish, as_of)
SELECT sku_id, day, start, finish, %(as_of)s
FROM unnest(%(skus)s::integer[], %(days)s::date[], %(starts)s::timestamptz[], %(finishes)s::timestamptz[]) AS _ (sku_id, day, start, finish)
ON CONFLICT (sku_id, day) DO UPDATE SET start = excluded.start, finish = excluded.finish, as_of = excluded.as_of
"""


class GivenAtom(msgspec.Struct, frozen=True):
    """Usage that was computed outside the database; ``document`` are the values, as JSON."""

    day: date
    resource: int
    project: str
    document: str
    quantity: Decimal
    unmetered_seconds: int


class SampledTime(NamedTuple):
    """The times of the first and the last sample of a resource in some time, ``None`` if it has none."""

    resource_id: int
    first: datetime | None
    last: datetime | None

    def joined(self, other: SampledTime | None) -> SampledTime:
        """Return the time from the first until the last sample of both."""
        times = [time for each in (self, other) if each is not None for time in each[1:] if time is not None]
        return SampledTime(self.resource_id, min(times, default=None), max(times, default=None))

    def has_between(self, since: datetime, finish: datetime) -> bool:
        """Return whether there may be a sample from ``since`` until before ``finish``."""
        return self.first is not None and self.last is not None and self.first < finish and self.last >= since


class ResourceRange(NamedTuple):
    """The resources with ids above ``after`` and up to ``through``."""

    after: int
    through: int


async def keep_measured(session: Session, parts: str, parameters: dict[str, Any]) -> list[date]:
    """Keep what the common table expressions ``parts`` compute; return the days that changed.

    ``expired`` of the parameters: samples before that time have expired, which may be neighbours of those of the day; ``None`` if none has.
    ``told``: only what was told and holds as long as a life may be such a neighbour. ``gauge``: it ends with a life. ``goes_on``: the day was
    not computed as far as now.
    """
    await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    # Samples are looked up by series and time, whatever the planner believes of a week that was never analyzed.
    await session.count("SET LOCAL enable_seqscan = off")
    stays = NONE_STAYS if parameters["expired"] is None else EXPIRED_STAYS
    return [day for [day] in await session.rows(f"WITH {parts}, {stays}, {DATED}, {MERGE}", parameters)]


async def keep_given(
    session: Session, sku: int, days: Sequence[date], within: ResourceRange, atoms: Sequence[GivenAtom]
) -> list[date]:
    """Keep ``atoms`` as all usage of ``sku`` on ``days`` of the resources ``within``; return the days that changed."""
    await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    await session.count(ADD_PROJECTS, {"projects": sorted({atom.project for atom in atoms})})
    parameters = {"given": msgspec.json.encode(atoms).decode(), "sku": sku, "days": list(days)}
    merged = await session.rows(f"WITH {NONE_STAYS}, {GIVEN}, {MERGE}", {**parameters, **within._asdict()})
    return [day for [day] in merged]


async def keep_lives(session: Session, page: Sequence[int], spans: Iterable[tuple[int, ExistenceSpan]]) -> None:
    """Keep ``spans`` as all times in which the resources ``page`` existed, and mark the days of gauges that this changes."""
    given = list(spans)
    parameters = {
        "page": list(page),
        "resources": [resource for resource, _ in given],
        "projects": [span.project_id for _, span in given],
        "begins": [span.began for _, span in given],
        "ends": ["infinity" if span.ended is None else span.ended.isoformat() for _, span in given],
        "off": [span.is_off for _, span in given],
    }
    await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    await session.count(ADD_PROJECTS, parameters)
    for statement in (MARK_CHANGED_LIVES, FORGET_LIVES, KEEP_LIVES):
        await session.count(statement, parameters)


async def sku_ids(session: Session, definitions: dict[bytes, str]) -> dict[bytes, int]:
    """Return the id of each definition, by its fingerprint; new ones are added."""
    await session.count(
        SKU_IDS, {"fingerprints": list(definitions), "definitions": [definitions[each] for each in definitions]}
    )
    return {bytes(found): id for found, id in await session.rows(KNOWN_SKUS, [list(definitions)])}


class DayMark(NamedTuple):
    """A day of a SKU that was computed from ``start`` until ``finish``."""

    sku: int
    day: date
    start: datetime
    finish: datetime


async def mark_computed(session: Session, as_of: datetime, marks: Sequence[DayMark]) -> None:
    """Note that the days ``marks`` are kept as of a time."""
    await session.count(
        MARK_COMPUTED,
        {
            "as_of": as_of,
            "skus": [mark.sku for mark in marks],
            "days": [mark.day for mark in marks],
            "starts": [mark.start for mark in marks],
            "finishes": [mark.finish for mark in marks],
        },
    )
