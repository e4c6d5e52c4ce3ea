"""The state of a budget: what was used, what is forecast, which thresholds were reached, and what is not known."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

import msgspec

from meter.rating.exact import EXACT
from meter.rating.exact import divided
from meter.rating.exact import plain

Basis = Literal["used", "forecast"]

GapCode = Literal["unmetered", "missing", "unpriced", "other currency", "other unit", "no sku"]
"""Why less is counted than was used: docs/budgets.rst has what each means."""

PERCENT_DECIMALS = 2


class BudgetGap(msgspec.Struct, frozen=True, kw_only=True):
    """Usage that is not in ``used``, or may not be: the figures are lower bounds. ``seconds`` are unmetered, ``samples`` missing."""

    code: GapCode
    text: str
    seconds: int = 0
    samples: int = 0


class BudgetThreshold(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold: ``percent`` of the limit, by what was used or is forecast. ``reached_at`` is ``None`` while it was not reached."""

    basis: Basis
    percent: Decimal
    reached_at: datetime | None = None


class BudgetScope(msgspec.Struct, frozen=True, kw_only=True):
    """Whose usage a budget counts: one of the three is set, or none for the usage of all."""

    project_id: str | None = None
    account_id: str | None = None
    domain_id: str | None = None


class BudgetState(msgspec.Struct, frozen=True, kw_only=True):
    """A budget in a period, from ``start`` until before ``end``, as it was at ``evaluated_at``.

    ``limit``, ``used`` and ``forecast`` are amounts in ``currency`` or quantities in ``unit``; one of the two is set.
    ``forecast`` is the usage at the end of the period, ``None`` while there is too little to forecast by.
    """

    budget_id: str
    name: str
    scope: BudgetScope
    sku: str | None
    period: str
    start: datetime
    end: datetime
    currency: str | None
    unit: str | None
    limit: Decimal
    used: Decimal
    forecast: Decimal | None
    evaluated_at: datetime
    thresholds: tuple[BudgetThreshold, ...] = ()
    gaps: tuple[BudgetGap, ...] = ()

    @property
    def left(self) -> Decimal:
        """What is left of the limit; negative if more was used."""
        left = EXACT.subtract(self.limit, self.used)
        return left if self.unit is None else plain(left)

    @property
    def used_percent(self) -> Decimal | None:
        """The percentage of the limit that was used; see :func:`percentage`."""
        return percentage(self.used, self.limit)

    @property
    def forecast_percent(self) -> Decimal | None:
        """The percentage of the limit that is forecast, ``None`` without a forecast; see :func:`percentage`."""
        return None if self.forecast is None else percentage(self.forecast, self.limit)


def percentage(value: Decimal, limit: Decimal) -> Decimal | None:
    """Return ``value`` in percent of ``limit``, rounded down to two decimals, so that 100 means: reached; ``None`` if the limit is 0."""
    if not limit:
        return None
    return divided(EXACT.multiply(value, Decimal(100)), limit, PERCENT_DECIMALS, "floor")


def is_reached(value: Decimal | None, limit: Decimal, percent: Decimal) -> bool:
    """Return whether ``value`` is at least ``percent`` of ``limit``, exactly. Nothing, or less, reaches no threshold."""
    if value is None or value <= 0:
        return False
    return EXACT.multiply(value, Decimal(100)) >= EXACT.multiply(limit, percent)
