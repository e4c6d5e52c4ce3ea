"""The store: samples in PostgreSQL, written over one connection pool and read over another."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from meter.batch_signature import BatchEntry
from meter.completeness.activity import Arrivals
from meter.completeness.activity import IActivity
from meter.completeness.activity import ResourceCounts
from meter.completeness.ledger.unmetered import unmetered
from meter.completeness.ledger.usage_audits import audited_periods
from meter.completeness.lives.kinds import ResourceKind
from meter.completeness.lives.life_store import ILifeStore
from meter.completeness.lives.life_store import ListedTime
from meter.completeness.lives.life_store import SampleRun
from meter.completeness_query import AuditedPeriod
from meter.completeness_query import Closable
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.completeness_query import Gap
from meter.completeness_query import ICompletenessLedger
from meter.completeness_query import ReportingAgent
from meter.completeness_query import Unmetered
from meter.completeness_store import ICompletenessStore
from meter.completeness_store import ReceivedCycle
from meter.completeness_store import ReceivedHeartbeat
from meter.completeness_store import RejectedCount
from meter.completeness_store import ReportResult
from meter.completeness_store import StoredAgent
from meter.completeness_store import StoredHeartbeat
from meter.completeness_store import WaitingRules
from meter.daemon.shared_slices import SharedSlices
from meter.identity_names import IdentityFilter
from meter.identity_names import IdentityHistory
from meter.identity_names import IdentityKey
from meter.identity_names import IIdentityNames
from meter.identity_names import NamePeriod
from meter.identity_report import IdentityKind
from meter.identity_report import IdentityReport
from meter.interfaces import IDependency
from meter.interfaces import IStore
from meter.interfaces import Readiness
from meter.message import MeteringMessage
from meter.query import AuditEntry
from meter.query import AuditFilter
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import WriteResult
from meter.rating.rating_store import IRated
from meter.sample_page import ISamplePages
from meter.store.cluster.given_ids import GivenIds
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
from meter.store.query.completeness import CompletenessReader
from meter.store.query.daemon_states import read_agents
from meter.store.query.daemon_states import read_heartbeats
from meter.store.query.identity_names import IdentityNameReader
from meter.store.query.runner import QueryRunner
from meter.store.query.sample_queries import SampleQueries
from meter.store.rating.rating_store import StoredRating
from meter.store.tokens.reader import STATEMENT_SECONDS
from meter.store.tokens.reader import ApiTokenReader
from meter.store.write.cycle_reports import CycleReportWriter
from meter.store.write.heartbeats import record_heartbeats
from meter.store.write.heartbeats import record_rejected_samples
from meter.store.write.identity_names import record_identities
from meter.store.write.late_samples import LateSamples
from meter.store.write.writer import SampleWriter
from meter.stored_batch import StoredProof

MAINTENANCE_TIMEOUT_SECONDS = 900.0
"""Statement timeout of maintenance: enough for an hour with a hundred million samples, at 200 000 a second. Samples of an hour
that cannot be finalized never expire."""


@implementer(
    IStore,
    IActivity,
    ICompletenessLedger,
    ICompletenessStore,
    IIdentityNames,
    ILifeStore,
    IRated,
    ISamplePages,
    IDependency,
)
class PostgresStore(SampleQueries, Service):
    """Samples in the PostgreSQL at ``dsn``, a libpq DSN or URL; ``ValueError`` if libpq cannot parse it.

    Starting returns at once. Until the database can be reached and has the schema, every method raises ``Unavailable``. With
    ``migrate`` the store creates or upgrades the schema, and creates partitions; without it, it waits until another process has.

    ``readers`` and ``writers`` are numbers of connections; 0 for a store that is only written, or only read. A query waits
    for a free reader for at most ``max_wait_seconds``. A query that takes longer than ``statement_timeout_seconds`` is
    cancelled; a server that does not respond for another ``silence_seconds`` is considered dead. The
    server ends a session that does nothing in a writing transaction for ``statement_timeout_seconds``. ``cached_ids`` is the
    size of each cache of dimension ids.

    Queries go to ``replica_dsn`` if there is one. With ``reading_suffices`` the daemon is ready, but degraded, while only
    the readers are connected. With ``maintain`` the store runs :class:`~meter.store.maintenance.maintenance.Maintenance`,
    which finalizes hours and deletes what is older than ``retention``. With ``reads_tokens`` it has a connection for
    ``tokens``, those of the API. ``rating_connections`` are for what rating writes and what takes it long; without any, ``rating``
    can only be read. ``waiting_rules`` say how long a cycle report waits for those before it,
    ``late`` which samples are counted as late.
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
        max_wait_seconds: float = 10.0,
        statement_timeout_seconds: float = 30.0,
        silence_seconds: float = 10.0,
        cached_ids: int = 50_000,
        application_name: str = "meter",
        maintain: bool = False,
        retention: Retention = Retention(),  # noqa: B008 (frozen)
        finalize_after_seconds: float = 900.0,
        pack_after_days: float = 0.0,
        replica_dsn: str = "",
        reading_suffices: bool = False,
        reads_tokens: bool = False,
        waiting_rules: WaitingRules = WaitingRules(),  # noqa: B008 (frozen)
        late: LateSamples = LateSamples(),  # noqa: B008 (frozen)
        rating_connections: int = 0,
    ) -> None:
        self.setName("store")
        schema, durability, given_ids = Schema(migrations()), Durability(), GivenIds()
        slices = SharedSlices(clock)
        self._where = described(
            connection_parameters(dsn, statement_timeout_seconds=1, application_name=application_name)
        )

        def connect(
            purpose: str,
            *,
            read_only: bool,
            where: str = dsn,
            seconds: float = statement_timeout_seconds,
            may_idle: bool = False,
            notified: Callable[[], object] | None = None,
        ) -> Connection:
            parameters = connection_parameters(
                where,
                statement_timeout_seconds=seconds,
                application_name=f"{application_name} {purpose}",
                read_only=read_only,
                # A process that hangs, such as a virtual machine that is paused, must not keep its locks: all other collectors would wait.
                idle_transaction_seconds=0 if read_only or may_idle else statement_timeout_seconds,
            )
            return Connection(
                reactor,
                clock,
                parameters,
                answer_seconds=seconds + silence_seconds,
                notified=notified,
                slices=slices if read_only else None,
            )

        async def prepare(session: Session) -> None:
            await (schema.upgrade(session) if migrate else schema.check(session))
            await durability.check(session)
            await given_ids.check(session)

        def pool(
            purpose: str,
            size: int,
            *,
            read_only: bool,
            where: str = dsn,
            seconds: float = statement_timeout_seconds,
            may_idle: bool = False,
        ) -> Pool:
            return Pool(
                lambda: connect(purpose, read_only=read_only, where=where, seconds=seconds, may_idle=may_idle),
                clock,
                name=f"store {purpose}",
                size=size,
                max_wait_seconds=max_wait_seconds if read_only else float("inf"),
                prepare=schema.check if read_only else prepare,
            )

        self._writers = pool("writers", writers, read_only=False)
        self._readers = pool("readers", readers, read_only=True, where=replica_dsn or dsn)
        self._pools = [each for each, size in ((self._writers, writers), (self._readers, readers)) if size]
        self._commit_listener = CommitListener(
            lambda notified: connect("commit listener", read_only=True, notified=notified), clock, size=min(readers, 1)
        )
        self.maintenance = Maintenance(
            pool(
                "maintenance", 1, read_only=False, seconds=max(statement_timeout_seconds, MAINTENANCE_TIMEOUT_SECONDS)
            ),
            clock,
            connect=lambda: connect("compaction", read_only=False),
            connect_packer=lambda: connect("packer", read_only=False),
            retention=retention,
            finalize_after_seconds=finalize_after_seconds,
            pack_after_days=pack_after_days,
        )
        self.tokens = ApiTokenReader(
            lambda notified: connect("tokens", read_only=True, seconds=STATEMENT_SECONDS, notified=notified),
            clock,
            size=int(reads_tokens),
            check=schema.check,
        )
        rating_pool = pool(
            "rating",
            rating_connections,
            read_only=False,
            seconds=max(statement_timeout_seconds, MAINTENANCE_TIMEOUT_SECONDS),
            may_idle=True,  # the transaction of StoredRating.exclusively does nothing while others rate
        )
        # A replica may not have yet what rating has just written.
        rating_readers = self._readers if readers and not (rating_connections and replica_dsn) else rating_pool
        self.rating = StoredRating(rating_pool if rating_connections else self._readers, rating_readers, clock, slices)
        self._reading_suffices = reading_suffices
        self._services = [self._commit_listener, self.tokens, *self._pools, *([self.maintenance] if maintain else [])]
        self._rating_pool = rating_pool if rating_connections else None
        if rating_connections:
            self._services.append(rating_pool)
        self._sample_writer = SampleWriter(
            self._writers, clock, cached_ids=cached_ids, creates_partitions=migrate, late=late
        )
        self._cycle_reports = CycleReportWriter(self._writers, waiting_rules)
        self._identity_names = IdentityNameReader(self._readers, slices)
        self._query_runner = QueryRunner(self._readers, clock, statement_timeout_seconds, slices)
        self._completeness = CompletenessReader(
            self._readers, slices, finalize_after_seconds, statement_timeout_seconds
        )

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()
        for service in self._services:
            service.startService()

    def stopService(self) -> Deferred[Any]:
        """Fire when running transactions are done and all connections are closed."""
        super().stopService()
        return gatherResults([service.stopService() for service in self._services], consumeErrors=True)

    def readiness(self) -> Readiness:
        """Return whether the store can be used, or why not."""
        for pool in self._pools:
            if not pool.ready and pool is self._writers and self._reading_suffices and self._readers.ready:
                return Readiness("store", False, f"samples cannot be written: {pool.reason}", needed=False)
            if not pool.ready:
                return Readiness("store", False, pool.reason)
        if self._rating_pool is not None and not self._rating_pool.ready:
            return Readiness("store", False, f"rating is not possible: {self._rating_pool.reason}", needed=False)
        return Readiness("store", True, self._where)

    async def write(
        self, messages: Sequence[MeteringMessage], refused_entries: Sequence[BatchEntry] = ()
    ) -> WriteResult:
        """Commit a batch; see ``IStore.write``."""
        return await self._sample_writer.write(messages, refused_entries)

    async def meters(self, filter: SampleFilter, limit: int, unique: bool) -> Sequence[StoredMeter]:
        """Return meters; see ``IStore.meters``."""
        return await self._query_runner.meters(filter, limit, unique)

    async def resources(self, filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """Return resources; see ``IStore.resources``."""
        return await self._query_runner.resources(filter, limit)

    async def statistics(self, query: StatisticsQuery) -> Sequence[Statistics]:
        """Return statistics; see ``IStore.statistics``."""
        return await self._query_runner.statistics(query)

    async def names_of_others(
        self, project_id: str, meters: Collection[str], resources: Collection[str]
    ) -> tuple[Collection[str], Collection[str]]:
        """Return names that belong to others; see ``IStore.names_of_others``."""
        return await self._query_runner.names_of_others(project_id, meters, resources)

    async def life_resources(self, filter: SampleFilter, meters: Sequence[str], limit: int) -> Sequence[str]:
        """Return ids of resources; see ``ILifeStore.life_resources``."""
        return await self._query_runner.life_resources(filter, meters, limit)

    async def life_runs(
        self, resources: Sequence[str], meters: Sequence[str], as_of: datetime | None = None
    ) -> Sequence[SampleRun]:
        """Return runs of samples; see ``ILifeStore.life_runs``."""
        return await self._query_runner.life_runs(resources, meters, as_of)

    async def life_reports(
        self, resources: Sequence[str], pollsters: Sequence[str], as_of: datetime | None = None
    ) -> Sequence[ListedTime]:
        """Return what cycle reports listed; see ``ILifeStore.life_reports``."""
        return await self._query_runner.life_reports(resources, pollsters, as_of)

    async def arrivals(self, project_id: str | None, since: datetime, seconds: int, limit: int) -> Arrivals:
        """Return what was stored lately; see ``IActivity.arrivals``."""
        return await self._query_runner.activity.arrivals(project_id, since, seconds, limit)

    async def resource_counts(
        self, project_id: str | None, kinds: Sequence[ResourceKind], since: datetime, limit: int
    ) -> ResourceCounts:
        """Return numbers of resources; see ``IActivity.resource_counts``."""
        return await self._query_runner.activity.resource_counts(project_id, kinds, since, limit)

    async def proof(self, message_id: str, filter: SampleFilter = SampleFilter()) -> StoredProof | None:  # noqa: B008 (frozen)
        """Return a message and how it was signed; see ``IStore.proof``."""
        return await self._query_runner.proof(message_id, filter)

    async def voided_proof(self, message_id: str) -> StoredProof | None:
        """Return the message of a voided sample and how it was signed; see ``IStore.voided_proof``."""
        return await self._query_runner.voided_proof(message_id)

    async def audit_entries(self, filter: AuditFilter, limit: int, before: int | None = None) -> Sequence[AuditEntry]:
        """Return entries of the audit log; see ``IStore.audit_entries``."""
        return await self._query_runner.audit_entries(filter, limit, before)

    async def record_cycle_reports(self, reports: Sequence[ReceivedCycle]) -> Sequence[ReportResult]:
        """Commit cycle reports; see ``ICompletenessStore.record_cycle_reports``."""
        return await self._cycle_reports.record(reports)

    async def apply_waiting_reports(self) -> int:
        """Apply what has waited long enough; see ``ICompletenessStore.apply_waiting_reports``."""
        return await self._cycle_reports.apply_waiting()

    async def record_heartbeats(self, heartbeats: Sequence[ReceivedHeartbeat]) -> Sequence[ReportResult]:
        """Keep last heartbeats; see ``ICompletenessStore.record_heartbeats``."""
        return await self._writers.run(record_heartbeats, heartbeats)

    async def record_rejected_samples(self, counts: Sequence[RejectedCount]) -> None:
        """Count dead-lettered samples; see ``ICompletenessStore.record_rejected_samples``."""
        await self._writers.run(record_rejected_samples, counts)

    async def agents(self, names: Collection[str] | None = None) -> Sequence[StoredAgent]:
        """Return agents; see ``ICompletenessStore.agents``."""
        return await read_agents(self._readers, names)

    async def heartbeats(self) -> Sequence[StoredHeartbeat]:
        """Return the last heartbeats; see ``ICompletenessStore.heartbeats``."""
        return await read_heartbeats(self._readers)

    async def record_identities(self, report: IdentityReport) -> None:
        """Commit an identity report; see ``IIdentityNames.record_identities``."""
        await self._writers.run(record_identities, report)

    async def names_at(self, kind: IdentityKind, ids: Collection[str], at: datetime) -> Mapping[str, NamePeriod]:
        """Return names; see ``IIdentityNames.names_at``."""
        return await self._identity_names.names_at(kind, ids, at)

    async def histories(self, keys: Collection[IdentityKey]) -> Mapping[IdentityKey, tuple[NamePeriod, ...]]:
        """Return all names; see ``IIdentityNames.histories``."""
        return await self._identity_names.histories(keys)

    async def identities(
        self, filter: IdentityFilter, limit: int, after: IdentityKey | None = None
    ) -> tuple[Sequence[IdentityHistory], IdentityKey | None]:
        """Return a page of identities; see ``IIdentityNames.identities``."""
        return await self._identity_names.identities(filter, limit, after)

    def subscribe_to_commits(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` after commits; see ``IStore.subscribe_to_commits``."""
        return self._commit_listener.subscribe(callback)

    async def completeness(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[CompletenessRow]:
        """Return numbers of expected and missing samples; see ``ICompletenessLedger.completeness``."""
        return await self._completeness.completeness(query, now, limit)

    async def completeness_gaps(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[Gap]:
        """Return gaps; see ``ICompletenessLedger.completeness_gaps``."""
        return await self._completeness.gaps(query, now, limit)

    async def agent_states(self, now: datetime) -> Sequence[ReportingAgent]:
        """Return all agents; see ``ICompletenessLedger.agent_states``."""
        return await self._completeness.agent_states(now)

    async def unmetered(self) -> Sequence[Unmetered]:
        """Return what reconciliation found; see ``ICompletenessLedger.unmetered``."""
        return await unmetered(self)

    async def audited_periods(self, start: datetime, end: datetime) -> Sequence[AuditedPeriod]:
        """Return the audit periods of Nova; see ``ICompletenessLedger.audited_periods``."""
        return await audited_periods(self, start, end)

    async def hours_not_final(self, start: datetime, end: datetime, now: datetime) -> Sequence[datetime]:
        """Return hours that should be final; see ``ICompletenessLedger.hours_not_final``."""
        return await self._completeness.hours_not_final(start, end, now)

    async def closable(self, query: CompletenessQuery, now: datetime) -> Closable:
        """Return whether a period may be closed; see ``ICompletenessLedger.closable``."""
        return await self._completeness.closable(query, now)
