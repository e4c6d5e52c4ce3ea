"""The usage of an account by resource and day, as the annex of its statement lists it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal

from meter.rating.exact import EXACT
from meter.rating.exact import plain
from meter.rating.money.account_projects import AccountProjects
from meter.rating.statements.payers import Payer
from meter.rating.statements.statement import AnnexRow
from meter.rating.usage.usage_atom import UsageAtom
from meter.rating.usage.usage_store import IUsage

_Place = tuple[str, tuple[tuple[str, str], ...]]


async def annex_rows(usage: IUsage, payer: Payer, owned: AccountProjects) -> AsyncIterator[AnnexRow]:
    """Yield the rows of the annex in its order, of the kept usage; days on which a project is another account's are left out.

    Resources and values without a quantity have no row. In memory is the usage of one project and SKU at a time.
    """
    for project_id in payer.projects:
        for sku in sorted(payer.book.skus):
            collected = ResourceDays(owned)
            async for atom in usage.atoms(payer.book, payer.period, [project_id], skus=[sku]):
                collected.add(atom)
            for row in collected.rows(project_id, sku):
                yield row


class ResourceDays:
    """The quantities of one project and SKU by resource, values and day."""

    def __init__(self, owned: AccountProjects) -> None:
        self._owned = owned
        self._days: dict[_Place, dict[date, Decimal]] = {}

    def add(self, atom: UsageAtom) -> None:
        """Add usage, in any order."""
        if not atom.quantity or not self._owned.has(atom.project_id, atom.day):
            return
        place = atom.resource_id, tuple(sorted(atom.values.items()))
        days = self._days.setdefault(place, {})
        days[atom.day] = EXACT.add(days.get(atom.day, Decimal(0)), atom.quantity)

    def rows(self, project_id: str, sku: str) -> list[AnnexRow]:
        """Return the rows in the order of the annex."""
        return [
            AnnexRow(
                project_id=project_id,
                sku=sku,
                resource_id=resource_id,
                values=dict(values),
                days={day.isoformat(): plain(quantity) for day, quantity in sorted(days.items())},
            )
            for (resource_id, values), days in sorted(self._days.items())
        ]
