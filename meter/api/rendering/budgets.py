"""JSON schemas of ``/v2/budgets``, and the conversion of states. docs/budgets.rst says what the fields mean."""

from __future__ import annotations

import msgspec

from meter.rating.budgets.budget_state import BudgetState
from meter.sample import utc_text


class Gap(msgspec.Struct, kw_only=True):
    """Usage that is not known: ``seconds`` that are unmetered, or ``samples`` that are missing."""

    code: str
    text: str
    seconds: int
    samples: int


class Threshold(msgspec.Struct, kw_only=True):
    """A threshold in percent of the limit, of what was *used* or is *forecast*. ``reached_at`` is null while it was not reached."""

    basis: str
    percent: str
    reached_at: str | None


class Budget(msgspec.Struct, kw_only=True):
    """A budget in a period, as it was evaluated last. Amounts are in ``currency``, quantities in ``unit``; the other one is null.

    ``forecast`` is null in the first 24 hours of the period. If ``complete`` is false, more was used than is known.
    """

    budget_id: str
    name: str
    project_id: str | None
    account_id: str | None
    domain_id: str | None
    sku: str | None
    period: str
    start: str
    end: str
    currency: str | None
    unit: str | None
    limit: str
    used: str
    used_percent: str | None
    forecast: str | None
    forecast_percent: str | None
    left: str
    complete: bool
    gaps: list[Gap]
    thresholds: list[Threshold]
    evaluated_at: str


def budget(state: BudgetState) -> Budget:
    """Return a state as JSON."""
    return Budget(
        budget_id=state.budget_id,
        name=state.name,
        project_id=state.scope.project_id,
        account_id=state.scope.account_id,
        domain_id=state.scope.domain_id,
        sku=state.sku,
        period=state.period,
        start=utc_text(state.start),
        end=utc_text(state.end),
        currency=state.currency,
        unit=state.unit,
        limit=str(state.limit),
        used=str(state.used),
        used_percent=_text(state.used_percent),
        forecast=_text(state.forecast),
        forecast_percent=_text(state.forecast_percent),
        left=str(state.left),
        complete=not state.gaps,
        gaps=[Gap(code=each.code, text=each.text, seconds=each.seconds, samples=each.samples) for each in state.gaps],
        thresholds=[
            Threshold(
                basis=each.basis,
                percent=str(each.percent),
                reached_at=None if each.reached_at is None else utc_text(each.reached_at),
            )
            for each in state.thresholds
        ],
        evaluated_at=utc_text(state.evaluated_at),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
