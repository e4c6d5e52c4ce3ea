"""The schema of the store and how a database gets it: numbered steps, forward only.

A step is a file ``NNNN_name.sql`` of this package, applied once, in order, and recorded in ``schema_version``. Any
number of processes may do it at the same time: one does, the others wait for it and find it done.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from twisted.logger import Logger

from meter.interfaces import Unavailable
from meter.store.postgres.pool import Session

LOCK = 0x6D65746572_01
"""Key of the advisory lock that upgrades take: ``meter`` in ASCII, 1."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: what to execute to get from version ``number - 1`` to ``number``."""

    number: int
    name: str
    statements: str


def migrations() -> Sequence[Migration]:
    """Return the steps that this Meter knows, in order."""
    found = []
    for file in files(__package__).iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations must be numbered 0001, 0002, … without a gap")
    return found


async def has_table(session: Session, name: str) -> bool:
    """Return whether there is a table ``name`` by now.

    PostgreSQL's own ``to_regclass`` may answer from a cache that is as old as the transaction: whoever waited for
    another to make a table would not see it (test_two_processes_upgrade_at_once_and_each_step_is_taken_once).
    """
    rows = await session.rows(
        "SELECT FROM pg_class WHERE relname = %s AND relnamespace = current_schema()::regnamespace", [name]
    )
    return bool(rows)


class Schema:
    """The schema as ``steps`` make it; both methods are for :class:`meter.store.postgres.pool.Pool` to prepare sessions with."""

    def __init__(self, steps: Iterable[Migration]) -> None:
        self._steps = tuple(steps)
        self.version = len(self._steps)

    async def upgrade(self, session: Session) -> None:
        """Apply the steps that are missing; :class:`Unavailable` for a database that is ahead of this Meter."""
        found = await self.found(session)
        if found < self.version:
            session.disable_timeout()
            await session.count("SET LOCAL statement_timeout = 0")
            await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            found = await self.found(session)
            for step in self._steps[found:]:
                _log.info("applying migration {number} ({name})", number=step.number, name=step.name)
                await session.count(step.statements)
                await self._record(session, step)
        self._refuse_newer(found)

    async def check(self, session: Session) -> None:
        """Raise :class:`Unavailable` until the database has the version that this Meter needs."""
        found = await self.found(session)
        if found < self.version:
            raise Unavailable(
                f"the database has schema version {found} and needs {self.version}: start a meter-collector, which upgrades it"
            )
        self._refuse_newer(found)

    def _refuse_newer(self, found: int) -> None:
        if found > self.version:
            raise Unavailable(
                f"the database has schema version {found}, this Meter knows {self.version}: install the newer Meter here too"
            )

    async def found(self, session: Session) -> int:
        """Return the version that the database has, 0 for none."""
        if not await has_table(session, "schema_version"):
            return 0
        [[version]] = await session.rows("SELECT coalesce(max(version), 0) FROM schema_version")
        return int(version)

    async def _record(self, session: Session, step: Migration) -> None:
        await session.count(
            "CREATE TABLE IF NOT EXISTS schema_version"
            " (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        await session.count("INSERT INTO schema_version (version, name) VALUES (%s, %s)", [step.number, step.name])
