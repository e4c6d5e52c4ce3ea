"""Administration of the database, for ``meter-db`` and ``meter-audit``: its schema, sizes, voided samples and audit log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from functools import partial
from typing import Any
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime

from meter.interfaces import Unavailable
from meter.query import AuditEntry
from meter.query import AuditFilter
from meter.signing_keys import SigningKey
from meter.store.archive.archive_health import archive_health
from meter.store.archive.archived_weeks import archived_weeks
from meter.store.archive.archived_weeks import lost_weeks
from meter.store.audit.log import append
from meter.store.audit.log import entries_after
from meter.store.audit.log import entries_statement
from meter.store.audit.log import entry_of
from meter.store.audit.void_statements import VoidedSamplesCheck
from meter.store.cluster.unfinished_spread import unfinished_spread
from meter.store.cluster.workers import cluster_of
from meter.store.cluster.workers import cluster_report
from meter.store.cluster.workers import require_all_workers
from meter.store.cluster.workers import sizes_by_partition
from meter.store.maintenance.administered_database import AdministeredDatabase
from meter.store.maintenance.empty_hours import mark_empty_hours
from meter.store.maintenance.empty_hours import unused_gaps
from meter.store.maintenance.maintenance import BEGINNING
from meter.store.maintenance.retirement import Retirement
from meter.store.maintenance.retirement import retire
from meter.store.maintenance.rollups import DAY
from meter.store.maintenance.rollups import HOUR
from meter.store.maintenance.rollups import days_to_finalize
from meter.store.maintenance.rollups import finalize
from meter.store.maintenance.rollups import next_hour_to_finalize
from meter.store.maintenance.voiding import Act
from meter.store.maintenance.voiding import Selection
from meter.store.maintenance.voiding import Voiding
from meter.store.maintenance.voiding import unvoid
from meter.store.maintenance.voiding import void
from meter.store.maintenance.voiding import voided
from meter.store.maintenance.voiding import voided_count
from meter.store.packing.packed_partitions import packed_partition_name
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.durability import unsafe_settings
from meter.store.postgres.pool import Session
from meter.store.postgres.transaction import in_transaction

T = TypeVar("T")

Report = dict[str, Any]
"""A JSON object; ``None`` where a value is unknown."""

PARTITIONS = """
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent IN ('sample'::regclass, 'packed_samples'::regclass) AND c.relkind = 'r' ORDER BY c.relname
"""

SAMPLES_BY_PACKED_WEEK = (
    "SELECT date_trunc('week', first AT TIME ZONE 'UTC')::date, sum(count) FROM packed_samples GROUP BY 1"
)

TABLES = """
SELECT coalesce(parent.relname, c.relname), c.relname, greatest(c.reltuples, 0)::bigint, pg_table_size(c.oid),
    pg_indexes_size(c.oid), pg_total_relation_size(c.oid)
FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class parent ON parent.oid = i.inhparent
WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
"""
"""Tables, those that are partitions with the name of the whole, and their sizes on this server."""

SIZE_COLUMNS = ("estimated_rows", "table_bytes", "index_bytes", "total_bytes")


async def archive_report(session: Session) -> list[Report]:
    """Return the archive servers as JSON: which weeks each has, how many deletions are still to be done there, and whether it answers."""
    return [
        {
            "server": each.name,
            "host": each.host,
            "port": each.port,
            "database": each.database,
            "weeks": each.weeks,
            "first_week": each.first and str(each.first),
            "last_week": each.last and str(each.last),
            "to_be_removed": each.removals,
            "state": problem or "answers",
        }
        for each, problem in await archive_health(session)
    ]


async def lost_report(session: Session) -> list[Report]:
    """Return the weeks whose samples are lost, as JSON."""
    return [
        {
            "week": str(each.week),
            "samples": each.samples,
            "server": each.server,
            "since": str(each.since),
            "audit_entry": each.entry,
        }
        for each in await lost_weeks(session)
    ]


class Administration(AdministeredDatabase):
    """One connection to the database at ``dsn``. Open it before any other method, and close it."""

    def __init__(
        self,
        reactor: Any,
        dsn: str,
        *,
        clock: IReactorTime,
        statement_timeout_seconds: float = 30.0,
        application_name: str = "meter-db",
    ) -> None:
        super().__init__(
            reactor,
            dsn,
            clock=clock,
            application_name=application_name,
            statement_timeout_seconds=statement_timeout_seconds,
        )

    async def status(self) -> Report:
        """Return the location of the database, the versions of server, schema and extensions, and unsafe settings."""
        session = self._connection
        [[server_version, standby]] = await session.rows(
            "SELECT current_setting('server_version'), pg_is_in_recovery()"
        )
        problem = await self._schema.problem(session)
        extensions = await session.rows(
            "SELECT extname, extversion FROM pg_extension WHERE extname IN ('citus', 'timescaledb') ORDER BY 1"
        )
        unfinished = None if problem else await unfinished_spread(session)
        return {
            "database": self._where,
            "server_version": server_version,
            "standby": standby,
            "schema_version": await self._schema_version(),
            "required_schema_version": self._schema.version,
            "schema_problem": problem,
            "extensions": dict(extensions),
            "unsafe_settings": await unsafe_settings(session),
            "voided_samples": None if problem else await voided_count(session),
            "archive_servers": [] if problem else await archive_report(session),
            "lost_weeks": [] if problem else await lost_report(session),
            "unfinished_spread": str(unfinished) if unfinished else None,
            **(await self._workers() if not problem else {}),
        }

    async def _schema_version(self) -> int | None:
        """Return the version of the schema; ``None`` if it is not Meter's, which the *schema problem* says."""
        try:
            return await self._schema.database_version(self._connection)
        except Unavailable:
            return None

    async def _workers(self) -> Report:
        """Return the state of the workers if the samples are distributed, otherwise nothing."""
        cluster = await cluster_of(self._connection)
        return cluster_report(cluster) if cluster else {}

    async def partitions(self) -> Sequence[Report]:
        """Return each partition of the samples, plain and packed: bounds, its samples, and bytes including indexes.

        The number of samples is PostgreSQL's estimate of the rows, and exact of packed samples. Of an archived week, the bytes that its arrays
        took here are stated, too; they are on its archive server.
        """
        await self.check()
        bytes_by_week = {
            week: int(size) for week, size in await self._connection.rows("SELECT week, bytes FROM archived_week")
        }
        archived = {
            packed_partition_name(each.week): (each.text, bytes_by_week.get(each.week, 0))
            for each in await archived_weeks(self._connection)
        }
        shards = await self._shards()
        packed = {
            packed_partition_name(week): int(n) for week, n in await self._connection.rows(SAMPLES_BY_PACKED_WEEK)
        }
        return [
            {
                "partition": name,
                "bounds": bounds,
                "estimated_rows": rows,
                "samples": packed.get(name, rows),
                "total_bytes": size,
                "archive": archived.get(name, ("", 0))[0],
                "archived_bytes": archived.get(name, ("", 0))[1],
            }
            for name, bounds, rows, size in [
                (name, bounds, shards[name][0], shards[name][-1]) if name in shards else (name, bounds, rows, size)
                for name, bounds, rows, size in await self._connection.rows(PARTITIONS)
            ]
        ]

    async def _shards(self) -> Mapping[str, tuple[int, int, int, int]]:
        """Return what partitions have on workers: rows, and bytes of tables, of indexes and in total.

        :class:`Unavailable` if a worker is away.
        """
        cluster = await cluster_of(self._connection)
        if cluster is not None:
            require_all_workers(cluster)
        return sizes_by_partition(cluster.shards if cluster else ())

    async def retention(self) -> Report:
        """Return the retention cutoffs by meter (``*`` for all), the collected rows by dimension, and which hours are final."""
        await self.check()
        session = self._connection
        retention_cutoffs = await session.rows("SELECT meter, before FROM retention_cutoff ORDER BY meter")
        [[final_hours, final_days, newest]] = await session.rows(
            "SELECT count(*) FILTER (WHERE hours = 1), count(*) FILTER (WHERE hours = 24),"
            " max(start) FILTER (WHERE hours = 1) FROM final_period"
        )
        return {
            "retention_cutoffs": {meter or "*": _text(before) for meter, before in retention_cutoffs},
            "garbage_collected_rows": dict(
                await session.rows("SELECT dimension, rows FROM garbage_collected ORDER BY dimension")
            ),
            "final_hours": final_hours,
            "final_days": final_days,
            "newest_final_hour": _text(newest),
            "oldest_hour_not_final": _text(await next_hour_to_finalize(session, BEGINNING, datetime.now(UTC))),
        }

    async def size(self) -> Report:
        """Return bytes and estimated rows by table, all partitions as one table, and the bytes per sample in total."""
        await self.check()
        shards = await self._shards()
        sizes: dict[str, list[int]] = defaultdict(lambda: [0] * len(SIZE_COLUMNS))
        for table, name, *local in await self._connection.rows(TABLES):
            sizes[table] = [sum(each) for each in zip(sizes[table], shards.get(name, local), strict=True)]
        largest_first = sorted(sizes.items(), key=lambda each: (-each[1][-1], each[0]))
        tables: list[Report] = [
            {"table": table, **dict(zip(SIZE_COLUMNS, each, strict=True))} for table, each in largest_first
        ]
        [[packed]] = await self._connection.rows("SELECT coalesce(sum(count), 0) FROM packed_samples")
        [[archived, archived_bytes]] = await self._connection.rows(
            "SELECT coalesce(sum(samples), 0), coalesce(sum(bytes), 0) FROM archived_week"
        )
        samples = sum(each["estimated_rows"] for each in tables if each["table"] == "sample") + int(packed)
        total = sum(each["total_bytes"] for each in tables)
        return {
            "estimated_samples": samples,
            "packed_samples": int(packed),
            "archived_samples": int(archived),
            "archived_bytes": int(archived_bytes),
            "total_bytes": total,
            "bytes_per_sample": round(total / samples, 1) if samples else None,
            "tables": tables,
        }

    async def void(self, selection: Selection, act: Act) -> Voiding:
        """Void the selected samples; :class:`UnexpectedCount` if another number than ``act.expected`` is selected."""
        return await self._change(lambda: void(self._connection, selection, act))

    async def unvoid(self, selection: Selection, act: Act) -> Voiding:
        """Restore the selected voided samples; :class:`UnexpectedCount` as for :meth:`void`."""
        return await self._change(lambda: unvoid(self._connection, selection, act))

    async def retire_agent(self, agent: str, until: datetime | None, act: Act) -> Retirement:
        """End what an agent measures, as of ``until`` or else its last cycle."""
        return await self._change(lambda: retire(self._connection, agent, until, act))

    async def voided(self, limit: int) -> Sequence[Report]:
        """Return at most ``limit`` voided samples, those that were voided last first."""
        await self.check()
        return await voided(self._connection, limit)

    async def finalize(self, until: datetime, act: Act) -> Report:
        """Finalize the hours and days that ended before ``until``, each in a transaction; report how many, and which failed."""
        session = self._connection
        await self.record(act, "finalize", {"until": until.isoformat()})
        until = until.replace(minute=0, second=0, microsecond=0)
        finalized, failed = {HOUR: 0, DAY: 0}, []

        async def attempt(start: datetime, hours: int) -> None:
            try:
                finalized[hours] += await self._change(partial(finalize, session, start, hours))
            except Rejected as error:
                failed.append({"start": _text(start), "hours": hours, "reason": str(error)})

        async def change(work: Callable[..., Awaitable[bool]], *arguments: Any) -> bool:
            return await self._change(partial(work, session, *arguments))

        since = BEGINNING
        while (hour := await next_hour_to_finalize(session, since, until)) is not None:
            await attempt(hour, HOUR)
            since = hour + timedelta(hours=1)
        for start, finish in await unused_gaps(session):
            with suppress(TimedOut):  # they stay as they are: queries look for samples in them
                await mark_empty_hours(change, start, finish)
        for day in await days_to_finalize(session, until.replace(hour=0)):
            await attempt(day, DAY)
        return {"finalized_hours": finalized[HOUR], "finalized_days": finalized[DAY], "failed": failed}

    async def record(self, act: Act, action: str, details: Mapping[str, Any]) -> AuditEntry:
        """Append an entry to the audit log, and return it once it is committed."""
        keys, who, reason = act.keys, act.who, act.reason
        return await self._change(
            lambda: append(
                self._connection, keys, who=who, action=action, reason=reason, details={**act.details, **details}
            )
        )

    async def audit_entries(self, filter: AuditFilter, limit: int) -> Sequence[AuditEntry]:
        """Return the newest matching entries of the audit log."""
        await self.check()
        statement = entries_statement(filter, limit, None)
        return [entry_of(row) for row in await self._connection.rows(statement.text, statement.parameters)]

    async def audit_entries_after(self, seq: int | None, limit: int) -> Sequence[AuditEntry]:
        """Return at most ``limit`` entries of the audit log with numbers above ``seq``, oldest first.

        With ``None`` they are from the lowest number on, even of entries that Meter did not make.
        """
        await self.check()
        return await entries_after(self._connection, seq, limit)

    async def newest_referenced_entry(self) -> int:
        """Return the highest number of an audit entry that a voided sample refers to, 0 if none does."""
        await self.check()
        [[seq]] = await self._connection.rows("SELECT coalesce(max(audit_seq), 0) FROM voided_sample")
        return int(seq)

    async def problems_of_voided_samples(self, keys: Sequence[SigningKey]) -> Sequence[str]:
        """Return where the audit log, as far as ``keys`` verify it, does not explain the voided samples."""
        await self.check()
        check = VoidedSamplesCheck(self._connection.rows, keys)
        await self._connection.count("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            await check.run()
        finally:
            if not self._connection.closed:
                await self._connection.count("ROLLBACK")
        return check.problems

    async def _change(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work`` in a transaction without a time limit."""
        await self.check()

        async def unlimited() -> T:
            await self._connection.remove_time_limits(of_transaction=True)
            return await work()

        return await in_transaction(self._connection, unlimited)


def _text(timestamp: datetime | None) -> str | None:
    return None if timestamp is None else timestamp.isoformat()
