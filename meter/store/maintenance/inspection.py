"""Looking at the database without changing it, for ``meter-doctor``: the server, partitions, final hours, heartbeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from meter.interfaces import Unavailable
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from meter.store.archive.archive_health import ArchiveHealth
from meter.store.archive.archive_health import archive_health
from meter.store.archive.archived_weeks import LostWeek
from meter.store.archive.archived_weeks import lost_weeks
from meter.store.cluster.unfinished_spread import UnfinishedSpread
from meter.store.cluster.unfinished_spread import unfinished_spread
from meter.store.cluster.workers import Cluster
from meter.store.cluster.workers import cluster_of
from meter.store.cluster.workers import disconnected_nodes
from meter.store.maintenance.maintenance import BEGINNING
from meter.store.maintenance.partitions import end_of_week
from meter.store.maintenance.partitions import weeks_with_partitions
from meter.store.maintenance.rollups import next_hour_to_finalize
from meter.store.migrations import Schema
from meter.store.migrations import migrations
from meter.store.postgres.connection import Connection
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.dsn import described
from meter.store.postgres.durability import unsafe_settings
from meter.store.postgres.sql import alternative
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.query.sample_rows import OF_ANY_SERIES

SERVER = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery(),
    pg_database_size(current_database()),
    CASE WHEN pg_has_role(current_user, 'pg_read_all_settings', 'USAGE') THEN current_setting('data_directory') END
"""

_NEWEST_PLAIN = alternative(
    f"SELECT max(s.timestamp) FROM sample s WHERE {IN_ORDER_OF_TIME}",
    "SELECT max(s.timestamp) FROM spread_samples_in_order(NULL, '-infinity', 'infinity', false, 0, 1, false) s",
)
NEWEST_SAMPLE = f"""
SELECT greatest(({_NEWEST_PLAIN}), (SELECT max(p.last) FROM packed_samples p WHERE {OF_ANY_SERIES}))
"""

DEFAULT_SAMPLES = f"""
SELECT count(*) FROM (
    SELECT FROM sample_default s WHERE {IN_ORDER_OF_TIME} AND s.timestamp >= %s AND s.timestamp < %s LIMIT 1000
) AS found
"""

HEARTBEATS = "SELECT name, clock, received_at, content FROM daemon_heartbeat ORDER BY name"


class DatabaseServer(NamedTuple):
    """The server and its database. ``data_directory`` is ``None`` if it may not be read."""

    where: str
    version: str
    version_number: int
    standby: bool
    database_bytes: int
    data_directory: str | None
    schema_version: int
    required_schema_version: int
    schema_problem: str | None
    unsafe_settings: dict[str, str]


class PartitionState(NamedTuple):
    """Whether this week and the next have partitions, and samples of this week that are outside of one (1 000 at most)."""

    week: date
    current: bool
    next: bool
    default_samples: int


class HeartbeatRow(NamedTuple):
    """The last heartbeat of a daemon: times of its clock and of the database's when it arrived, and its content as JSON."""

    name: str
    clock: datetime
    received_at: datetime
    content: str


class DatabaseInspection:
    """One read-only connection to the database at ``dsn``. Every method raises :class:`Unavailable` if it is not available."""

    def __init__(self, reactor: Any, dsn: str, *, clock: IReactorTime, answer_seconds: float = 10.0) -> None:
        parameters = connection_parameters(
            dsn,
            statement_timeout_seconds=answer_seconds - 1,
            application_name="meter-doctor",
            read_only=True,
        )
        self._where = described(parameters)
        self._schema = Schema(migrations())
        self._connection = Connection(
            reactor, clock, parameters, open_seconds=answer_seconds, answer_seconds=answer_seconds
        )

    async def open(self) -> None:
        """Connect; :class:`Unavailable` if that fails."""
        await self._connection.open()

    async def interrupt(self) -> None:
        """Disconnect, and keep the server from going on with the statement in progress."""
        await self._connection.interrupt()

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    async def rows(self, statement: str, parameters: Any = None) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a statement; :class:`Unavailable` also for one that takes too long or is not permitted."""
        try:
            return await self._connection.rows(statement, parameters)
        except (Rejected, TimedOut) as error:
            raise Unavailable(str(error)) from error

    async def now(self) -> datetime:
        """Return the time of the server's clock."""
        [[now]] = await self.rows("SELECT clock_timestamp()")
        found: datetime = now
        return found

    async def server(self) -> DatabaseServer:
        """Return what there is to know of the server and the schema."""
        [[version, number, standby, size, directory]] = await self.rows(SERVER)
        return DatabaseServer(
            where=self._where,
            version=version,
            version_number=number,
            standby=standby,
            database_bytes=size,
            data_directory=directory,
            schema_version=await self._schema.database_version(self._connection),
            required_schema_version=self._schema.version,
            schema_problem=await self._schema.problem(self._connection),
            unsafe_settings=await unsafe_settings(self._connection),
        )

    async def cluster(self) -> Cluster | None:
        """Return the workers as the coordinator sees them, and which nodes cannot connect to which; ``None`` on one server."""
        try:
            cluster = await cluster_of(self._connection)
            if cluster is None or cluster.away:
                return cluster
            return replace(cluster, disconnected=await disconnected_nodes(self._connection))
        except (Rejected, TimedOut) as error:
            raise Unavailable(str(error)) from error

    async def unfinished_spread(self) -> UnfinishedSpread | None:
        """Return how far a spread is that has begun and is not done; ``None`` if none is."""
        try:
            return await unfinished_spread(self._connection)
        except (Rejected, TimedOut) as error:
            raise Unavailable(str(error)) from error

    async def lost_weeks(self) -> list[LostWeek]:
        """Return the weeks whose samples are lost."""
        return await lost_weeks(self._connection)

    async def archives(self) -> list[ArchiveHealth]:
        """Return the archive servers, and why questions for their weeks fail."""
        try:
            return await archive_health(self._connection)
        except (Rejected, TimedOut) as error:
            raise Unavailable(str(error)) from error

    async def partitions(self, now: datetime) -> PartitionState:
        """Return which partitions there are at ``now``, a time of the database's clock."""
        week = week_of(now)
        weeks = set(await weeks_with_partitions(self._connection))
        monday = start_of_week(week)
        [[stray]] = await self.rows(DEFAULT_SAMPLES, [monday, end_of_week(now)])
        return PartitionState(week, week in weeks, week + WEEK in weeks, stray)

    async def oldest_hour_not_final(self, until: datetime) -> datetime | None:
        """Return the start of the first hour before ``until`` that has samples and is not final."""
        try:
            return await next_hour_to_finalize(self._connection, BEGINNING, until)
        except (Rejected, TimedOut) as error:
            raise Unavailable(str(error)) from error

    async def newest_sample(self) -> datetime | None:
        """Return the timestamp of the newest sample, packed or not; ``None`` if there is none."""
        [[newest]] = await self.rows(NEWEST_SAMPLE)
        found: datetime | None = newest
        return found

    async def heartbeats(self) -> Sequence[HeartbeatRow]:
        """Return the last heartbeat of each daemon, by name."""
        return [HeartbeatRow(*row) for row in await self.rows(HEARTBEATS)]


def overdue(hour: datetime, now: datetime, finalize_after_seconds: float) -> timedelta:
    """Return for how long the hour that starts at ``hour`` could have been final at ``now``; negative if it could not yet."""
    return now - hour - timedelta(hours=1, seconds=finalize_after_seconds)
