"""Looks up the ids of series and metadata that the store has, cheaply: a collector forgets some of them where very many are measured.

A collector remembers the ids of some ten thousand series (:class:`~meter.store.write.dimensions.IdCache`). Where more are measured than that, it
meets each of them again when it has forgotten it. To upsert it then, as if it were new, takes several times the time of
inserting the sample; these statements only read, and each name of a batch is looked for once, however many series have it. What they do
not find is upserted: it is new, or is not yet retained for the week of the samples.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from meter.store.postgres.pool import Session
from meter.store.write.record import Series

# Ids by the place of the name in its list: 0 for no name, -1 for a name that the store does not have.
_IDS = """ARRAY(
    SELECT CASE WHEN given.name IS NULL THEN 0 ELSE coalesce((SELECT id FROM {table} AS known WHERE known.name = given.name), -1) END
    FROM unnest(%({names})s::text[]) WITH ORDINALITY AS given (name, n) ORDER BY n
) AS {names}"""

_NAMES = {
    "resources": "resource",
    "users": '"user"',
    "projects": "project",
    "sources": "source",
    "runs": "run",
}
"""Tables of names, by the parameter with the names that are looked for."""

FIND_SERIES = f"""
WITH ids AS MATERIALIZED (
    SELECT ARRAY(
        SELECT coalesce((SELECT id FROM meter AS known WHERE (known.name, known.type, known.unit) = (given.name, given.type, given.unit)), -1)
        FROM unnest(%(meter_names)s::text[], %(types)s::text[], %(units)s::text[]) WITH ORDINALITY AS given (name, type, unit, n) ORDER BY n
    ) AS meters, {", ".join(_IDS.format(table=table, names=names) for names, table in _NAMES.items())}
)
SELECT wanted.n, found.id
FROM unnest(%(meter)s::integer[], %(resource)s::integer[], %(user)s::integer[], %(project)s::integer[], %(source)s::integer[],
    %(run_kind)s::smallint[], %(run)s::integer[], %(interval)s::float8[]) WITH ORDINALITY
    AS wanted (meter, resource, "user", project, source, run_kind, run, polling_interval, n)
CROSS JOIN ids
CROSS JOIN LATERAL (
    SELECT id FROM series
    WHERE (meter_id, resource_id, user_id, project_id, source_id, run_kind, run_id, polling_interval)
        = (ids.meters[wanted.meter], ids.resources[wanted.resource], ids.users[wanted."user"], ids.projects[wanted.project],
        ids.sources[wanted.source], wanted.run_kind, ids.runs[wanted.run], wanted.polling_interval)
    AND retained_until >= %(until)s
    LIMIT 1
) AS found
"""

FIND_METADATA = """
SELECT wanted.n, found.id FROM unnest(%(digests)s::bytea[]) WITH ORDINALITY AS wanted (hash, n)
CROSS JOIN LATERAL (SELECT id FROM metadata WHERE hash = wanted.hash AND retained_until >= %(until)s LIMIT 1) AS found
"""


async def find_series(session: Session, wanted: Collection[Series], until: datetime) -> dict[Series, int]:
    """Return the ids of those of ``wanted`` that the store has and retains ``until`` then."""
    names, types, units, resources, users, projects, sources, kinds, runs, intervals = zip(*wanted, strict=True)
    meters, meter = _places(zip(names, types, units, strict=True))
    parameters: dict[str, Any] = {
        "until": until,
        "meter_names": [name for name, _, _ in meters],
        "types": [type_ for _, type_, _ in meters],
        "units": [unit for _, _, unit in meters],
        "meter": meter,
        "run_kind": _literal([int(kind) for kind in kinds]),
        "interval": _literal(intervals),
    }
    for parameter, place, values in (
        ("resources", "resource", resources),
        ("users", "user", users),
        ("projects", "project", projects),
        ("sources", "source", sources),
        ("runs", "run", runs),
    ):
        parameters[parameter], parameters[place] = _places(values)
    ordered = list(wanted)
    return {ordered[n - 1]: id for n, id in await session.rows(FIND_SERIES, parameters)}


async def find_metadata(session: Session, wanted: Collection[bytes], until: datetime) -> dict[bytes, int]:
    """Return the ids of those of ``wanted``, digests of metadata, that the store has and retains ``until`` then."""
    ordered = list(wanted)
    digests = "{" + ",".join([rf"\\x{each.hex()}" for each in ordered]) + "}"
    return {ordered[n - 1]: id for n, id in await session.rows(FIND_METADATA, {"digests": digests, "until": until})}


def _places(values: Iterable[Hashable]) -> tuple[list[Any], str]:
    """Return each value once, and the place of each of ``values`` among them, from 1 on, in PostgreSQL's notation."""
    places: dict[Hashable, int] = {}
    numbers = [places.setdefault(value, len(places) + 1) for value in values]
    return list(places), _literal(numbers)


def _literal(numbers: Sequence[float]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"
