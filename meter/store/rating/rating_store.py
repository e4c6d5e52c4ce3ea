"""StoredRating: what rating needs of PostgreSQL, in three parts."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from meter.daemon.shared_slices import SharedSlices
from meter.rating.rating_store import IRatingStore
from meter.store.postgres.pool import Pool
from meter.store.rating.budgets import StoredBudgets
from meter.store.rating.statements import StoredStatements
from meter.store.rating.usage_store import StoredUsage


@implementer(IRatingStore)
class StoredRating:
    """Rating over two pools: ``work`` for what takes long and for all that is written, ``readers`` for what the API reads.

    They may be the same pool. Statements over ``work`` may take :data:`meter.store.store.MAINTENANCE_TIMEOUT_SECONDS`.
    """

    def __init__(self, work: Pool, readers: Pool, clock: IReactorTime, slices: SharedSlices) -> None:
        self.usage = StoredUsage(work, readers, clock, slices)
        self.statements = StoredStatements(work, readers, clock)
        self.budgets = StoredBudgets(work, readers)
