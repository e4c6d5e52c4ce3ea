"""What budgets need of a store: their last states, which thresholds were told, and the webhooks that wait to be delivered."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from zope.interface import Interface

from meter.rating.budgets.budget_state import Basis
from meter.rating.budgets.budget_state import BudgetState


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedThreshold:
    """A threshold of a budget that was reached in a period: ``percent`` of what was *used*, or of the *forecast*."""

    budget_id: str
    period: str
    basis: Basis
    percent: Decimal
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingWebhook:
    """A webhook message that waits for its delivery to ``target``: a name in the configuration. ``id`` stays the same in all attempts.

    ``attempts`` are those begun. ``next_attempt_at`` is ``None`` once the message has *failed*: it is not sent
    again. A failed attempt after ``retry_until`` is the last one.
    """

    id: str
    target: str
    body: bytes
    created_at: datetime
    retry_until: datetime
    attempts: int
    next_attempt_at: datetime | None
    last_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookQueue:
    """How many webhooks of ``target`` wait, the oldest of them since ``waiting_since``, and how many have failed.

    ``last_error`` is that of one that waits, or else of one that has failed; "" without any.
    """

    target: str
    waiting: int
    waiting_since: datetime | None
    failed: int
    last_error: str


class IBudgetStore(Interface):
    """States, thresholds and webhooks. Methods raise ``Unavailable`` as those of ``IStore`` do."""

    async def keep_states(states: Sequence[BudgetState], budget_ids: Collection[str]) -> None:
        """Replace the states of these budgets and periods, and delete all states of budgets that are not among ``budget_ids``."""

    async def states(
        project_id: str | None = None, budget_id: str | None = None, period: str | None = None, limit: int = 1000
    ) -> Sequence[BudgetState]:
        """Return the first ``limit`` states by budget id, of ``period``, or of the newest period of each budget.

        With ``project_id``, only those of budgets of this project, not of its account or domain.
        """

    async def reached(period: str) -> Sequence[ReachedThreshold]:
        """Return the thresholds that were reached in ``period``, in the order of budget, basis and percent."""

    async def reach(threshold: ReachedThreshold, webhooks: Sequence[WaitingWebhook]) -> bool:
        """Store, in one transaction, that a threshold was reached and the webhooks that tell it; ``False`` if it was told before."""

    async def forget(before: str) -> None:
        """Delete the states and thresholds of periods before the period ``before``."""

    async def due_targets(now: datetime) -> Sequence[str]:
        """Return the targets that have a webhook whose next attempt is due, in order."""

    async def claim(target: str, now: datetime, until: datetime) -> WaitingWebhook | None:
        """Begin an attempt: return the oldest webhook of ``target`` that is due, and let nobody else have it before ``until``.

        Without :meth:`delivered` or :meth:`not_delivered` it is due again then.
        """

    async def delivered(webhook_id: str) -> None:
        """Remove a webhook that was delivered."""

    async def not_delivered(webhook_id: str, error: str, next_attempt_at: datetime | None) -> None:
        """Store a failed attempt; without a next one the webhook has failed, and is kept for a look."""

    async def webhook_queues() -> Sequence[WebhookQueue]:
        """Return what waits and what has failed, by target; nothing of targets without either."""

    async def webhooks(limit: int) -> Sequence[WaitingWebhook]:
        """Return the first ``limit`` webhooks that wait or have failed, oldest first."""

    async def retry_webhooks(ids: Collection[str], now: datetime, retry_until: datetime) -> Sequence[str]:
        """Make webhooks that wait or have failed due ``now``, with ``retry_until``; return the ids of those that exist, in order."""

    async def discard_webhooks(ids: Collection[str]) -> Sequence[str]:
        """Delete webhooks that wait or have failed; return the ids of those that existed, in order."""
