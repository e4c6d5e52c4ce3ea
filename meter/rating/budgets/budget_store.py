"""What budgets need of a store: which thresholds were told, and the webhooks that wait to be delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from zope.interface import Interface


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedThreshold:
    """A threshold of a budget that was reached in a period: ``percent`` of what was *used*, or of the *forecast*."""

    budget_id: str
    period: str
    basis: Literal["used", "forecast"]
    percent: Decimal
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingWebhook:
    """A webhook message that waits for its delivery to ``target``: a name in the configuration. ``id`` stays the same in all attempts."""

    id: str
    target: str
    body: bytes
    created_at: datetime
    attempts: int
    next_attempt_at: datetime
    last_error: str = ""


class IBudgetStore(Interface):
    """Thresholds and webhooks. Methods raise ``Unavailable`` as those of ``IStore`` do."""

    async def reached(period: str) -> Sequence[ReachedThreshold]:
        """Return the thresholds that were reached in ``period``."""

    async def reach(threshold: ReachedThreshold, webhooks: Sequence[WaitingWebhook]) -> bool:
        """Store, in one transaction, that a threshold was reached and the webhooks that tell it; ``False`` if it was told before."""

    async def waiting_webhooks(now: datetime, limit: int) -> Sequence[WaitingWebhook]:
        """Return the webhooks whose next attempt is due, oldest first."""

    async def delivered(webhook_id: str) -> None:
        """Remove a webhook that was delivered."""

    async def not_delivered(webhook_id: str, error: str, next_attempt_at: datetime | None) -> None:
        """Store a failed attempt; without a next one the webhook is given up, and kept for a look."""

    async def webhook_counts() -> tuple[int, int]:
        """Return how many webhooks wait, and how many were given up."""
