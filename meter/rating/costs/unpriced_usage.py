"""Usage without a price over all accounts: what was used of which SKU, with which values, and by how many.

It is that of the unpriced usage of all statements, by the present price directory, without rating the accounts: only the usage
of SKUs that have no price for everybody is read, and only its price is looked for. Usage is kept usage; nothing is computed again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

from meter.completeness.lives.resource_lives import Pausing
from meter.daemon.locks import Lock
from meter.identity_names import IIdentityNames
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import Sku
from meter.rating.book.price_index import price_of
from meter.rating.book.price_index import scope_key
from meter.rating.exact import EXACT
from meter.rating.exact import plain
from meter.rating.money.priced_usage import Values
from meter.rating.money.priced_usage import as_values
from meter.rating.period import BillingPeriod
from meter.rating.rating_store import IRatingStore
from meter.rating.statements.project_history import ProjectHistory
from meter.rating.usage.usage_store import IUsage

MAX_UNPRICED_AGE = timedelta(minutes=5)
"""How old an answer may be. Usage is rated at such intervals, so that a newer one would rarely say anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpricedGroup:
    """What was used of a SKU with the same values in a period, on days from ``first`` until before ``until``, without a price.

    ``meter`` is ``None`` for a SKU of the existence of ``resource_kind``. ``resources``, ``projects`` and ``accounts`` are how many
    used it; ``quantity`` is in ``unit``.
    """

    book: str
    period: BillingPeriod
    sku: str
    sku_name: str
    meter: str | None
    resource_kind: str | None
    values: Mapping[str, str]
    quantity: Decimal
    unit: str
    resources: int
    projects: int
    accounts: int
    first: date
    until: date


@dataclass(slots=True)
class _Found:
    """The unpriced usage of a SKU and values: the days of each project, and what was used."""

    days: defaultdict[str, set[date]] = field(default_factory=lambda: defaultdict(set))
    accounts: set[tuple[str, bool]] = field(default_factory=set)
    resources: set[str] = field(default_factory=set)
    quantity: Decimal = Decimal(0)


async def unpriced_usage(
    store: IRatingStore, names: IIdentityNames, directory: PriceDirectory, now: datetime, slices: Pausing
) -> list[UnpricedGroup]:
    """Return the unpriced usage of the present period and of the one before, of all books: the newest first, by SKU and values."""
    found = []
    for _, book in sorted(directory.books.items()):
        present = BillingPeriod.containing(now, book.timezone)
        for period in (present, present.previous):
            search = _UnpricedSearch(store.usage, directory, book, period, slices)
            found += await search.groups(names)
    return sorted(found, key=lambda each: each.period.first, reverse=True)


class _UnpricedSearch:
    """Finds the unpriced usage of one book and period."""

    def __init__(
        self, usage: IUsage, directory: PriceDirectory, book: PriceBook, period: BillingPeriod, slices: Pausing
    ) -> None:
        self._usage = usage
        self._directory = directory
        self._book = book
        self._period = period
        self._slices = slices
        self._accounts: dict[tuple[str, date], tuple[Account, str | None]] = {}

    async def groups(self, names: IIdentityNames) -> list[UnpricedGroup]:
        """Return the groups, in the order of SKU and values."""
        skus = [id for id in sorted(self._book.skus) if not has_price_for_all(self._book, id, self._period)]
        # Resources without a project belong to no account: nobody pays for them.
        projects = [each for each in await self._usage.projects(self._book, self._period) if each] if skus else []
        if not projects:
            return []
        history = await ProjectHistory.read(names, projects, self._book.timezone)
        found: defaultdict[tuple[str, Values], _Found] = defaultdict(_Found)
        async for atom in self._usage.totals(self._book, self._period, projects, skus=skus):
            await self._pause()
            values = as_values(atom.values)
            if atom.quantity and (account := self._unpriced_for(history, atom.sku, values, atom.project_id, atom.day)):
                group = found[atom.sku, values]
                group.days[atom.project_id].add(atom.day)
                group.accounts.add((account.id, account.implied))
                group.quantity = EXACT.add(group.quantity, atom.quantity)
        await self._count_resources(found)
        return [
            self._group(self._book.skus[sku], values, group) for (sku, values), group in sorted(found.items(), key=_key)
        ]

    async def _count_resources(self, found: Mapping[tuple[str, Values], _Found]) -> None:
        projects = sorted({each for group in found.values() for each in group.days})
        skus = sorted({sku for sku, _ in found})
        if not found:
            return
        async for atom in self._usage.atoms(self._book, self._period, projects, skus=skus):
            await self._pause()
            group = found.get((atom.sku, as_values(atom.values)))
            if group is not None and atom.quantity and atom.day in group.days.get(atom.project_id, ()):
                group.resources.add(atom.resource_id)

    def _unpriced_for(
        self, history: ProjectHistory, sku: str, values: Values, project_id: str, day: date
    ) -> Account | None:
        """Return the account that would pay for usage which has no price; ``None`` if it has one, or is paid by another book."""
        known = self._accounts.get((project_id, day))
        if known is None:
            domain_id = history.domain_of(project_id, day)
            known = self._directory.account_of(project_id, domain_id, day), domain_id
            self._accounts[project_id, day] = known
        account, domain_id = known
        if account.book != self._book.name:
            return None
        price = price_of(
            self._book, sku, dict(values), project=project_id, account=account.id, domain=domain_id, day=day
        )
        return account if price is None else None

    def _group(self, sku: Sku, values: Values, group: _Found) -> UnpricedGroup:
        days = set().union(*group.days.values())
        return UnpricedGroup(
            book=self._book.name,
            period=self._period,
            sku=sku.id,
            sku_name=sku.name,
            meter=sku.meter,
            resource_kind=sku.resource_kind,
            values=dict(values),
            quantity=plain(group.quantity),
            unit=sku.unit,
            resources=len(group.resources),
            projects=len(group.days),
            accounts=len(group.accounts),
            first=min(days),
            until=max(days) + timedelta(days=1),
        )

    async def _pause(self) -> None:
        if self._slices.over:
            await self._slices.pause()


def _key(item: tuple[tuple[str, Values], _Found]) -> tuple[str, Values]:
    return item[0]


def has_price_for_all(book: PriceBook, sku: str, period: BillingPeriod) -> bool:
    """Return whether one price of ``sku`` is for everybody, whatever the values are, on all days of ``period``."""
    last = period.until - timedelta(days=1)
    return any(
        price.sku == sku
        and not price.match
        and scope_key(price.scope) == ("", "")
        and price.validity.covers(period.first)
        and price.validity.covers(last)
        for price in book.prices
    )


class RecentUnpricedUsage:
    """Keeps the unpriced usage for a short time: whoever asks again, and whoever asks at the same time, gets the same."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: tuple[PriceDirectory, datetime, Sequence[UnpricedGroup]] | None = None

    async def groups(
        self, store: IRatingStore, names: IIdentityNames, directory: PriceDirectory, now: datetime, slices: Pausing
    ) -> Sequence[UnpricedGroup]:
        """Return what :func:`unpriced_usage` returns for the parameters, or returned moments ago; errors are not kept."""
        await self._lock.acquire()
        try:
            kept = self._kept
            if kept is not None and kept[0] is directory and timedelta(0) <= now - kept[1] < MAX_UNPRICED_AGE:
                return kept[2]
            found = await unpriced_usage(store, names, directory, now, slices)
            self._kept = directory, now, found
            return found
        finally:
            self._lock.release()
