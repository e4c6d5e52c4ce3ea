"""What the database is like inside, for whoever administers it: ``meter-db``."""

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

Facts = dict[str, Any]
"""Names and what is so: texts, numbers, times; ``None`` where nothing is known."""

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
    """One connection to the database at ``dsn``, to be opened, asked, and closed."""

    def __init__(self, reactor: Any, dsn: str, *, clock: IReactorTime, statement_timeout_seconds: float = 30.0) -> None:
        parameters = connection_parameters(
            dsn, statement_timeout_seconds=statement_timeout_seconds, application_name="meter-db"
        )
        self._where = described(parameters)
        self._schema = Schema(migrations())
        self._connection = Connection(reactor, clock, parameters, answer_seconds=statement_timeout_seconds + 10)

    async def open(self) -> None:
        """Connect; :class:`meter.interfaces.Unavailable` says why that did not work."""
        await self._connection.open()

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    async def upgrade(self) -> Facts:
        """Bring the schema up to date, however long that takes; return versions before and after."""
        before = await self._schema.found(self._connection)
        await self._in_transaction(lambda: self._schema.upgrade(self._connection))
        return {"before": before, "version": self._schema.version}

    async def status(self) -> Facts:
        """Return where the database is, what it runs on, which schema it has, and what of its settings is unsafe."""
        session = self._connection
        [[server, standby]] = await session.rows("SELECT current_setting('server_version'), pg_is_in_recovery()")
        extensions = await session.rows(
            "SELECT extname, extversion FROM pg_extension WHERE extname IN ('citus', 'timescaledb') ORDER BY 1"
        )
        return {
            "database": self._where,
            "server": server,
            "standby": standby,
            "schema": await self._schema.found(session),
            "needed": self._schema.version,
            "extensions": dict(extensions),
            "unsafe_settings": await unsafe_settings(session),
        }

    async def partitions(self) -> Sequence[Facts]:
        """Return each partition of the samples: its bounds, an estimate of its rows, and its bytes with indexes."""
        await self._check()
        return [
            {"partition": name, "bounds": bounds, "rows": rows, "bytes": size}
            for name, bounds, rows, size in await self._connection.rows(PARTITIONS)
        ]

    async def retention(self) -> Facts:
        """Return what was let go, by meter (``*`` for all), what was swept since, and how far hours and days are settled."""
        await self._check()
        session = self._connection
        retention_cutoffs = await session.rows("SELECT meter, before FROM retention_cutoff ORDER BY meter")
        [[hours, days, newest]] = await session.rows(
            "SELECT count(*) FILTER (WHERE hours = 1), count(*) FILTER (WHERE hours = 24),"
            " max(start) FILTER (WHERE hours = 1) FROM final_period"
        )
        return {
            "kept_since": {meter or "*": _text(before) for meter, before in retention_cutoffs},
            "garbage_collected_rows": dict(
                await session.rows("SELECT dimension, rows FROM garbage_collected ORDER BY dimension")
            ),
            "finalized_hours": hours,
            "finalized_days": days,
            "newest_settled_hour": _text(newest),
            "oldest_hour_not_final": _text(await next_hour_to_finalize(session, BEGINNING, datetime.now(UTC))),
        }

    async def size(self) -> Facts:
        """Return bytes and estimated rows by table, partitions as one, and the bytes that a sample takes in all."""
        await self._check()
        tables = [
            {"table": name, "rows": rows, "bytes": table, "index_bytes": indexes, "total_bytes": total}
            for name, rows, table, indexes, total in await self._connection.rows(TABLES)
        ]
        samples = sum(each["rows"] for each in tables if each["table"] == "sample")
        total = sum(each["total_bytes"] for each in tables)
        return {
            "samples": samples,
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


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
