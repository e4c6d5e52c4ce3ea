"""The budgets that a requester may see: all, or those of their own project.

Budgets of an account or a domain count what other projects use, too: only administrators see them.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from meter.rating.budgets.budget_state import BudgetState
from meter.rating.budgets.budget_store import IBudgetStore

Authorized = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Runs a query between two checks of the requester's authorization."""

VisibleProject = Callable[[str | None], str | None]
"""Returns the only project that the requester may see, or the one asked for; raises what a query for another one is answered with."""


class VisibleBudgets:
    """A view of the states of budgets that is restricted to one requester."""

    def __init__(
        self, budgets: Callable[[], IBudgetStore], visible_project: VisibleProject, authorized: Authorized
    ) -> None:
        self._budgets = budgets
        self._visible_project = visible_project
        self._authorized = authorized

    def check(self, project_id: str | None) -> None:
        """Raise the error that a query for the budgets of ``project_id`` would raise."""
        self._visible_project(project_id)

    async def states(
        self, project_id: str | None, budget_id: str | None, period: str | None, limit: int
    ) -> Sequence[BudgetState]:
        """Return states of budgets, see ``IBudgetStore.states``."""
        visible = self._visible_project(project_id)
        found: Sequence[BudgetState] = await self._authorized(
            lambda: self._budgets().states(visible, budget_id, period, limit)
        )
        return found
