"""Reads names of projects, domains and users: pages of identities, and the name that was valid at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from collections.abc import Sequence
from datetime import datetime

from meter.completeness.identities.identity_history import Change
from meter.completeness.identities.identity_history import Sighting
from meter.completeness.identities.identity_history import period_at
from meter.completeness.identities.identity_history import periods_of
from meter.completeness.identities.identity_merging import matching
from meter.daemon.shared_slices import SharedSlices
from meter.identity_names import IdentityFilter
from meter.identity_names import IdentityHistory
from meter.identity_names import IdentityKey
from meter.identity_names import NamePeriod
from meter.identity_report import IdentityKind
from meter.store.postgres.pool import Pool
from meter.store.query.samples import CONVERTED_ROWS

# An identity without any name, one that was created and deleted between two lists, is not in the table.
KEYS = """
SELECT DISTINCT kind, identity FROM identity_name
WHERE (kind, identity) > (%(after_kind)s COLLATE "C", %(after_id)s COLLATE "C")
    AND (%(kind)s::text IS NULL OR kind = %(kind)s) AND (%(id)s::text IS NULL OR identity = %(id)s)
    AND (%(name)s::text IS NULL OR name = %(name)s COLLATE "C")
ORDER BY kind, identity LIMIT %(limit)s
"""

# LIMIT in the subquery makes PostgreSQL look for each identity in the index.
KEYS_AMONG = """
SELECT found.kind, found.identity
FROM unnest(%(among_kinds)s::text[], %(among_ids)s::text[]) AS among (kind, id) CROSS JOIN LATERAL (
    SELECT kind, identity FROM identity_name WHERE kind = among.kind COLLATE "C" AND identity = among.id COLLATE "C"
        AND (kind, identity) > (%(after_kind)s COLLATE "C", %(after_id)s COLLATE "C")
        AND (%(kind)s::text IS NULL OR kind = %(kind)s) AND (%(id)s::text IS NULL OR identity = %(id)s)
        AND (%(name)s::text IS NULL OR name = %(name)s COLLATE "C")
    LIMIT 1
) AS found ORDER BY kind, identity LIMIT %(limit)s
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
    """Reads names over ``pool``; many rows are converted in ``slices``."""

    def __init__(self, pool: Pool, slices: SharedSlices) -> None:
        self._pool = pool
        self._slices = slices

    async def names_at(self, kind: IdentityKind, ids: Collection[str], at: datetime) -> dict[str, NamePeriod]:
        """See ``IIdentityNames.names_at``."""
        histories = await self.histories([IdentityKey(kind, each) for each in ids])
        found = {key.id: period_at(names, at) for key, names in histories.items()}
        return {id: period for id, period in found.items() if period is not None}

    async def histories(self, keys: Collection[IdentityKey]) -> dict[IdentityKey, tuple[NamePeriod, ...]]:
        """See ``IIdentityNames.histories``."""
        found = await self._histories(sorted({key for key in keys if "\0" not in key.id}))
        return {IdentityKey(each.kind, each.id): each.names for each in found if each.names}

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
        keys = [IdentityKey(*row) for row in await self._pool.rows(KEYS if among is None else KEYS_AMONG, parameters)]
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
        slices = self._slices.of(object())
        async for rows in slices.consume(await self._pool.rows(SIGHTINGS, wanted), CONVERTED_ROWS):
            for kind, identity, origin, *sighting in rows:
                sightings[kind, identity][origin].append(Sighting(*sighting))
        async for rows in slices.consume(await self._pool.rows(CHANGES, wanted), CONVERTED_ROWS):
            for kind, identity, *change in rows:
                changes[kind, identity].append(Change(*change))
        histories: list[IdentityHistory] = []
        async for some in slices.batches(keys, CONVERTED_ROWS):
            histories += [
                IdentityHistory(key.kind, key.id, periods_of(sightings[key], changes.get(key, ()))) for key in some
            ]
        return histories
