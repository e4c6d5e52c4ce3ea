"""Budgets as bars: what was used and is forecast, beside the limit and its thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from meter.api.web.billing.amount_bars import length
from meter.rating.budgets.budget_state import BudgetState

HUNDRED = Decimal(100)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetBar:
    """A budget with positions in percent of the length of its bar. ``level``: the class of its colour."""

    state: BudgetState
    used: float
    forecast: float | None
    limit: float
    thresholds: tuple[float, ...]
    level: str

    @property
    def unit(self) -> str:
        """The currency or unit of its numbers."""
        return self.state.currency or self.state.unit or ""


def budget_bar(state: BudgetState) -> BudgetBar:
    """Return the bar of a budget; it is as long as the largest of limit, usage, forecast and thresholds."""
    thresholds = [state.limit * each.percent / HUNDRED for each in state.thresholds]
    longest = max([state.limit, state.used, state.forecast or Decimal(0), *thresholds])
    over = state.used >= state.limit > 0
    warned = any(each.reached_at is not None for each in state.thresholds)
    expected = state.forecast is not None and state.forecast >= state.limit > 0
    return BudgetBar(
        state=state,
        used=length(state.used, longest),
        forecast=None if state.forecast is None else length(state.forecast, longest),
        limit=length(state.limit, longest),
        thresholds=tuple(length(each, longest) for each in thresholds),
        level="bad" if over else "warn" if warned or expected else "good",
    )
