"""Spreading a store by an administrator, for ``meter-db``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Callable
from contextlib import asynccontextmanager
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime

from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.store.cluster.spreading import COPIED
from meter.store.cluster.spreading import Spreading
from meter.store.cluster.spreading import SpreadStep
from meter.store.maintenance.administered_database import AdministeredDatabase
from meter.store.maintenance.packing_administration import PackingAdministration

LOOK_SECONDS = 1.0
"""How often the copying of samples to the workers is looked at."""


class SpreadingAdministration(PackingAdministration):
    """One connection to the database at ``dsn``, over which its store is spread; a second one looks how far that is."""

    def __init__(self, reactor: Any, dsn: str, *, clock: IReactorTime) -> None:
        super().__init__(reactor, dsn, clock=clock)
        self._clock = clock
        self._watching = AdministeredDatabase(reactor, dsn, clock=clock, application_name="meter-db progress")

    async def spreading(self, shards_per_worker: int) -> Spreading:
        """Return what spreads the store; :class:`NotSpreadable` if something is missing, :class:`Unavailable` while another process does."""
        await self.check()
        session = self._connection
        await session.remove_time_limits()
        spreading = Spreading(session, shards_per_worker=shards_per_worker)
        await spreading.check()
        await spreading.open()
        return spreading

    async def steps(self, spreading: Spreading, copied: Callable[[int], object]) -> AsyncIterator[SpreadStep]:
        """Do what is left to do, yielding the steps; ``copied`` is called with how many samples are on their way to the workers."""
        async with self._watched(copied):
            async for step in spreading.spread():
                yield step

    @asynccontextmanager
    async def _watched(self, copied: Callable[[int], object]) -> AsyncIterator[None]:
        watch: Deferred[None] = ensureDeferred(self._watch(copied))
        watch.addErrback(lambda failure: None)  # the work goes on without showing how far it is
        try:
            yield
        finally:
            watch.cancel()
            self._watching.close()

    async def _watch(self, copied: Callable[[int], object]) -> None:
        await self._watching.open()
        while True:
            await sleep(self._clock, LOOK_SECONDS)
            with suppress(Unavailable):
                copied(await self._watching.number(COPIED))
