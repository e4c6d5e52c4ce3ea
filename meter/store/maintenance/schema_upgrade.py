"""The upgrade of the schema, for ``meter-db upgrade``: what it will do, how long that takes and whom it keeps waiting; and the upgrade."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.store.maintenance.administered_database import AdministeredDatabase
from meter.store.migrations import Migration
from meter.store.migrations.facts import NO_DAEMONS
from meter.store.migrations.facts import facts_of
from meter.store.migrations.table_locks import holders
from meter.store.migrations.table_locks import stronger
from meter.store.postgres.pool import Session
from meter.store.postgres.transaction import in_transaction

Report = dict[str, Any]
"""A JSON object."""

READ_BYTES_PER_SECOND = 100_000_000
"""At which PostgreSQL reads a table and looks at each row, on disks that are not the fastest."""

WRITTEN_BYTES_PER_SECOND = 20_000_000
"""At which it writes rows, or builds an index of a table of so many bytes."""

STEP_SECONDS = 0.05
"""What each step takes with empty tables."""

SIZES = """
SELECT coalesce(parent.relname, c.relname)::text, sum(pg_table_size(c.oid))::bigint, sum(greatest(c.reltuples, 0))::bigint
FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class parent ON parent.oid = i.inhparent
WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND coalesce(parent.relname, c.relname) = ANY(%s)
GROUP BY 1
"""

DAEMONS = """
SELECT DISTINCT application_name FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'meter-%%' ORDER BY 1
"""


def duration_class(seconds: float) -> str:
    """Return a duration as what can be known of it: the disks, the memory and what else the server does are not."""
    if seconds < 10:
        return "seconds"
    if seconds < 60:
        return "up to a minute"
    if seconds < 3600:
        return "minutes"
    return "hours"


class SchemaUpgrade(AdministeredDatabase):
    """One connection to the database whose schema is to be upgraded. Open it before any other method, and close it."""

    def __init__(self, reactor: Any, dsn: str, *, clock: IReactorTime, application_name: str = "meter-db") -> None:
        super().__init__(reactor, dsn, clock=clock, application_name=application_name)

    async def upgrade(self, tell: Callable[[str], object]) -> Report:
        """Upgrade the schema, without a time limit; return the version before and after, and the steps that were applied.

        :class:`Unavailable` if that is not possible (:meth:`meter.store.migrations.Schema.upgrade`).
        """
        session = self._connection
        previous = await self._schema.database_version(session)
        applied = await in_transaction(session, self._schema.upgrade, session, tell)
        return {
            "previous_schema_version": previous,
            "schema_version": self._schema.version,
            "applied_steps": [_title(step) for step in applied],
        }

    async def plan(self) -> Report:
        """Return what :meth:`upgrade` would do; :class:`Unavailable` if this Meter cannot use the database at all."""
        session = self._connection
        version = await self._schema.upgradable_version(session)
        missing = self._schema.steps_after(version)
        locks = stronger([facts_of(step.number).locks for step in missing])
        problem = await self._schema.hindrance(session, version)
        steps = await self._steps(session, missing)
        seconds = sum(each.pop("seconds") for each in steps)
        return {
            "schema_version": version,
            "required_schema_version": self._schema.version,
            "problem": problem,
            "duration": duration_class(seconds) if steps else None,
            "assumed_rates": f"{READ_BYTES_PER_SECOND // 10**6} MB/s read, {WRITTEN_BYTES_PER_SECOND // 10**6} MB/s written",
            "in_use_by": [each.text for each in await holders(session, locks)],
            "connected_daemons": [name for (name,) in await session.rows(DAEMONS)],
            "steps": steps,
        }

    async def _steps(self, session: Session, steps: Sequence[Migration]) -> list[Report]:
        described = [(step, facts_of(step.number)) for step in steps]
        named = {table for _, facts in described for table in (*facts.locks, *facts.reads, *facts.writes)}
        sizes = {name: (int(size), int(rows)) for name, size, rows in await session.rows(SIZES, [sorted(named)])}
        is_new = bool(steps) and steps[0].number == 1  # a database without Meter's tables, which no daemon has used yet
        report = []
        for step, facts in described:
            read, rows = (sum(sizes.get(table, (0, 0))[n] for table in facts.reads) for n in (0, 1))
            written = sum(sizes.get(table, (0, 0))[0] for table in facts.writes)
            seconds = STEP_SECONDS + read / READ_BYTES_PER_SECOND + written / WRITTEN_BYTES_PER_SECOND
            report.append(
                {
                    "step": _title(step),
                    "does": facts.does,
                    "locks": {table: mode for table, mode in facts.locks.items() if table in sizes},
                    "reads_rows": rows,
                    "reads_bytes": read,
                    "writes_bytes": written,
                    "duration": duration_class(seconds),
                    "earlier_daemons": NO_DAEMONS if is_new else facts.earlier_daemons,
                    "seconds": seconds,
                }
            )
        return report


def _title(step: Migration) -> str:
    return f"{step.number:04} {step.name}"
