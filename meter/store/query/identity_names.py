"""Reads names of projects, domains and users: pages of identities, and the name that was valid at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from collections.abc import Sequence
from datetime import datetime

from meter.completeness.identity_history import Change
from meter.completeness.identity_history import Sighting
from meter.completeness.identity_history import period_at
from meter.completeness.identity_history import periods_of
from meter.completeness.identity_merging import matching
from meter.identity_names import IdentityFilter
from meter.identity_names import IdentityHistory
from meter.identity_names import IdentityKey
from meter.identity_names import NamePeriod
from meter.identity_report import IdentityKind
from meter.store.postgres.pool import Pool

# An identity without any name, one that was created and deleted between two lists, is not in the table.
KEYS = """
SELECT DISTINCT kind, identity FROM identity_name
WHERE (kind, identity) > (%(after_kind)s COLLATE "C", %(after_id)s COLLATE "C")
    AND (%(kind)s::text IS NULL OR kind = %(kind)s) AND (%(id)s::text IS NULL OR identity = %(id)s)
    AND (%(name)s::text IS NULL OR name = %(name)s COLLATE "C")
    AND (%(among_kinds)s::text[] IS NULL OR (kind, identity) IN (
        SELECT among.kind COLLATE "C", among.id COLLATE "C"
        FROM unnest(%(among_kinds)s::text[], %(among_ids)s::text[]) AS among (kind, id)))
ORDER BY kind, identity LIMIT %(limit)s
"""

SIGHTINGS = """
SELECT kind, identity, origin, seen, name, domain, exact, not_before FROM identity_name
JOIN unnest(%s::text[], %s::text[]) AS wanted (kind, identity) USING (kind, identity) ORDER BY seen
"""

CHANGES = """
SELECT kind, identity, at, change FROM identity_change
JOIN unnest(%s::text[], %s::text[]) AS wanted (kind, identity) USING (kind, identity) ORDER BY at
"""


class IdentityNameReader:
    """Reads names over ``pool``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def names_at(self, kind: IdentityKind, ids: Collection[str], at: datetime) -> dict[str, NamePeriod]:
        """See ``IIdentityNames.names_at``."""
        storable = {each for each in ids if "\0" not in each}
        histories = await self._histories([IdentityKey(kind, each) for each in sorted(storable)])
        found = {each.id: period_at(each.names, at) for each in histories}
        return {id: period for id, period in found.items() if period is not None}

    async def identities(
        self, filter: IdentityFilter, limit: int, after: IdentityKey | None = None
    ) -> tuple[Sequence[IdentityHistory], IdentityKey | None]:
        """See ``IIdentityNames.identities``."""
        among = None if filter.among is None else sorted(filter.among)
        parameters = {
            "after_kind": "" if after is None else after.kind,
            "after_id": "" if after is None else after.id,
            "kind": filter.kind,
            "id": filter.id,
            "name": filter.name,
            "among_kinds": None if among is None else [each.kind for each in among],
            "among_ids": None if among is None else [each.id for each in among],
            "limit": limit + 1,
        }
        keys = [IdentityKey(*row) for row in await self._pool.rows(KEYS, parameters)]
        histories = await self._histories(keys[:limit])
        return matching(histories, filter), keys[limit - 1] if len(keys) > limit else None

    async def _histories(self, keys: Sequence[IdentityKey]) -> list[IdentityHistory]:
        if not keys:
            return []
        wanted = [[each.kind for each in keys], [each.id for each in keys]]
        sightings: defaultdict[tuple[str, str], defaultdict[str, list[Sighting]]] = defaultdict(
            lambda: defaultdict(list)
        )
        changes: defaultdict[tuple[str, str], list[Change]] = defaultdict(list)
        for kind, identity, origin, *sighting in await self._pool.rows(SIGHTINGS, wanted):
            sightings[kind, identity][origin].append(Sighting(*sighting))
        for kind, identity, *change in await self._pool.rows(CHANGES, wanted):
            changes[kind, identity].append(Change(*change))
        return [IdentityHistory(key.kind, key.id, periods_of(sightings[key], changes.get(key, ()))) for key in keys]
