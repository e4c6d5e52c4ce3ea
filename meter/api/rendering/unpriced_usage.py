"""JSON schema of ``/v2/unpriced-usage``. docs/prices.rst says what it means."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import msgspec

from meter.rating.costs.unpriced_usage import UnpricedGroup


class UnpricedUsageEntry(msgspec.Struct, kw_only=True):
    """What was used of a SKU with the same values in a period without a price, on days from ``from`` until before ``until``.

    ``quantity`` is in ``unit``. ``resources``, ``projects`` and ``accounts`` are how many used it. ``meter`` is null for a SKU that
    counts how long resources of ``resource_kind`` exist.
    """

    period: str
    book: str
    sku: str
    name: str
    meter: str | None
    resource_kind: str | None
    values: dict[str, str]
    quantity: Decimal
    unit: str
    resources: int
    projects: int
    accounts: int
    since: date = msgspec.field(name="from")
    until: date


def unpriced_entry(group: UnpricedGroup) -> UnpricedUsageEntry:
    """Return a group as JSON."""
    return UnpricedUsageEntry(
        period=group.period.name,
        book=group.book,
        sku=group.sku,
        name=group.sku_name,
        meter=group.meter,
        resource_kind=group.resource_kind,
        values=dict(group.values),
        quantity=group.quantity,
        unit=group.unit,
        resources=group.resources,
        projects=group.projects,
        accounts=group.accounts,
        since=group.first,
        until=group.until,
    )
