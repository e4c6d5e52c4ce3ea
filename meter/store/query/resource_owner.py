"""Which series describe a resource, and which names belong to others, in SQL; :mod:`meter.resource_owner` says why."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from meter.store.postgres.sql import Sql

IS_SUBMITTED = """coalesce(starts_with(
    (SELECT o.name FROM source o WHERE o.id = {x}.source_id), (SELECT p.name FROM project p WHERE p.id = {x}.project_id) || ':'
), false)"""
"""Whether clients submitted the samples of a series, whose alias takes the place of ``{x}``."""

OWNER = f"""
CROSS JOIN LATERAL (
    SELECT min(o.project_id) = max(o.project_id) AS only_one, (array_agg(o.project_id ORDER BY o.id))[1] AS first_project,
        CASE WHEN min(o.project_id) < max(o.project_id) THEN (
            SELECT EXISTS (SELECT FROM series a WHERE a.resource_id = {{resource}} AND NOT {IS_SUBMITTED.format(x="a")})
        ) END AS measured
    FROM series o WHERE o.resource_id = {{resource}} {{condition}}
) owner
"""
"""Joins once what :data:`DESCRIBES` needs to know of the resource with the id ``{resource}``; nothing unless ``{condition}``."""

DESCRIBES = f"""(CASE WHEN owner.only_one THEN true WHEN owner.measured THEN NOT {IS_SUBMITTED.format(x="x")}
    ELSE x.project_id = owner.first_project END)"""
"""Whether a series ``x`` describes its resource."""

NAMES_OF_OTHERS = f"""
SELECT ARRAY(
    SELECT DISTINCT m.name FROM meter m WHERE m.name = ANY(%s) AND EXISTS (
        SELECT FROM series x WHERE x.meter_id = m.id AND (x.project_id <> own.id OR NOT {IS_SUBMITTED.format(x="x")})
    )
), ARRAY(
    SELECT r.name FROM resource r WHERE r.name = ANY(%s) AND EXISTS (
        SELECT FROM series x WHERE x.resource_id = r.id AND x.project_id <> own.id
    )
)
FROM (SELECT coalesce((SELECT id FROM project WHERE name = %s), -1) AS id) own
"""


class NamesOfOthers(NamedTuple):
    """The row of :func:`names_of_others_query`."""

    meters: Collection[str]
    resources: Collection[str]


def names_of_others_query(project_id: str, meters: Collection[str], resources: Collection[str]) -> Sql:
    """Return the statement for ``IStore.names_of_others``, whose row is a :class:`NamesOfOthers`."""
    return Sql(NAMES_OF_OTHERS, (list(meters), list(resources), project_id))
