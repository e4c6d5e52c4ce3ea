"""Administration of the database, for ``meter-db``: upgrade, status, partitions, retention and sizes."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.store.maintenance.maintenance import BEGINNING
from meter.store.maintenance.rollups import next_hour_to_finalize
from meter.store.migrations import Schema
from meter.store.migrations import migrations
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.dsn import described
from meter.store.postgres.durability import unsafe_settings

Report = dict[str, Any]
"""A JSON object; ``None`` where a value is unknown."""

PARTITIONS = """
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'sample'::regclass ORDER BY c.relname
"""

TABLES = """
SELECT CASE WHEN i.inhparent IS NULL THEN c.relname ELSE 'sample' END,
    sum(greatest(c.reltuples, 0))::bigint, sum(pg_relation_size(c.oid))::bigint,
    sum(pg_indexes_size(c.oid))::bigint, sum(pg_total_relation_size(c.oid))::bigint
FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
GROUP BY 1 ORDER BY 5 DESC, 1
"""


class Administration:
    """One connection to the database at ``dsn``. Open it before any other method, and close it."""

    def __init__(self, reactor: Any, dsn: str, *, clock: IReactorTime, statement_timeout_seconds: float = 30.0) -> None:
        parameters = connection_parameters(
            dsn, statement_timeout_seconds=statement_timeout_seconds, application_name="meter-db"
        )
        self._where = described(parameters)
        self._schema = Schema(migrations())
        self._connection = Connection(reactor, clock, parameters, answer_seconds=statement_timeout_seconds + 10)

    async def open(self) -> None:
        """Connect; :class:`meter.interfaces.Unavailable` if that fails."""
        await self._connection.open()

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    async def upgrade(self) -> Report:
        """Upgrade the schema, without a time limit; return the version before and after."""
        previous = await self._schema.database_version(self._connection)
        await self._in_transaction(lambda: self._schema.upgrade(self._connection))
        return {"previous_schema_version": previous, "schema_version": self._schema.version}

    async def status(self) -> Report:
        """Return the location of the database, the versions of server, schema and extensions, and unsafe settings."""
        session = self._connection
        [[server_version, standby]] = await session.rows(
            "SELECT current_setting('server_version'), pg_is_in_recovery()"
        )
        extensions = await session.rows(
            "SELECT extname, extversion FROM pg_extension WHERE extname IN ('citus', 'timescaledb') ORDER BY 1"
        )
        return {
            "database": self._where,
            "server_version": server_version,
            "standby": standby,
            "schema_version": await self._schema.database_version(session),
            "required_schema_version": self._schema.version,
            "schema_problem": await self._schema.problem(session),
            "extensions": dict(extensions),
            "unsafe_settings": await unsafe_settings(session),
        }

    async def partitions(self) -> Sequence[Report]:
        """Return each partition of the samples: bounds, PostgreSQL's estimate of its rows, and bytes including indexes."""
        await self._check()
        return [
            {"partition": name, "bounds": bounds, "estimated_rows": rows, "total_bytes": size}
            for name, bounds, rows, size in await self._connection.rows(PARTITIONS)
        ]

    async def retention(self) -> Report:
        """Return the retention cutoffs by meter (``*`` for all), the collected rows by dimension, and which hours are final."""
        await self._check()
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
        await self._check()
        tables = [
            {
                "table": name,
                "estimated_rows": rows,
                "table_bytes": table,
                "index_bytes": indexes,
                "total_bytes": total,
            }
            for name, rows, table, indexes, total in await self._connection.rows(TABLES)
        ]
        samples = sum(each["estimated_rows"] for each in tables if each["table"] == "sample")
        total = sum(each["total_bytes"] for each in tables)
        return {
            "estimated_samples": samples,
            "total_bytes": total,
            "bytes_per_sample": round(total / samples, 1) if samples else None,
            "tables": tables,
        }

    async def _check(self) -> None:
        await self._schema.check(self._connection)

    async def _in_transaction(self, work: Callable[[], Awaitable[None]]) -> None:
        await self._connection.count("BEGIN")
        try:
            await work()
        except BaseException:
            if not self._connection.closed:
                await self._connection.count("ROLLBACK")
            raise
        await self._connection.count("COMMIT")


def _text(timestamp: datetime | None) -> str | None:
    return None if timestamp is None else timestamp.isoformat()
