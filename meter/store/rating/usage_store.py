"""StoredUsage: the usage of resources and days, computed in PostgreSQL and kept there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import UTC
from datetime import date
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from meter.daemon.services import wall_seconds
from meter.daemon.shared_slices import SharedSlices
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import Sku
from meter.rating.period import BillingPeriod
from meter.rating.statements.statement import AnnexRow
from meter.rating.usage.measured_skus import MeasuredSku
from meter.rating.usage.measured_skus import counts_resources
from meter.rating.usage.measured_skus import measured_skus
from meter.rating.usage.usage_atom import UsageAtom
from meter.rating.usage.usage_store import IUsage
from meter.store.postgres.pool import Pool
from meter.store.rating.usage_computation import UsageComputation
from meter.store.rating.usage_reads import ANNEX
from meter.store.rating.usage_reads import ATOMS
from meter.store.rating.usage_reads import COUNT
from meter.store.rating.usage_reads import FEW_PROJECTS
from meter.store.rating.usage_reads import MAX_ROWS
from meter.store.rating.usage_reads import PROJECT_IDS
from meter.store.rating.usage_reads import PROJECTS
from meter.store.rating.usage_reads import TOTALS
from meter.store.rating.usage_reads import atoms_parameters
from meter.store.rating.usage_reads import atoms_sql
from meter.store.rating.usage_reads import is_plain
from meter.store.rating.usage_refresh import UsageRefresh
from meter.store.rating.usage_rows import KNOWN_SKUS

AS_OF = "SELECT nullif(min(as_of), '-infinity') FROM usage_day WHERE sku_id = ANY(%s) AND day >= %s AND day < %s"

CONVERTED_ROWS = 100
"""Rows that are made to records before the time is checked."""

_days = msgspec.json.Decoder(dict[str, Decimal])


@implementer(IUsage)
class StoredUsage:
    """Computes over ``work``, and reads what is kept over ``readers``."""

    def __init__(self, work: Pool, readers: Pool, clock: IReactorTime, slices: SharedSlices) -> None:
        self._readers = readers
        self._clock = clock
        self._slices = slices
        self._refresh = UsageRefresh(work, clock, slices)
        self._computation = UsageComputation(work, clock, slices)

    async def refresh(self, book: PriceBook, period: BillingPeriod, now: datetime) -> int:
        """Compute changed days; see ``IUsage.refresh``."""
        return await self._refresh.run(book, period, now)

    async def as_of(self, book: PriceBook, period: BillingPeriod) -> datetime | None:
        """Return when the kept usage was computed; see ``IUsage.as_of``."""
        ids = [id for id, _ in await self._known(book)]
        [[as_of]] = await self._readers.rows(AS_OF, [ids, period.first, period.until])
        found: datetime | None = as_of
        return found

    async def changed_days(self, book: PriceBook, period: BillingPeriod) -> Sequence[date]:
        """Return the days to compute; see ``IUsage.changed_days``."""
        return await self._refresh.changed_days(book, period, datetime.fromtimestamp(wall_seconds(self._clock), UTC))

    async def projects(self, book: PriceBook, period: BillingPeriod) -> Sequence[str]:
        """Return projects with usage; see ``IUsage.projects``."""
        ids = [id for id, _ in await self._known(book)]
        rows = await self._readers.rows(PROJECTS, {"skus": ids, "first": period.first, "until": period.until})
        return [name for [name] in rows]

    async def totals(
        self, book: PriceBook, period: BillingPeriod, projects: Collection[str], skus: Collection[str] | None = None
    ) -> AsyncIterator[UsageAtom]:
        """Yield sums over resources; see ``IUsage.totals``."""
        known = [each for each in await self._known(book) if skus is None or each[1].id in skus]
        by_resource = {id for id, sku in known if counts_resources(book, sku.id)}
        async for atom in self._atoms(known, period, await self._project_ids(projects), by_resource=by_resource):
            yield atom

    async def atoms(
        self,
        book: PriceBook,
        period: BillingPeriod,
        projects: Collection[str],
        resource_id: str | None = None,
        skus: Collection[str] | None = None,
    ) -> AsyncIterator[UsageAtom]:
        """Yield kept usage; see ``IUsage.atoms``."""
        known = [each for each in await self._known(book) if skus is None or each[1].id in skus]
        of_all = {id for id, _ in known}
        project_ids = await self._project_ids(projects)
        async for atom in self._atoms(known, period, project_ids, resource_id, by_resource=of_all):
            yield atom

    async def annex(self, book: PriceBook, period: BillingPeriod, projects: Collection[str]) -> AsyncIterator[AnnexRow]:
        """Yield kept usage by resource; see ``IUsage.annex``."""
        known = await self._known(book)
        for project_id in await self._project_ids(projects):
            async for sku, (project, resource, document, days) in self._rows(ANNEX, known, period, [project_id]):
                yield AnnexRow(
                    project_id=project,
                    sku=sku.id,
                    resource_id=resource,
                    values=msgspec.json.decode(document),
                    days=_days.decode(days),
                )

    async def computed(
        self, book: PriceBook, period: BillingPeriod, projects: Collection[str], as_of: datetime
    ) -> AsyncIterator[UsageAtom]:
        """Yield usage as of a time; see ``IUsage.computed``."""
        async for atom in self._computation.atoms(book, period, frozenset(projects), as_of):
            yield atom

    async def _atoms(
        self,
        known: Sequence[tuple[int, Sku]],
        period: BillingPeriod,
        project_ids: Sequence[int],
        resource_id: str | None = None,
        *,
        by_resource: Collection[int],
    ) -> AsyncIterator[UsageAtom]:
        """Yield atoms of ``known`` SKUs, summed over resources but for those of ``by_resource``, in the order of SKUs."""
        decoded: dict[str, dict[str, str]] = {}
        for template, some in _runs(known, by_resource):
            async for sku, row in self._rows(template, some, period, project_ids, resource_id):
                day, project, resource, document, quantity, unmetered = row
                values = decoded.get(document)
                if values is None:
                    values = decoded[document] = msgspec.json.decode(document)
                yield UsageAtom(
                    sku=sku.id,
                    project_id=project,
                    resource_id=resource,
                    day=day,
                    values=values,
                    quantity=quantity,
                    unmetered_seconds=int(unmetered),
                )

    async def _rows(
        self,
        template: str,
        known: Sequence[tuple[int, Sku]],
        period: BillingPeriod,
        project_ids: Sequence[int],
        resource_id: str | None = None,
    ) -> AsyncIterator[tuple[Sku, tuple[Any, ...]]]:
        """Yield the rows of ``template``, without the SKU's id, in the order of ``known``."""
        of_resource = resource_id is not None
        plain = [id for id, sku in known if is_plain(sku)]
        parameters = atoms_parameters(plain, None, period, project_ids, resource_id)
        atoms = atoms_sql(None, len(project_ids), of_resource=of_resource)
        together: defaultdict[int, list[tuple[Any, ...]]] | None = None
        if len(plain) > 1 and len(project_ids) <= FEW_PROJECTS:
            [[count]] = await self._readers.rows(COUNT.format(atoms=atoms), parameters)
            if count <= MAX_ROWS:
                together = defaultdict(list)
                for row in await self._readers.rows(template.format(atoms=atoms), parameters):
                    together[row[0]].append(row)
        slices = self._slices.of(object())
        for id, sku in known:
            if together is not None and is_plain(sku):
                rows = together.pop(id, [])
            else:
                statement = template.format(atoms=atoms_sql(sku, len(project_ids), of_resource=of_resource))
                alone = atoms_parameters([id], sku.minimum, period, project_ids, resource_id)
                rows = await self._readers.rows(statement, alone)
            async for batch in slices.consume(rows, CONVERTED_ROWS):
                for row in batch:
                    yield sku, row[1:]

    async def _known(self, book: PriceBook) -> list[tuple[int, Sku]]:
        """Return the SKUs that have been measured, in the order of their ids, each with the id of its definition."""
        found: Sequence[MeasuredSku] = measured_skus(book)
        rows = await self._readers.rows(KNOWN_SKUS, [[each.fingerprint for each in found]])
        ids = {bytes(fingerprint): id for fingerprint, id in rows}
        return [(ids[each.fingerprint], each.sku) for each in found if each.fingerprint in ids]

    async def _project_ids(self, projects: Collection[str]) -> list[int]:
        """Return the ids of ``projects``, in the order of their names."""
        rows = await self._readers.rows(PROJECT_IDS, {"projects": sorted(projects)})
        return [id for [id] in rows]


def _runs(
    known: Sequence[tuple[int, Sku]], by_resource: Collection[int]
) -> Iterator[tuple[str, list[tuple[int, Sku]]]]:
    """Yield consecutive SKUs that are read alike, with the statement that reads them."""
    for alike, some in groupby(known, lambda each: each[0] in by_resource):
        yield (ATOMS if alike else TOTALS), list(some)
