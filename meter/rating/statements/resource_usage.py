"""The usage of an account by resource and day, as the annex of its statement lists it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal

from msgspec.structs import replace

from meter.rating.exact import EXACT
from meter.rating.exact import plain
from meter.rating.money.account_projects import AccountProjects
from meter.rating.statements.payers import Payer
from meter.rating.statements.statement import AnnexRow
from meter.rating.usage.usage_atom import UsageAtom
from meter.rating.usage.usage_store import IUsage


async def annex_rows(usage: IUsage, payer: Payer, owned: AccountProjects) -> AsyncIterator[AnnexRow]:
    """Yield the rows of the annex in its order, of the kept usage; days on which a project is another account's are left out."""
    foreign: dict[str, set[str]] = {}
    async for row in usage.annex(payer.book, payer.period, payer.projects):
        project_id = row.project_id
        if project_id not in foreign:
            days = payer.period.days()
            foreign[project_id] = {day.isoformat() for day in days if not owned.has(project_id, day)}
        if foreign[project_id].isdisjoint(row.days):
            yield row
        elif kept := {day: used for day, used in row.days.items() if day not in foreign[project_id]}:
            yield replace(row, days=kept)


class ResourceDays:
    """The quantities of one project and SKU by resource, values and day; resources and values without a quantity have no row."""

    def __init__(self, owned: AccountProjects) -> None:
        self._owned = owned
        self._days: dict[tuple[str, tuple[tuple[str, str], ...]], dict[date, Decimal]] = {}

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
