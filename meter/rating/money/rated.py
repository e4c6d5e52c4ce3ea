"""What rating an account and period gives: lines, what no price covers, and totals."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import date
from decimal import Decimal
from typing import Literal

LineKind = Literal["usage", "fixed", "discount", "minimum", "correction", "credit", "tax"]

LINE_ORDER: tuple[LineKind, ...] = ("usage", "fixed", "discount", "minimum", "correction", "credit", "tax")
"""The order of kinds on a statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AmendedLine:
    """The line of a closed statement that a correction amends."""

    statement_id: str
    line: int | None
    """Its number, or ``None`` if the closed statement has no such line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedLine:
    """An account × project × SKU × price × tier, or a charge, discount, minimum, correction, credit or tax.

    ``key`` names the line among those of all statements of the account and period: the same usage has the same key whenever it is rated.
    ``tier`` is the number of the tier, from 1; 0 for free units. ``first`` and ``until`` are the days in which it was used.
    ``exact_amount`` is what was computed, ``amount`` is it rounded once; ``list_amount`` is exact, with list prices.
    ``pricing_quantity`` in ``pricing_unit`` is what ``unit_price`` is multiplied by: packages and months, where ``quantity`` is the usage.
    """

    kind: LineKind
    key: str
    project_id: str
    description: str
    first: date
    until: date
    exact_amount: Decimal
    amount: Decimal
    list_amount: Decimal
    sku: str | None = None
    price_id: str | None = None
    tier: int | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    quantity: Decimal | None = None
    unit: str | None = None
    list_unit_price: Decimal | None = None
    unit_price: Decimal | None = None
    pricing_quantity: Decimal | None = None
    pricing_unit: str | None = None
    resource_id: str | None = None
    service: str = ""
    category: str = ""
    tax_category: str | None = None
    amends: AmendedLine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpricedUsage:
    """Usage that no price of the book covers."""

    project_id: str
    sku: str
    values: Mapping[str, str]
    first: date
    until: date
    quantity: Decimal
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmeteredTime:
    """Time in which resources of a project existed and their usage of a SKU is unknown: it is not billed."""

    project_id: str
    sku: str
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """The lines of an account and period, in order, with their sums. ``total`` is ``net`` plus ``tax``; ``net`` has the credits taken off."""

    lines: Sequence[RatedLine]
    unpriced: Sequence[UnpricedUsage]
    unmetered: Sequence[UnmeteredTime]
    net: Decimal
    tax: Decimal
    total: Decimal
