"""The rating of the store in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from meter.rating.rating_store import IRatingStore
from meter.testing.memory_rating_budgets import MemoryBudgets
from meter.testing.memory_rating_statements import MemoryStatements
from meter.testing.memory_rating_usage import MemoryUsage

if TYPE_CHECKING:
    from meter.testing.memory_store import MemoryStore


@implementer(IRatingStore)
class MemoryRating:
    """Rating over the samples of ``store``."""

    def __init__(self, store: MemoryStore) -> None:
        self.usage = MemoryUsage(store)
        self.statements = MemoryStatements(store)
        self.budgets = MemoryBudgets(lambda: store._check())
