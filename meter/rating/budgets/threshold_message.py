"""The webhook message that tells that a threshold of a budget was reached: docs/budgets.rst has it field by field."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC
from datetime import datetime
from decimal import Decimal

import msgspec

from meter.rating.budgets.budget_state import Basis
from meter.rating.budgets.budget_state import BudgetGap
from meter.rating.budgets.budget_state import BudgetState
from meter.rating.budgets.budget_state import BudgetThreshold
from meter.rating.budgets.budget_store import ReachedThreshold
from meter.rating.budgets.budget_store import WaitingWebhook
from meter.rating.budgets.webhook_delivery import RETRY_FOR
from meter.rating.exact import plain

MESSAGE_TYPE = "budget.threshold_reached"


class ThresholdData(msgspec.Struct, kw_only=True):
    """The budget at the time at which it reached the threshold. Decimals are strings, times are in UTC.

    ``limit``, ``used``, ``forecast`` and ``left`` are in ``currency``, or else in ``unit``. ``complete`` is false if there are
    ``gaps``: then more was used than is known.
    """

    budget_id: str
    budget_name: str
    project_id: str | None
    account_id: str | None
    domain_id: str | None
    sku: str | None
    period: str
    period_start: datetime
    period_end: datetime
    basis: Basis
    percent: Decimal
    limit: Decimal
    used: Decimal
    used_percent: Decimal | None
    forecast: Decimal | None
    forecast_percent: Decimal | None
    left: Decimal
    currency: str | None
    unit: str | None
    complete: bool
    gaps: list[BudgetGap]
    evaluated_at: datetime


class ThresholdMessage(msgspec.Struct, kw_only=True):
    """The message; ``timestamp`` is when the threshold was found to be reached."""

    type: str
    timestamp: datetime
    data: ThresholdData


def threshold_message(state: BudgetState, threshold: BudgetThreshold, now: datetime) -> bytes:
    """Return the message that ``threshold`` of the budget in ``state`` is reached, as JSON."""
    data = ThresholdData(
        budget_id=state.budget_id,
        budget_name=state.name,
        project_id=state.scope.project_id,
        account_id=state.scope.account_id,
        domain_id=state.scope.domain_id,
        sku=state.sku,
        period=state.period,
        period_start=_utc(state.start),
        period_end=_utc(state.end),
        basis=threshold.basis,
        percent=threshold.percent,
        limit=state.limit,
        used=state.used,
        used_percent=state.used_percent,
        forecast=state.forecast,
        forecast_percent=state.forecast_percent,
        left=state.left,
        currency=state.currency,
        unit=state.unit,
        complete=not state.gaps,
        gaps=list(state.gaps),
        evaluated_at=_utc(state.evaluated_at),
    )
    return msgspec.json.encode(ThresholdMessage(type=MESSAGE_TYPE, timestamp=_utc(now), data=data))


def threshold_webhooks(
    state: BudgetState, threshold: BudgetThreshold, targets: Iterable[str], now: datetime
) -> list[WaitingWebhook]:
    """Return the webhooks that tell ``targets`` that ``threshold`` is reached; the same threshold always has the same ids."""
    body = threshold_message(state, threshold, now)
    return [
        WaitingWebhook(
            id=_id(state, threshold, target),
            target=target,
            body=body,
            created_at=now,
            retry_until=now + RETRY_FOR,
            attempts=0,
            next_attempt_at=now,
        )
        for target in dict.fromkeys(targets)
    ]


def reached_threshold(state: BudgetState, threshold: BudgetThreshold, now: datetime) -> ReachedThreshold:
    """Return the record that ``threshold`` of the budget in ``state`` is reached."""
    return ReachedThreshold(
        budget_id=state.budget_id, period=state.period, basis=threshold.basis, percent=threshold.percent, at=now
    )


def _id(state: BudgetState, threshold: BudgetThreshold, target: str) -> str:
    parts = [state.budget_id, state.period, threshold.basis, str(plain(threshold.percent)), target]
    return f"msg_{hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]}"


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC)
