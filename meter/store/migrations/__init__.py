"""The schema of the store, and how a database gets it: numbered steps, forward only.

A step is a file ``NNNN_name.sql`` of this package. It is applied once, in the order of the numbers, and recorded in the
table ``schema_version``. Any number of processes may upgrade at the same time: one applies the steps, the others wait
and find them applied. All steps that are missing are applied in one transaction: a database has the old schema or the new one,
whenever the process is killed. A step that is in use never changes: every change of the schema is a further step, which
has its facts in :mod:`meter.store.migrations.facts`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from twisted.logger import Logger

from meter.interfaces import Unavailable
from meter.store.cluster.functions import renew_functions
from meter.store.migrations.facts import facts_of
from meter.store.migrations.table_locks import holder_of
from meter.store.migrations.table_locks import stronger
from meter.store.migrations.table_locks import take_locks
from meter.store.postgres.pool import Session

LOCK = 0x6D65746572_01
"""Key of the advisory lock that upgrades take: ``meter`` in ASCII, 1."""

UNKNOWN_SCHEMA = (
    "the schema of the database cannot be upgraded, because a Meter from before the first release made it (its step"
    " {number} is {name}): export its samples with that Meter (GET /v2/samples, Accept: application/x-ndjson), or name an"
    " empty database in dsn of [store]"
)

FOREIGN_DATABASE = "the database has no tables of Meter, and has those of another application ({tables}): name an empty database in dsn of [store]"

FOREIGN_VERSIONS = "the table schema_version of the database is not Meter's, but another application's: name an empty database in dsn of [store]"

NEWER_SCHEMA = "the database has schema version {found}, this Meter knows {known}: install the newer Meter here too"

VERSION_COLUMNS = """
SELECT a.attname::text, a.atttypid::regtype::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relname = 'schema_version' AND c.relnamespace = current_schema()::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
"""

OTHER_TABLES = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'f')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1 LIMIT 4
"""
"""The first tables of the schema that no extension has made."""

RIGHTS = """
SELECT current_user::text, current_schema()::text, has_schema_privilege(current_schema(), 'CREATE'), (
    SELECT string_agg(DISTINCT pg_get_userbyid(c.relowner)::text, ', ') FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(%s) AND NOT pg_has_role(c.relowner, 'USAGE')
)
"""
"""May the role make tables, and who else owns the tables that are to be changed."""

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

    async def upgrade(self, session: Session, tell: Callable[[str], object] | None = None) -> Sequence[Migration]:
        """Apply the missing steps in the current transaction, and find out whether the store is spread; return the applied steps.

        ``tell`` is called with what is being done.

        :class:`Unavailable` for a database of a newer Meter, of one from before the first release, or of another application,
        for a role without the rights to change it, and if a table is in use.
        """
        say = tell or (lambda text: None)
        found = await self.upgradable_version(session)
        missing: Sequence[Migration] = ()
        if found < self.version:
            await session.remove_time_limits(of_transaction=True)
            [[free]] = await session.rows("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
            if not free:
                say(f"waiting for {await holder_of(session, LOCK)}, which upgrades")
                await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            found = await self.upgradable_version(session)
            if problem := await self.hindrance(session, found):
                raise Unavailable(problem)
            missing = self.steps_after(found)
            if missing:
                say("waiting for locks")
                await take_locks(session, stronger([facts_of(step.number).locks for step in missing]))
            for step in missing:
                _log.info("applying step {number} of the schema ({name})", number=step.number, name=step.name)
                say(f"step {step.number} of {self.version} ({step.name})")
                await session.count(step.statements)
                await self._record(session, step)
        await self._find_servers(session)
        if session.spread:
            await renew_functions(session)
        return missing

    def steps_after(self, version: int) -> Sequence[Migration]:
        """Return the steps that lead from ``version`` to this schema."""
        return self._steps[version:]

    async def hindrance(self, session: Session, found: int) -> str | None:
        """Return why a database with version ``found`` cannot be upgraded in this session, ``None`` if it can."""
        if not found and (foreign := await _foreign(session)):
            return foreign
        changed = stronger([facts_of(step.number).locks for step in self.steps_after(found)])
        tables = [*changed, "schema_version"]
        [[role, schema, may_create, owners]] = await session.rows(RIGHTS, [tables])
        if found < self.version and owners:
            return (
                f"the schema cannot be upgraded as PostgreSQL role {role}, which does not own the tables; {owners} does:"
                " run meter-db upgrade as that role (dsn of [store])"
            )
        if found < self.version and not may_create:
            return (
                f"the schema cannot be upgraded as PostgreSQL role {role}, which may not create tables in schema {schema}:"
                f" GRANT CREATE ON SCHEMA {schema} TO {role}, or run meter-db upgrade as a role that may (dsn of [store])"
            )
        return None

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
        try:
            found = await self.upgradable_version(session)
        except Unavailable as error:
            return str(error)
        if not found and (foreign := await _foreign(session)):
            return foreign
        if not found:
            return f"the database is empty (schema version 0), and this Meter needs version {self.version}: start meter-collector, or run meter-db upgrade"
        if found < self.version:
            return f"the database has schema version {found}, and this Meter needs version {self.version}: start meter-collector, or run meter-db upgrade"
        return None

    async def database_version(self, session: Session) -> int:
        """Return the version of the database's schema, 0 for an empty database."""
        return _version(await self._applied(session))

    async def upgradable_version(self, session: Session) -> int:
        """Return the version of the database's schema; :class:`Unavailable` if no step of this Meter follows it."""
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
            return NEWER_SCHEMA.format(found=found, known=self.version)
        return None

    async def _applied(self, session: Session) -> Sequence[tuple[int, str]]:
        """Return number and name of each step that was applied, in order."""
        columns = {name: of_type for name, of_type in await session.rows(VERSION_COLUMNS)}
        if not columns:
            return []
        if (columns.get("version"), columns.get("name")) != ("integer", "text"):
            raise Unavailable(FOREIGN_VERSIONS)
        rows = await session.rows("SELECT version, name FROM schema_version ORDER BY version")
        return [(number, name) for number, name in rows]

    async def _record(self, session: Session, step: Migration) -> None:
        await session.count(
            "CREATE TABLE IF NOT EXISTS schema_version"
            " (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        await session.count("INSERT INTO schema_version (version, name) VALUES (%s, %s)", [step.number, step.name])


async def _foreign(session: Session) -> str | None:
    """Return that the database has tables of another application, ``None`` if it has no tables at all."""
    tables = [name for (name,) in await session.rows(OTHER_TABLES)]
    more = ", …" if len(tables) > 3 else ""
    return FOREIGN_DATABASE.format(tables=", ".join(tables[:3]) + more) if tables else None


def _version(applied: Sequence[tuple[int, str]]) -> int:
    return applied[-1][0] if applied else 0
