"""The store: samples in PostgreSQL, reached through two pools, one for writing and one for reading."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from meter.interfaces import IDependency
from meter.interfaces import IStore
from meter.interfaces import Readiness
from meter.message import MeteringMessage
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.query import WriteResult
from meter.store.maintenance.maintenance import Maintenance
from meter.store.maintenance.maintenance import Retention
from meter.store.migrations import Schema
from meter.store.migrations import migrations
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.dsn import described
from meter.store.postgres.durability import Durability
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.query.commit_listener import CommitListener
from meter.store.query.runner import QueryRunner
from meter.store.write.writer import SampleWriter

KEEPING_SECONDS = 900.0
"""A statement of the keeper may take so long: an hour of a hundred million samples, at 200 000 a second. What cannot be
settled is never let go."""


@implementer(IStore, IDependency)
class PostgresStore(Service):
    """Samples in the PostgreSQL at ``dsn``, anything that libpq understands; ``ValueError`` if it does not.

    Starting returns at once; until the database can be reached and has the schema every method raises ``Unavailable``.
    With ``migrate`` the schema is made or upgraded, without it is waited for. ``readers`` and ``writers`` are numbers of
    connections; none means that the store is only written, or only read. ``remembered`` bounds what is kept of the
    dictionaries in memory. A question that takes longer than ``statement_timeout_seconds`` is stopped; a server that
    says nothing for ``silence_seconds`` more is held for dead. While all readers are busy a question waits for
    ``longest_wait_seconds`` at most. Questions go to ``replica_dsn`` where there is one; where ``reading_suffices``, the
    daemon is ready, and degraded, while there is only that.
    With ``keep`` it settles hours and lets go of what is older than ``retention``, see :mod:`meter.store.maintenance.maintenance`.
    """

    def __init__(
        self,
        reactor: Any,
        dsn: str,
        *,
        clock: IReactorTime,
        migrate: bool,
        readers: int = 4,
        writers: int = 2,
        longest_wait_seconds: float = 10.0,
        statement_timeout_seconds: float = 30.0,
        silence_seconds: float = 10.0,
        remembered: int = 50_000,
        application_name: str = "meter",
        keep: bool = False,
        retention: Retention = Retention(),  # noqa: B008 (frozen)
        settle_after_seconds: float = 900.0,
        replica_dsn: str = "",
        reading_suffices: bool = False,
    ) -> None:
        self.setName("store")
        schema, durability = Schema(migrations()), Durability()
        self._where = described(
            connection_parameters(dsn, statement_timeout_seconds=1, application_name=application_name)
        )

        def connect(
            purpose: str,
            *,
            read_only: bool,
            where: str = dsn,
            seconds: float = statement_timeout_seconds,
            notified: Callable[[], object] | None = None,
        ) -> Connection:
            parameters = connection_parameters(
                where,
                statement_timeout_seconds=seconds,
                application_name=f"{application_name} {purpose}",
                read_only=read_only,
            )
            return Connection(
                reactor,
                clock,
                parameters,
                answer_seconds=seconds + silence_seconds,
                notified=notified,
            )

        async def prepare(session: Session) -> None:
            await (schema.upgrade(session) if migrate else schema.check(session))
            await durability.check(session)

        def pool(
            purpose: str,
            size: int,
            *,
            read_only: bool,
            where: str = dsn,
            seconds: float = statement_timeout_seconds,
        ) -> Pool:
            return Pool(
                lambda: connect(purpose, read_only=read_only, where=where, seconds=seconds),
                clock,
                name=f"store {purpose}",
                size=size,
                longest_wait_seconds=longest_wait_seconds if read_only else float("inf"),
                prepare=schema.check if read_only else prepare,
            )

        self._writers = pool("writers", writers, read_only=False)
        self._readers = pool("readers", readers, read_only=True, where=replica_dsn or dsn)
        self._pools = [each for each, size in ((self._writers, writers), (self._readers, readers)) if size]
        self._following = CommitListener(
            lambda notified: connect("follower", read_only=True, notified=notified), clock, size=min(readers, 1)
        )
        self.keeping = Maintenance(
            pool("keeper", 1, read_only=False, seconds=max(statement_timeout_seconds, KEEPING_SECONDS)),
            clock,
            connect=lambda: connect("compaction", read_only=False),
            retention=retention,
            settle_after_seconds=settle_after_seconds,
        )
        self._reading_suffices = reading_suffices
        self._services = [self._following, *self._pools, *([self.keeping] if keep else [])]
        self._writing = SampleWriter(self._writers, clock, remembered=remembered)
        self._reading = QueryRunner(self._readers, clock, statement_timeout_seconds)

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()
        for service in self._services:
            service.startService()

    def stopService(self) -> Deferred[Any]:
        """Fire when what is under way is done and all connections are closed."""
        super().stopService()
        return gatherResults([service.stopService() for service in self._services], consumeErrors=True)

    def readiness(self) -> Readiness:
        """Say whether the store can be used, or why not."""
        for pool in self._pools:
            if not pool.ready and pool is self._writers and self._reading_suffices and self._readers.ready:
                return Readiness("store", False, f"nothing can be written: {pool.reason}", needed=False)
            if not pool.ready:
                return Readiness("store", False, pool.reason)
        return Readiness("store", True, self._where)

    async def write(self, messages: Sequence[MeteringMessage]) -> WriteResult:
        """Commit a batch; see ``IStore.write``."""
        return await self._writing.write(messages)

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return the newest matching samples; see ``IStore.samples``."""
        return await self._reading.samples(filter, limit, order, after)

    async def sample(self, message_id: str, filter: SampleFilter) -> StoredSample | None:
        """Return one sample; see ``IStore.sample``."""
        asked = filter.equals.get("message_id", message_id)
        if asked != message_id:
            return None
        one = replace(filter, equals={**filter.equals, "message_id": message_id})
        found = await self._reading.samples(one, 1)
        return found[0] if found else None

    async def meters(self, filter: SampleFilter, limit: int, unique: bool) -> Sequence[StoredMeter]:
        """Return meters; see ``IStore.meters``."""
        return await self._reading.meters(filter, limit, unique)

    async def resources(self, filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """Return resources; see ``IStore.resources``."""
        return await self._reading.resources(filter, limit)

    async def statistics(self, query: StatisticsQuery) -> Sequence[Statistics]:
        """Return statistics; see ``IStore.statistics``."""
        return await self._reading.statistics(query)

    async def message(self, message_id: str, filter: SampleFilter = SampleFilter()) -> Mapping[str, Any] | None:  # noqa: B008 (frozen)
        """Return a message as it was signed; see ``IStore.message``."""
        return await self._reading.message(message_id, filter)

    def follow(self, heard: Callable[[], object]) -> Callable[[], None]:
        """Tell of commits; see ``IStore.follow``."""
        return self._following.follow(heard)
