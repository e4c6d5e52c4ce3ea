"""The smallest quantity that is billed: of one resource, SKU and day. All other quantities are exact sums of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageAtom:
    """The ``quantity`` of a SKU, in its unit and with at most 9 decimals, that a resource used on ``day`` for a project.

    ``values`` are those of the SKU's ``by`` that held; if one changed on the day, the day has an atom for each. ``day`` is one in the
    book's time zone; for SKUs whose quantity is one of a period it is the period's first day. ``unmetered_seconds``: so long of
    the day the resource existed and nothing is known of its usage; this time is not in the quantity. ``resource_id`` is "" for the sum of
    several resources.
    """

    sku: str
    project_id: str
    resource_id: str
    day: date
    values: Mapping[str, str]
    quantity: Decimal
    unmetered_seconds: int = 0
