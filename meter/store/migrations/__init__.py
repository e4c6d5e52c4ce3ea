"""The schema of the store, and how a database gets it: numbered steps, forward only.

A step is a file ``NNNN_name.sql`` of this package. It is applied once, in the order of the numbers, and recorded in the
table ``schema_version``. Any number of processes may upgrade at the same time: one applies the steps, the others wait
and find them applied. A step that is in use never changes: every change of the schema is a further step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from twisted.logger import Logger

from meter.interfaces import Unavailable
from meter.store.cluster.functions import renew_functions
from meter.store.postgres.pool import Session

LOCK = 0x6D65746572_01
"""Key of the advisory lock that upgrades take: ``meter`` in ASCII, 1."""

UNKNOWN_SCHEMA = (
    "the schema of the database cannot be upgraded, because a Meter from before the first release made it (its step"
    " {number} is {name}): export its samples with that Meter (GET /v2/samples, Accept: application/x-ndjson), or name an"
    " empty database in dsn of [store]"
)

FOREIGN_DATABASE = "the database has no tables of Meter, and has those of another application ({tables}): name an empty database in dsn of [store]"

OTHER_TABLES = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'f')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1 LIMIT 4
"""
"""The first tables of the schema that no extension has made."""

SPREAD_STORE = "spread_store"
"""The table that exists in a store that is spread over several servers, or about to be (:mod:`meter.store.cluster`)."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: the statements that lead from version ``number - 1`` of the schema to ``number``."""

    number: int
    name: str
    statements: str


def migrations() -> Sequence[Migration]:
    """Return the steps of this Meter, in order."""
    found = []
    for file in files(__package__).iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations must be numbered 0001, 0002, … without a gap")
    return found


async def has_table(session: Session, name: str) -> bool:
    """Return whether the table ``name`` exists now.

    PostgreSQL's own ``to_regclass`` may answer from a cache that is as old as the transaction: a transaction that
    waited for another one to create a table would not see it
    (test_two_processes_upgrade_at_once_and_each_step_is_applied_once).
    """
    rows = await session.rows(
        "SELECT FROM pg_class WHERE relname = %s AND relnamespace = current_schema()::regnamespace", [name]
    )
    return bool(rows)


class Schema:
    """The schema that ``steps`` make. :class:`~meter.store.postgres.pool.Pool` prepares sessions with ``upgrade`` or ``check``."""

    def __init__(self, steps: Iterable[Migration]) -> None:
        self._steps = tuple(steps)
        self.version = len(self._steps)

    async def upgrade(self, session: Session) -> None:
        """Apply the missing steps in the current transaction, and find out whether the store is spread.

        :class:`Unavailable` for a database of a newer Meter, of one from before the first release, or of another application.
        """
        found = await self._upgradable_version(session)
        if found < self.version:
            await session.remove_time_limits(of_transaction=True)
            await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            found = await self._upgradable_version(session)
            if not found and (tables := [name for (name,) in await session.rows(OTHER_TABLES)]):
                more = ", …" if len(tables) > 3 else ""
                raise Unavailable(FOREIGN_DATABASE.format(tables=", ".join(tables[:3]) + more))
            for step in self._steps[found:]:
                _log.info("applying step {number} of the schema ({name})", number=step.number, name=step.name)
                await session.count(step.statements)
                await self._record(session, step)
        await self._find_servers(session)
        if session.spread:
            await renew_functions(session)

    async def check(self, session: Session) -> None:
        """Raise :class:`Unavailable` unless the database has exactly this schema; find out whether the store is spread."""
        if problem := await self.problem(session):
            raise Unavailable(problem)
        await self._find_servers(session)

    async def _find_servers(self, session: Session) -> None:
        session.spread = await has_table(session, SPREAD_STORE)
        if session.spread:
            # Each shard exists once: two transactions that insert into it need not wait for each other.
            await session.count("SET citus.all_modifications_commutative = on")

    async def problem(self, session: Session) -> str | None:
        """Return why this Meter cannot use the database and what to do about it; ``None`` if it can."""
        applied = await self._applied(session)
        found = _version(applied)
        if problem := self._not_upgradable(applied):
            return problem
        if found < self.version:
            return f"the database has schema version {found}, and this Meter needs version {self.version}: start meter-collector, or run meter-db upgrade"
        return None

    async def database_version(self, session: Session) -> int:
        """Return the version of the database's schema, 0 for an empty database."""
        return _version(await self._applied(session))

    async def _upgradable_version(self, session: Session) -> int:
        applied = await self._applied(session)
        if problem := self._not_upgradable(applied):
            raise Unavailable(problem)
        return _version(applied)

    def _not_upgradable(self, applied: Sequence[tuple[int, str]]) -> str | None:
        names = {step.number: step.name for step in self._steps}
        for number, name in applied:
            if names.get(number, name) != name:
                return UNKNOWN_SCHEMA.format(number=number, name=name)
        if (found := _version(applied)) > self.version:
            return f"the database has schema version {found}, this Meter knows {self.version}: install the newer Meter here too"
        return None

    async def _applied(self, session: Session) -> Sequence[tuple[int, str]]:
        """Return number and name of each step that was applied, in order."""
        if not await has_table(session, "schema_version"):
            return []
        rows = await session.rows("SELECT version, name FROM schema_version ORDER BY version")
        return [(number, name) for number, name in rows]

    async def _record(self, session: Session, step: Migration) -> None:
        await session.count(
            "CREATE TABLE IF NOT EXISTS schema_version"
            " (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        await session.count("INSERT INTO schema_version (version, name) VALUES (%s, %s)", [step.number, step.name])


def _version(applied: Sequence[tuple[int, str]]) -> int:
    return applied[-1][0] if applied else 0
