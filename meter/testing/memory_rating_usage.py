"""MemoryUsage: the usage of resources and days, computed from a store in memory: the readable reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec
from zope.interface import implementer

from meter.completeness.lives.observation import LifeSegment
from meter.completeness.lives.resource_lives import lives
from meter.query import SampleFilter
from meter.query import StoredSample
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import Sku
from meter.rating.exact import EXACT
from meter.rating.exact import quantity
from meter.rating.period import BillingPeriod
from meter.rating.statements.statement import AnnexRow
from meter.rating.usage.existence import existence
from meter.rating.usage.existence import existence_spans
from meter.rating.usage.existence import rounded_up
from meter.rating.usage.measured_skus import MeasuredDay
from meter.rating.usage.measured_skus import counts_resources
from meter.rating.usage.measured_skus import is_measured_whole
from meter.rating.usage.measured_skus import life_kinds
from meter.rating.usage.measured_skus import measured_days
from meter.rating.usage.measured_skus import measured_skus
from meter.rating.usage.measured_skus import whole_period
from meter.rating.usage.minimum import MinimumOfResources
from meter.rating.usage.sku_definition import values_order
from meter.rating.usage.sku_definition import values_text
from meter.rating.usage.usage_atom import UsageAtom
from meter.rating.usage.usage_store import IUsage
from meter.resource_owner import is_submitted
from meter.testing.usage_measuring import MEASURES
from meter.testing.usage_measuring import MeasuredTotal
from meter.testing.usage_measuring import SampledWindow

if TYPE_CHECKING:
    from meter.testing.memory_store import MemoryStore

KeptKey = tuple[bytes, BillingPeriod]
Segments = dict[str, dict[str, list[LifeSegment]]]
"""The segments of lives, by resource and kind."""


@implementer(IUsage)
class MemoryUsage:
    """Computes from the samples of ``store``, all of a period each time, and keeps what it computed last."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._kept: dict[KeptKey, dict[date, list[UsageAtom]]] = {}
        self._as_of: dict[KeptKey, datetime] = {}
        self._until: dict[KeptKey, datetime] = {}

    async def refresh(self, book: PriceBook, period: BillingPeriod, now: datetime) -> int:
        """Compute all days, and return how many have changed; see ``IUsage.refresh``."""
        as_of = datetime.fromtimestamp(self._store.clock_seconds(), UTC)
        changed: set[date] = set()
        segments = await self._segments(book, now, None)
        for measured in measured_skus(book):
            key = measured.fingerprint, period
            kept = self._kept.get(key, {})
            fresh = self._days(measured.sku, period, now, segments, None)
            before = measured_days(period, self._until[key]) if key in self._until else []
            days = {day.day: day for day in measured_days(period, now)}
            changed |= {day for day, measured_day in days.items() if measured_day not in before}
            changed |= {day for day in fresh if _without_sku(fresh[day]) != _without_sku(kept.get(day, []))}
            self._kept[key], self._as_of[key], self._until[key] = fresh, as_of, now
        return len(changed)

    async def changed_days(self, book: PriceBook, period: BillingPeriod) -> Sequence[date]:
        """Return the days that were never computed, or not until now; see ``IUsage.changed_days``."""
        now = datetime.fromtimestamp(self._store.clock_seconds(), UTC)
        segments = await self._segments(book, now, None)
        changed: set[date] = set()
        for measured in measured_skus(book):
            key = measured.fingerprint, period
            before = measured_days(period, self._until[key]) if key in self._until else []
            fresh = self._days(measured.sku, period, now, segments, None)
            for day in measured_days(period, now):
                kept = self._kept.get(key, {}).get(day.day, [])
                if day not in before or _without_sku(fresh[day.day]) != _without_sku(kept):
                    changed.add(day.day)
        return sorted(changed)

    async def as_of(self, book: PriceBook, period: BillingPeriod) -> datetime | None:
        """Return when usage was computed; see ``IUsage.as_of``."""
        return min((self._as_of[key] for key in self._keys(book, period) if key in self._as_of), default=None)

    async def projects(self, book: PriceBook, period: BillingPeriod) -> Sequence[str]:
        """Return projects with usage; see ``IUsage.projects``."""
        return sorted({atom.project_id for atom in self._read(book, period)})

    async def totals(
        self, book: PriceBook, period: BillingPeriod, projects: Collection[str], skus: Collection[str] | None = None
    ) -> AsyncIterator[UsageAtom]:
        """Yield sums over resources; see ``IUsage.totals``."""
        for sku in sorted(book.skus.values(), key=lambda each: each.id):
            if skus is not None and sku.id not in skus:
                continue
            atoms = [atom for atom in self._read(book, period, {sku.id}) if atom.project_id in projects]
            if not counts_resources(book, sku.id):
                atoms = _summed(atoms)
            for atom in atoms:
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
        for atom in self._read(book, period, skus):
            if atom.project_id in projects and resource_id in (None, atom.resource_id):
                yield atom

    async def annex(self, book: PriceBook, period: BillingPeriod, projects: Collection[str]) -> AsyncIterator[AnnexRow]:
        """Yield kept usage by resource; see ``IUsage.annex``."""
        rows: defaultdict[tuple[str, str, str, tuple[tuple[str, str], ...]], dict[str, Decimal]] = defaultdict(dict)
        for atom in self._read(book, period):
            if atom.project_id in projects and atom.quantity:
                key = atom.project_id, atom.sku, atom.resource_id, values_order(atom.values)
                rows[key][atom.day.isoformat()] = atom.quantity
        for (project, sku, resource, values), days in sorted(rows.items(), key=lambda item: item[0]):
            yield AnnexRow(
                project_id=project,
                sku=sku,
                resource_id=resource,
                values=dict(values),
                days=dict(sorted(days.items())),
            )

    async def computed(
        self, book: PriceBook, period: BillingPeriod, projects: Collection[str], as_of: datetime
    ) -> AsyncIterator[UsageAtom]:
        """Yield usage as of a time; see ``IUsage.computed``."""
        segments = await self._segments(book, as_of, as_of)
        for measured in measured_skus(book):
            for atom in _complete(measured.sku, self._days(measured.sku, period, as_of, segments, as_of)):
                if atom.project_id in projects:
                    yield atom

    def _keys(self, book: PriceBook, period: BillingPeriod) -> list[KeptKey]:
        return [(measured.fingerprint, period) for measured in measured_skus(book)]

    def _read(self, book: PriceBook, period: BillingPeriod, skus: Collection[str] | None = None) -> Iterable[UsageAtom]:
        for measured in measured_skus(book):
            if skus is None or measured.sku.id in skus:
                yield from _complete(measured.sku, self._kept.get((measured.fingerprint, period), {}))

    async def _segments(self, book: PriceBook, now: datetime, as_of: datetime | None) -> Segments:
        found: Segments = {}
        kinds = life_kinds(book.skus.values())
        if kinds:
            async for each in lives(self._store, SampleFilter(as_of=as_of), None, now, kinds=kinds):
                found.setdefault(each.resource_id, {}).setdefault(each.kind, []).extend(each.segments)
        return found

    def _days(
        self, sku: Sku, period: BillingPeriod, now: datetime, segments: Segments, as_of: datetime | None
    ) -> dict[date, list[UsageAtom]]:
        days = [whole_period(period, now)] if is_measured_whole(sku) else measured_days(period, now)
        measure = self._existing if sku.usage == "exists" else self._measured
        return {day.day: measure(sku, day, segments, as_of) for day in days if day.start < day.finish}

    def _existing(self, sku: Sku, day: MeasuredDay, segments: Segments, as_of: datetime | None) -> list[UsageAtom]:
        found = []
        for resource, by_kind in segments.items():
            used = existence(sku, by_kind.get(sku.resource_kind or "", []), day.start, day.finish)
            for (project, values), (amount, unmetered) in used.items():
                found.append(
                    UsageAtom(
                        sku=sku.id,
                        project_id=project,
                        resource_id=resource,
                        day=day.day,
                        values=dict(values),
                        quantity=amount,
                        unmetered_seconds=unmetered,
                    )
                )
        return sorted(found, key=_order)

    def _measured(self, sku: Sku, day: MeasuredDay, segments: Segments, as_of: datetime | None) -> list[UsageAtom]:
        rows: defaultdict[tuple[str, str], list[StoredSample]] = defaultdict(list)
        for row in self._store.matching(SampleFilter(equals={"meter": sku.meter}, as_of=as_of)):
            if not is_submitted(row):
                rows[row.resource_id, "" if sku.usage == "integral" else row.unit].append(row)
        totals: dict[tuple[str, str, str], MeasuredTotal] = {}
        for (resource, _), of_resource in rows.items():
            lived = [each for several in segments.get(resource, {}).values() for each in several]
            window = SampledWindow(sku, of_resource, day.start, day.finish, existence_spans(lived))
            for (project, values), measured in MEASURES[sku.usage](window).items():
                total = totals.setdefault((resource, project, values), MeasuredTotal())
                total.total += measured.total
                total.unmetered_microseconds += measured.unmetered_microseconds
        return sorted(
            (
                UsageAtom(
                    sku=sku.id,
                    project_id=project,
                    resource_id=resource,
                    day=day.day,
                    values=msgspec.json.decode(values),
                    quantity=_in_unit(sku, total.total),
                    unmetered_seconds=total.unmetered_microseconds // 1_000_000,
                )
                for (resource, project, values), total in totals.items()
                if _in_unit(sku, total.total) or total.unmetered_microseconds >= 1_000_000
            ),
            key=_order,
        )


def _in_unit(sku: Sku, total: Fraction) -> Decimal:
    scale = Fraction(1, 1_000_000) if sku.usage == "integral" else Fraction(1)
    return rounded_up(quantity(total * sku.factor * scale), sku.round_up_to)


def _order(atom: UsageAtom) -> tuple[str, date, str, str, tuple[tuple[str, str], ...]]:
    return atom.sku, atom.day, atom.project_id, atom.resource_id, values_order(atom.values)


def _without_sku(atoms: Iterable[UsageAtom]) -> list[UsageAtom]:
    """Return ``atoms`` without the name of their SKU: SKUs that are measured alike share them."""
    return [replace(atom, sku="") for atom in atoms]


def _complete(sku: Sku, days: dict[date, list[UsageAtom]]) -> Iterable[UsageAtom]:
    """Yield the atoms of ``days`` for ``sku``, with its minimum; of a maximum, those of the period."""
    minimum = MinimumOfResources(sku.minimum)
    atoms = [[replace(atom, sku=sku.id) for atom in days[day]] for day in sorted(days)]
    if sku.usage == "maximum" and days:
        atoms = [_maxima(min(days), [atom for of_day in atoms for atom in of_day])]
    for of_day in atoms:
        yield from minimum.applied(of_day)


def _maxima(first: date, atoms: Iterable[UsageAtom]) -> list[UsageAtom]:
    found: dict[object, UsageAtom] = {}
    for atom in atoms:
        key = atom.project_id, atom.resource_id, values_text(atom.values)
        before = found.get(key, replace(atom, unmetered_seconds=0))
        found[key] = replace(
            atom,
            day=first,
            quantity=max(before.quantity, atom.quantity),
            unmetered_seconds=before.unmetered_seconds + atom.unmetered_seconds,
        )
    return sorted(found.values(), key=_order)


def _summed(atoms: Iterable[UsageAtom]) -> list[UsageAtom]:
    found = []
    in_order = sorted(atoms, key=lambda atom: (atom.day, atom.project_id, values_order(atom.values)))
    for _, group in groupby(in_order, lambda atom: (atom.day, atom.project_id, values_order(atom.values))):
        several = list(group)
        total = Decimal(0)
        for each in several:
            total = EXACT.add(total, each.quantity)
        unmetered = sum(each.unmetered_seconds for each in several)
        found.append(replace(several[0], resource_id="", quantity=total, unmetered_seconds=unmetered))
    return found
