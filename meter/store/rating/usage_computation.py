"""UsageComputation: the usage of a period as of a time, computed from samples; nothing is kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from meter.completeness.lives.kinds import meters_of
from meter.completeness.lives.resource_lives import ResourceLife
from meter.daemon.shared_slices import SharedSlices
from meter.rating.book.price_book import PriceBook
from meter.rating.period import BillingPeriod
from meter.rating.usage.existence import existence
from meter.rating.usage.existence import existence_spans
from meter.rating.usage.measured_skus import MeasuredDay
from meter.rating.usage.measured_skus import MeasuredSku
from meter.rating.usage.measured_skus import is_measured_whole
from meter.rating.usage.measured_skus import life_kinds
from meter.rating.usage.measured_skus import measured_days
from meter.rating.usage.measured_skus import measured_skus
from meter.rating.usage.measured_skus import whole_period
from meter.rating.usage.minimum import MinimumOfResources
from meter.rating.usage.sku_definition import values_order
from meter.rating.usage.sku_definition import values_text
from meter.rating.usage.usage_atom import UsageAtom
from meter.store.postgres.pool import Pool
from meter.store.query.as_of import wait_for_writers_before
from meter.store.rating.usage_lives import RatedLives
from meter.store.rating.usage_refresh import EXPIRED
from meter.store.rating.usage_refresh import LOOK_BACK
from meter.store.rating.usage_refresh import UsageRefresh
from meter.store.rating.usage_sql import GIVEN_LIVES
from meter.store.rating.usage_sql import measuring
from meter.store.rating.usage_told import told_among

SELECT_COMPUTED = """
SELECT r.name, coalesce(p.name, ''), c.document::text, c.quantity, c.unmetered_seconds
FROM computed c JOIN resource r ON r.id = c.resource_id LEFT JOIN project p ON p.id = c.project_id
WHERE coalesce(p.name, '') = ANY(%(projects)s::text[])
"""

LIFE_PROJECTS = "SELECT name, id FROM project WHERE name = ANY(%s)"


class UsageComputation:
    """Computes over ``pool``: lives and all volumes from samples, however many hours are final."""

    def __init__(self, pool: Pool, clock: IReactorTime, slices: SharedSlices) -> None:
        self._pool = pool
        self._clock = clock
        self._pages = UsageRefresh(pool, clock, slices)
        self._lives = RatedLives(pool, slices, final_rollups=False)

    async def atoms(
        self, book: PriceBook, period: BillingPeriod, projects: Set[str], as_of: datetime
    ) -> AsyncIterator[UsageAtom]:
        """Yield atoms in the order of SKU, day, project, resource and values."""
        await wait_for_writers_before(self._pool, self._clock, as_of)
        skus = measured_skus(book)
        found, ids = await self._all_lives(skus, projects, as_of)
        for measured in skus:
            days = measured_days(period, as_of)
            if not days:
                return
            told = await self._told(measured, found, ids)
            minimum = MinimumOfResources(measured.sku.minimum)
            if is_measured_whole(measured.sku):
                days = [whole_period(period, as_of)]
            of_period: dict[tuple[str, str, str], tuple[Decimal, int]] = {}
            for day in days:
                atoms = await self._of_day(measured, day, found, told, projects, as_of)
                if measured.sku.usage == "maximum":
                    for key, (quantity, unmetered) in atoms.items():
                        before = of_period.get(key, (quantity, 0))
                        of_period[key] = max(before[0], quantity), before[1] + unmetered
                else:
                    for atom in minimum.applied(_sorted(measured, day, atoms)):
                        yield atom
            for atom in minimum.applied(_sorted(measured, whole_period(period, as_of), of_period)):
                yield atom

    async def _all_lives(
        self, skus: Sequence[MeasuredSku], projects: Set[str], as_of: datetime
    ) -> tuple[dict[str, list[ResourceLife]], dict[str, int]]:
        """Return lives and ids by the names of resources."""
        found: defaultdict[str, list[ResourceLife]] = defaultdict(list)
        ids: dict[str, int] = {}
        kinds = life_kinds([each.sku for each in skus])
        if kinds:
            async for _, resources in self._pages.pages(meters_of(kinds), projects=projects):
                names = [name for _, name in resources]
                for each in await self._pages.page_lives(names, skus, as_of, as_of, self._lives):
                    found[each.resource_id].append(each)
                ids |= {name: id for id, name in resources if name in found}
        return found, ids

    async def _told(
        self, measured: MeasuredSku, found: Mapping[str, Sequence[ResourceLife]], ids: Mapping[str, int]
    ) -> list[tuple[int, Sequence[ResourceLife]]]:
        """Return the lives of the resources of which a gauge was told without polls, by id, sorted."""
        if measured.sku.usage != "integral" or measured.sku.meter is None:
            return []
        names = {ids[name]: name for name in found}
        return [(id, found[names[id]]) for id in await told_among(self._pool, measured.sku.meter, names)]

    async def _of_day(
        self,
        measured: MeasuredSku,
        day: MeasuredDay,
        found: dict[str, list[ResourceLife]],
        told: Sequence[tuple[int, Sequence[ResourceLife]]],
        projects: Set[str],
        as_of: datetime,
    ) -> dict[tuple[str, str, str], tuple[Decimal, int]]:
        """Return quantity and unmetered seconds by project, resource and values."""
        atoms: dict[tuple[str, str, str], tuple[Decimal, int]] = {}
        if measured.sku.usage == "exists":
            for resource, several in found.items():
                for each in several:
                    if each.kind == measured.sku.resource_kind:
                        used = existence(measured.sku, each.segments, day.start, day.finish)
                        for (project, values), quantity in used.items():
                            if project in projects:
                                atoms[project, resource, values_text(dict(values))] = quantity
            return atoms
        assert measured.sku.meter is not None
        parts, parameters = measuring(measured.sku, lives=GIVEN_LIVES)
        parameters |= {"start": day.start, "finish": day.finish, "as_of": as_of, "projects": sorted(projects)}
        [[parameters["cutoff"]]] = await self._pool.rows(EXPIRED, [measured.sku.meter])
        others = [id for id, lived in told if any(_exists(each, day) for each in lived)]
        async for within, resources in self._pages.pages(
            [measured.sku.meter], since=day.start - LOOK_BACK, projects=projects, others=others
        ):
            given = await self._given_lives(resources, found)
            statement = f"WITH {parts} {SELECT_COMPUTED}"
            for resource, project, document, quantity, unmetered in await self._pool.rows(
                statement, {**parameters, **given, **within._asdict(), "resources": [id for id, _ in resources]}
            ):
                atoms[project, resource, document] = quantity, unmetered
        return atoms

    async def _given_lives(self, resources: Any, found: dict[str, list[ResourceLife]]) -> dict[str, list[Any]]:
        spans = [
            (id, span)
            for id, name in resources
            if name in found
            for span in existence_spans([segment for each in found[name] for segment in each.segments])
        ]
        rows = await self._pool.rows(LIFE_PROJECTS, [sorted({span.project_id for _, span in spans})])
        ids = dict(rows)
        return {
            "life_resources": [id for id, _ in spans],
            # A project without samples has no id; it has no usage either that could be told.
            "life_projects": [ids.get(span.project_id, 0 if not span.project_id else -1) for _, span in spans],
            "life_begins": [span.began for _, span in spans],
            "life_ends": ["infinity" if span.ended is None else span.ended.isoformat() for _, span in spans],
            "life_off": [span.is_off for _, span in spans],
        }


def _exists(life: ResourceLife, day: MeasuredDay) -> bool:
    return any(
        each.began < day.finish and (each.ended is None or each.ended > day.start)
        for each in existence_spans(life.segments)
    )


def _sorted(
    measured: MeasuredSku, day: MeasuredDay, atoms: dict[tuple[str, str, str], tuple[Decimal, int]]
) -> list[UsageAtom]:
    found = [
        UsageAtom(
            sku=measured.sku.id,
            project_id=project,
            resource_id=resource,
            day=day.day,
            values=msgspec.json.decode(document),
            quantity=quantity,
            unmetered_seconds=int(unmetered),
        )
        for (project, resource, document), (quantity, unmetered) in atoms.items()
    ]
    return sorted(found, key=lambda each: (each.project_id, each.resource_id, values_order(each.values)))
