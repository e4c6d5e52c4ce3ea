"""MemoryBudgets: states of budgets, reached thresholds and waiting webhooks in memory."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from zope.interface import implementer

from meter.rating.budgets.budget_state import BudgetState
from meter.rating.budgets.budget_store import IBudgetStore
from meter.rating.budgets.budget_store import ReachedThreshold
from meter.rating.budgets.budget_store import WaitingWebhook
from meter.rating.budgets.budget_store import WebhookQueue


@implementer(IBudgetStore)
class MemoryBudgets:
    """Keeps everything in mappings. ``check`` is called first by each method: it raises ``Unavailable`` while the store is."""

    def __init__(self, check: Callable[[], object] = lambda: None) -> None:
        self._check = check
        self._states: dict[tuple[str, str], BudgetState] = {}
        self._reached: dict[tuple[str, str, str, Decimal], ReachedThreshold] = {}
        self._webhooks: dict[str, WaitingWebhook] = {}

    async def keep_states(self, states: Sequence[BudgetState], budget_ids: Collection[str]) -> None:
        """Replace states; see ``IBudgetStore.keep_states``."""
        self._check()
        self._states = {key: state for key, state in self._states.items() if state.budget_id in budget_ids}
        self._states.update({(state.budget_id, state.period): state for state in states})

    async def states(
        self, project_id: str | None = None, budget_id: str | None = None, period: str | None = None, limit: int = 1000
    ) -> Sequence[BudgetState]:
        """Return states; see ``IBudgetStore.states``."""
        self._check()
        found = {
            id: state
            for (id, of), state in sorted(self._states.items())
            if project_id in (None, state.scope.project_id) and budget_id in (None, id) and period in (None, of)
        }
        return list(found.values())[:limit]

    async def reached(self, period: str) -> Sequence[ReachedThreshold]:
        """Return thresholds; see ``IBudgetStore.reached``."""
        self._check()
        of_period = [each for each in self._reached.values() if each.period == period]
        return sorted(of_period, key=lambda each: (each.budget_id, each.basis, each.percent))

    async def reach(self, threshold: ReachedThreshold, webhooks: Sequence[WaitingWebhook]) -> bool:
        """Store that a threshold was reached; see ``IBudgetStore.reach``."""
        self._check()
        key = threshold.budget_id, threshold.period, threshold.basis, threshold.percent
        if key in self._reached:
            return False
        self._reached[key] = threshold
        for each in webhooks:
            self._webhooks.setdefault(each.id, each)
        return True

    async def forget(self, before: str) -> None:
        """Delete what is of earlier periods; see ``IBudgetStore.forget``."""
        self._check()
        self._states = {key: state for key, state in self._states.items() if state.period >= before}
        self._reached = {key: each for key, each in self._reached.items() if each.period >= before}

    async def due_targets(self, now: datetime) -> Sequence[str]:
        """Return targets with work to do; see ``IBudgetStore.due_targets``."""
        self._check()
        return sorted({each.target for each in self._due(now)})

    async def claim(self, target: str, now: datetime, until: datetime) -> WaitingWebhook | None:
        """Begin an attempt; see ``IBudgetStore.claim``."""
        self._check()
        due = [each for each in self._due(now) if each.target == target]
        if not due:
            return None
        claimed = replace(due[0], attempts=due[0].attempts + 1, next_attempt_at=until)
        self._webhooks[claimed.id] = claimed
        return claimed

    async def delivered(self, webhook_id: str) -> None:
        """Remove a webhook; see ``IBudgetStore.delivered``."""
        await self.discard_webhooks([webhook_id])

    async def not_delivered(self, webhook_id: str, error: str, next_attempt_at: datetime | None) -> None:
        """Store a failure; see ``IBudgetStore.not_delivered``."""
        self._check()
        if (known := self._webhooks.get(webhook_id)) is not None:
            safe = error.replace("\0", "")
            self._webhooks[webhook_id] = replace(known, last_error=safe, next_attempt_at=next_attempt_at)

    async def webhook_queues(self) -> Sequence[WebhookQueue]:
        """Return what waits by target; see ``IBudgetStore.webhook_queues``."""
        self._check()
        return [self._queue(target) for target in sorted({each.target for each in self._webhooks.values()})]

    def _queue(self, target: str) -> WebhookQueue:
        of_target = [each for each in self._oldest_first() if each.target == target]
        waiting = [each for each in of_target if each.next_attempt_at is not None]
        errors = [max((each.last_error for each in some), default="") for some in (waiting, of_target)]
        return WebhookQueue(
            target=target,
            waiting=len(waiting),
            waiting_since=waiting[0].created_at if waiting else None,
            failed=len(of_target) - len(waiting),
            last_error=errors[0] or errors[1],
        )

    async def webhooks(self, limit: int) -> Sequence[WaitingWebhook]:
        """Return webhooks; see ``IBudgetStore.webhooks``."""
        self._check()
        return self._oldest_first()[:limit]

    async def retry_webhooks(self, ids: Collection[str], now: datetime, retry_until: datetime) -> Sequence[str]:
        """Make webhooks due; see ``IBudgetStore.retry_webhooks``."""
        self._check()
        known = sorted(self._webhooks.keys() & set(ids))
        for id in known:
            self._webhooks[id] = replace(self._webhooks[id], next_attempt_at=now, retry_until=retry_until, attempts=0)
        return known

    async def discard_webhooks(self, ids: Collection[str]) -> Sequence[str]:
        """Delete webhooks; see ``IBudgetStore.discard_webhooks``."""
        self._check()
        known = sorted(self._webhooks.keys() & set(ids))
        for id in known:
            del self._webhooks[id]
        return known

    def _oldest_first(self) -> list[WaitingWebhook]:
        return sorted(self._webhooks.values(), key=lambda each: (each.created_at, each.id))

    def _due(self, now: datetime) -> list[WaitingWebhook]:
        oldest_first = self._oldest_first()
        return [each for each in oldest_first if each.next_attempt_at is not None and each.next_attempt_at <= now]
