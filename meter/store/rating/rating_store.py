"""StoredRating: what rating needs of PostgreSQL, in three parts."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from meter.daemon.shared_slices import SharedSlices
from meter.rating.rating_store import IRatingStore
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.rating.budgets import StoredBudgets
from meter.store.rating.statements import StoredStatements
from meter.store.rating.usage_store import StoredUsage

RATING_LOCK = 0x6D65746572_08
"""Key of the advisory lock of whoever rates: the collector's maintenance, or meter-rate."""


@implementer(IRatingStore)
class StoredRating:
    """Rating over two pools: ``work`` for what takes long and for all that is written, ``readers`` for what the API reads.

    They may be the same pool. Statements over ``work`` may take :data:`meter.store.store.MAINTENANCE_TIMEOUT_SECONDS`.
    """

    def __init__(self, work: Pool, readers: Pool, clock: IReactorTime, slices: SharedSlices) -> None:
        self._work = work
        self.usage = StoredUsage(work, readers, clock, slices)
        self.statements = StoredStatements(work, readers, clock)
        self.budgets = StoredBudgets(work, readers)

    @property
    def ready(self) -> bool:
        """Whether rating can work."""
        return self._work.ready

    @property
    def reason(self) -> str:
        """Why it cannot."""
        return self._work.reason

    async def exclusively(self, work: Callable[[], Awaitable[object]]) -> bool:
        """Do ``work`` unless another process rates at present; return whether it was done.

        A transaction that does nothing else holds the lock: it ends when the process does, and blocks nobody but those who rate.
        """

        async def locked(session: Session) -> bool:
            [[free]] = await session.rows("SELECT pg_try_advisory_xact_lock(%s)", [RATING_LOCK])
            if free:
                await work()
            return bool(free)

        return await self._work.run(locked)
