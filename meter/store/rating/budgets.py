"""StoredBudgets: states of budgets, reached thresholds and waiting webhooks in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
from datetime import datetime

import msgspec
from zope.interface import implementer

from meter.rating.budgets.budget_state import BudgetState
from meter.rating.budgets.budget_store import IBudgetStore
from meter.rating.budgets.budget_store import ReachedThreshold
from meter.rating.budgets.budget_store import WaitingWebhook
from meter.rating.budgets.budget_store import WebhookQueue
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session

KEEP_STATES = """
INSERT INTO budget_state (budget, period, project, evaluated_at, document)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::text[])
ON CONFLICT (budget, period) DO UPDATE
SET project = excluded.project, evaluated_at = excluded.evaluated_at, document = excluded.document
"""

DELETE_OTHER_STATES = "DELETE FROM budget_state WHERE budget <> ALL(%s::text[])"

STATES = """
SELECT document FROM (
    SELECT DISTINCT ON (budget) budget, document FROM budget_state
    WHERE (%(project)s::text IS NULL OR project = %(project)s COLLATE "C")
        AND (%(budget)s::text IS NULL OR budget = %(budget)s COLLATE "C")
        AND (%(period)s::text IS NULL OR period = %(period)s COLLATE "C")
    ORDER BY budget, period DESC
) AS newest ORDER BY budget LIMIT %(limit)s
"""

REACHED = """
SELECT budget, period, basis, percent, reached_at FROM reached_threshold WHERE period = %s COLLATE "C"
ORDER BY budget, basis, percent
"""

REACH = """
INSERT INTO reached_threshold (budget, period, basis, percent, reached_at) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""

ADD_WEBHOOK = """
INSERT INTO webhook (id, target, body, created_at, retry_until, next_attempt_at, attempts, last_error)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""

DUE_TARGETS = "SELECT DISTINCT target FROM webhook WHERE next_attempt_at <= %s ORDER BY target"

COLUMNS = "id, target, body, created_at, retry_until, attempts, next_attempt_at, last_error"

# Who waits for a row that another process claims, would find it claimed: it takes the next one instead.
CLAIM = f"""
UPDATE webhook SET attempts = attempts + 1, next_attempt_at = %(until)s
WHERE id = (
    SELECT id FROM webhook WHERE target = %(target)s COLLATE "C" AND next_attempt_at <= %(now)s
    ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING {COLUMNS}
"""

NOT_DELIVERED = "UPDATE webhook SET last_error = %s, next_attempt_at = %s WHERE id = %s"

QUEUES = """
SELECT target, count(next_attempt_at), min(created_at) FILTER (WHERE next_attempt_at IS NOT NULL),
    count(*) - count(next_attempt_at),
    coalesce(
        max(last_error) FILTER (WHERE next_attempt_at IS NOT NULL AND last_error <> ''),
        max(last_error) FILTER (WHERE last_error <> ''), '')
FROM webhook GROUP BY target ORDER BY target
"""

RETRY = """
WITH again AS (
    UPDATE webhook SET next_attempt_at = %s, retry_until = %s, attempts = 0 WHERE id = ANY(%s::text[]) RETURNING id
)
SELECT id FROM again ORDER BY id
"""

DISCARD = "WITH gone AS (DELETE FROM webhook WHERE id = ANY(%s::text[]) RETURNING id) SELECT id FROM gone ORDER BY id"


@implementer(IBudgetStore)
class StoredBudgets:
    """Writes over ``work``, and reads over ``readers`` what may be some seconds old."""

    def __init__(self, work: Pool, readers: Pool) -> None:
        self._work = work
        self._readers = readers

    async def keep_states(self, states: Sequence[BudgetState], budget_ids: Collection[str]) -> None:
        """Replace states; see ``IBudgetStore.keep_states``."""
        columns: list[list[object]] = [[], [], [], [], []]
        for state in states:
            document = msgspec.json.encode(state).decode()
            row = state.budget_id, state.period, state.scope.project_id, state.evaluated_at, document
            for column, value in zip(columns, row, strict=True):
                column.append(value)

        async def keep(session: Session) -> None:
            await session.count(DELETE_OTHER_STATES, [sorted(budget_ids)])
            await session.count(KEEP_STATES, columns)

        await self._work.run(keep)

    async def states(
        self, project_id: str | None = None, budget_id: str | None = None, period: str | None = None, limit: int = 1000
    ) -> Sequence[BudgetState]:
        """Return states; see ``IBudgetStore.states``."""
        if any("\0" in each for each in (project_id, budget_id, period) if each is not None):
            return []  # PostgreSQL has no text with this character
        wanted = {"project": project_id, "budget": budget_id, "period": period, "limit": limit}
        rows = await self._readers.rows(STATES, wanted)
        return [msgspec.json.decode(document, type=BudgetState) for (document,) in rows]

    async def reached(self, period: str) -> Sequence[ReachedThreshold]:
        """Return thresholds; see ``IBudgetStore.reached``."""
        return [
            ReachedThreshold(budget_id=budget, period=period, basis=basis, percent=percent, at=at)
            for budget, period, basis, percent, at in await self._work.rows(REACHED, [period])
        ]

    async def reach(self, threshold: ReachedThreshold, webhooks: Sequence[WaitingWebhook]) -> bool:
        """Store that a threshold was reached; see ``IBudgetStore.reach``."""

        async def store(session: Session) -> bool:
            values = [threshold.budget_id, threshold.period, threshold.basis, threshold.percent, threshold.at]
            if not await session.count(REACH, values):
                return False
            for each in webhooks:
                row = [each.id, each.target, each.body, each.created_at, each.retry_until, each.next_attempt_at]
                await session.count(ADD_WEBHOOK, [*row, each.attempts, each.last_error])
            return True

        return await self._work.run(store)

    async def forget(self, before: str) -> None:
        """Delete what is of earlier periods; see ``IBudgetStore.forget``."""

        async def delete(session: Session) -> None:
            for table in ("budget_state", "reached_threshold"):
                await session.count(f'DELETE FROM {table} WHERE period < %s COLLATE "C"', [before])

        await self._work.run(delete)

    async def due_targets(self, now: datetime) -> Sequence[str]:
        """Return targets with work to do; see ``IBudgetStore.due_targets``."""
        return [target for (target,) in await self._work.rows(DUE_TARGETS, [now])]

    async def claim(self, target: str, now: datetime, until: datetime) -> WaitingWebhook | None:
        """Begin an attempt; see ``IBudgetStore.claim``."""
        rows = await self._work.rows(CLAIM, {"target": target, "now": now, "until": until})
        return _webhook(*rows[0]) if rows else None

    async def delivered(self, webhook_id: str) -> None:
        """Remove a webhook; see ``IBudgetStore.delivered``."""
        await self.discard_webhooks([webhook_id])

    async def not_delivered(self, webhook_id: str, error: str, next_attempt_at: datetime | None) -> None:
        """Store a failure; see ``IBudgetStore.not_delivered``."""

        async def update(session: Session) -> None:
            await session.count(NOT_DELIVERED, [error.replace("\0", ""), next_attempt_at, webhook_id])

        await self._work.run(update)

    async def webhook_queues(self) -> Sequence[WebhookQueue]:
        """Return what waits by target; see ``IBudgetStore.webhook_queues``."""
        return [
            WebhookQueue(target=target, waiting=waiting, waiting_since=since, failed=failed, last_error=error)
            for target, waiting, since, failed, error in await self._work.rows(QUEUES)
        ]

    async def webhooks(self, limit: int) -> Sequence[WaitingWebhook]:
        """Return webhooks; see ``IBudgetStore.webhooks``."""
        statement = f"SELECT {COLUMNS} FROM webhook ORDER BY created_at, id LIMIT %s"
        return [_webhook(*row) for row in await self._work.rows(statement, [limit])]

    async def retry_webhooks(self, ids: Collection[str], now: datetime, retry_until: datetime) -> Sequence[str]:
        """Make webhooks due; see ``IBudgetStore.retry_webhooks``."""
        return [id for (id,) in await self._work.rows(RETRY, [now, retry_until, _texts(ids)])]

    async def discard_webhooks(self, ids: Collection[str]) -> Sequence[str]:
        """Delete webhooks; see ``IBudgetStore.discard_webhooks``."""
        return [id for (id,) in await self._work.rows(DISCARD, [_texts(ids)])]


def _texts(ids: Collection[str]) -> list[str]:
    return sorted(each for each in ids if "\0" not in each)


def _webhook(
    id: str,
    target: str,
    body: memoryview,
    created_at: datetime,
    retry_until: datetime,
    attempts: int,
    next_attempt_at: datetime | None,
    last_error: str,
) -> WaitingWebhook:
    return WaitingWebhook(
        id=id,
        target=target,
        body=bytes(body),
        created_at=created_at,
        retry_until=retry_until,
        attempts=attempts,
        next_attempt_at=next_attempt_at,
        last_error=last_error,
    )
