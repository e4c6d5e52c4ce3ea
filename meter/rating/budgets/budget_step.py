"""The step ``budgets`` of the collector's rating: it evaluates all budgets, and tells each threshold that is reached, once."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import msgspec
from twisted.internet.defer import CancelledError

from meter.interfaces import Unavailable
from meter.rating.book.price_book import PriceDirectory
from meter.rating.budgets.budget_evaluation import BudgetEvaluation
from meter.rating.budgets.budget_state import BudgetState
from meter.rating.budgets.budget_state import BudgetThreshold
from meter.rating.budgets.budget_state import is_reached
from meter.rating.budgets.budget_store import IBudgetStore
from meter.rating.budgets.budget_sum import BudgetSum
from meter.rating.budgets.budget_sum import ReachedTimes
from meter.rating.budgets.threshold_message import reached_threshold
from meter.rating.budgets.threshold_message import threshold_webhooks

KEPT_YEARS = 2
"""States and thresholds are kept for the year of the present period and the one before."""


class BudgetError(Exception):
    """Budgets could not be evaluated; the others were."""


class IBudgetMetrics(Protocol):
    """Counts what is evaluated: :class:`meter.daemon.budget_metrics.BudgetMetrics`."""

    def evaluated(self, budgets: int, incomplete: int, at: datetime) -> None:
        """Record an evaluation of all budgets, and how many of them have gaps."""

    def reached(self, basis: str) -> None:
        """Count a threshold that was reached."""


class NullBudgetMetrics:
    """Metrics that record nothing."""

    def evaluated(self, budgets: int, incomplete: int, at: datetime) -> None:
        """Do nothing."""

    def reached(self, basis: str) -> None:
        """Do nothing."""


class BudgetStep:
    """Evaluates the budgets of the price directory, which ``directory`` returns; it raises ``Unavailable`` while there is none.

    ``told`` is called when webhooks were added.
    """

    name = "budgets"

    def __init__(
        self,
        store: IBudgetStore,
        evaluation: BudgetEvaluation,
        directory: Callable[[], Awaitable[PriceDirectory]],
        *,
        metrics: IBudgetMetrics | None = None,
        told: Callable[[], object] = lambda: None,
    ) -> None:
        self._store = store
        self._evaluation = evaluation
        self._directory = directory
        self._metrics = metrics or NullBudgetMetrics()
        self._told = told

    async def run(self, now: datetime) -> None:
        """Evaluate and tell; raise ``Unavailable`` while the store or the price directory is. It may be killed at any time, and run again.

        The error of one budget does not stop the others: it keeps its last state, and :class:`BudgetError` is raised at the end.
        """
        failed: list[tuple[BudgetSum, Exception]] = []
        directory = await self._directory()
        states: list[BudgetState] = []
        months = await self._evaluation.empty_sums(directory, now)
        for month, sums in sorted(months.items()):
            await self._evaluation.fill(directory, month, sums, now)
            reached: ReachedTimes = {
                (known.budget_id, known.basis, known.percent): known.at for known in await self._store.reached(month)
            }
            for each in sums:
                try:
                    if each.error is not None:
                        raise each.error
                    states.append(await self._state(each, reached, now))
                except (Unavailable, CancelledError):
                    raise
                except Exception as error:
                    failed.append((each, error))
        await self._store.keep_states(states, list(directory.budgets))
        await self._store.forget(f"{now.year - KEPT_YEARS + 1:04}-01")
        if failed:
            budget, cause = failed[0]
            first = f"{budget.budget.id} of {budget.period.name}: {cause or type(cause).__name__}"
            raise BudgetError(
                f"{len(failed)} budgets are not evaluated and keep their last states, first {first}"
            ) from cause
        present = {each.budget_id: each for each in states}  # of two periods, the later one
        incomplete = sum(bool(each.gaps) for each in present.values())
        self._metrics.evaluated(len(present), incomplete, now)

    async def _state(self, budget: BudgetSum, reached: ReachedTimes, now: datetime) -> BudgetState:
        """Return the state of ``budget`` after telling the thresholds that it has reached and that were not told before."""
        state = budget.state(now, reached)
        thresholds = []
        for each in state.thresholds:
            if each.reached_at is None and self._is_reached(state, each, now):
                webhooks = threshold_webhooks(state, each, budget.budget.webhooks, now)
                if await self._store.reach(reached_threshold(state, each, now), webhooks):
                    self._metrics.reached(each.basis)
                    if webhooks:
                        self._told()
                each = msgspec.structs.replace(each, reached_at=now)
            thresholds.append(each)
        return msgspec.structs.replace(state, thresholds=tuple(thresholds))

    def _is_reached(self, state: BudgetState, threshold: BudgetThreshold, now: datetime) -> bool:
        if threshold.basis == "used":
            return is_reached(state.used, state.limit, threshold.percent)
        # What is expected of a period that is over is what was used.
        return now < state.end and is_reached(state.forecast, state.limit, threshold.percent)
