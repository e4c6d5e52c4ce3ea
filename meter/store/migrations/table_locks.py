"""The locks of a schema upgrade: taken before the first step, within seconds or not at all, and told who holds them instead."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from meter.interfaces import Unavailable
from meter.store.migrations.facts import ALTERS
from meter.store.migrations.facts import INDEXES
from meter.store.migrations.facts import TRIGGERS
from meter.store.postgres.connection import Conflict
from meter.store.postgres.connection import Locked
from meter.store.postgres.pool import Session

LOCK_SECONDS = 5
"""Whoever needs a table meanwhile waits as long as the upgrade waits for its lock, and then goes on."""

STRENGTH = (INDEXES, TRIGGERS, ALTERS)
"""From the weakest lock to the strongest."""

CONFLICTING = {
    INDEXES: (
        "RowExclusiveLock",
        "ShareUpdateExclusiveLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ),
    TRIGGERS: (
        "RowExclusiveLock",
        "ShareUpdateExclusiveLock",
        "ShareLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ),
}
"""Which locks of others conflict with a lock; all do with the one that is not here."""

HOLDERS = """
SELECT DISTINCT l.pid, coalesce(nullif(a.application_name, ''), 'a client without application_name'), a.usename::text,
    date_trunc('second', a.xact_start)::text, coalesce(parent.relname, c.relname)::text, l.mode,
    CASE WHEN a.backend_type IS DISTINCT FROM 'autovacuum worker' THEN extract(epoch FROM clock_timestamp() - a.xact_start)::float END
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
LEFT JOIN pg_class parent ON parent.oid = i.inhparent LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND c.relnamespace = current_schema()::regnamespace AND coalesce(parent.relname, c.relname) = ANY(%s) ORDER BY 4, 1
"""

ADVISORY_HOLDER = """
SELECT l.pid, coalesce(nullif(a.application_name, ''), 'a client without application_name'), a.usename::text,
    date_trunc('second', a.xact_start)::text
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND l.objsubid = 1
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND l.classid::bigint = %s AND l.objid::bigint = %s
"""

PRESENT = "SELECT relname::text FROM pg_class WHERE relname = ANY(%s) AND relnamespace = current_schema()::regnamespace"

TOLD_HOLDERS = 5


class LockHolder(NamedTuple):
    """A client whose lock conflicts; ``seconds`` for which its transaction lasts, ``None`` if unknown or if it makes way by itself."""

    text: str
    seconds: float | None


def stronger(locks: Collection[Mapping[str, str]]) -> dict[str, str]:
    """Return the strongest lock of each table among ``locks``."""
    every: dict[str, str] = {}
    for some in locks:
        for table, mode in some.items():
            every[table] = max(mode, every.get(table, mode), key=STRENGTH.index)
    return every


async def present_tables(session: Session, tables: Collection[str]) -> set[str]:
    """Return which of ``tables`` exist now."""
    return {name for (name,) in await session.rows(PRESENT, [sorted(tables)])}


async def take_locks(session: Session, locks: Mapping[str, str]) -> None:
    """Lock the tables of ``locks`` that exist, in the current transaction; :class:`Unavailable` names who holds a lock for too long.

    Of a transaction that has lasted longer than the wait, the end is not waited for at all: a collector that tries again and again
    would keep everybody else waiting most of the time. What follows in the transaction waits for no lock longer either.
    """
    if long := [each for each in await holders(session, locks) if (each.seconds or 0) > LOCK_SECONDS]:
        raise Unavailable(_in_use("a table that it changes", long))
    await session.count(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    present = await present_tables(session, locks)
    await session.count("SAVEPOINT before_locks")
    for table in sorted(present):
        try:
            await session.count(f'LOCK TABLE "{table}" IN {locks[table]} MODE')
        except (Locked, Conflict) as error:
            await session.count("ROLLBACK TO SAVEPOINT before_locks")
            found = await holders(session, {table: locks[table]})
            raise Unavailable(_in_use(f"the table {table}", found)) from error
    await session.count("RELEASE SAVEPOINT before_locks")


def _in_use(what: str, found: Sequence[LockHolder]) -> str:
    who = "; ".join(each.text for each in found[:TOLD_HOLDERS]) or "nobody any more"
    return (
        f"the schema was not upgraded: {what} was not free within {LOCK_SECONDS} s, it is used by {who}."
        " Upgrade again when they have ended, or end them with pg_terminate_backend(PID)"
    )


async def holders(session: Session, locks: Mapping[str, str]) -> list[LockHolder]:
    """Return the clients whose locks conflict with ``locks``, those with the oldest transactions first."""
    found: dict[Any, LockHolder] = {}
    for pid, name, user, since, table, mode, seconds in await session.rows(HOLDERS, [sorted(locks)]):
        wanted = CONFLICTING.get(locks[table])
        if wanted is None or mode in wanted:
            found.setdefault(pid, LockHolder(client(pid, name, user, since), seconds))
    return list(found.values())


async def holder_of(session: Session, key: int) -> str:
    """Return the client that holds the advisory lock with this key."""
    rows = await session.rows(ADVISORY_HOLDER, [key >> 32, key & 0xFFFFFFFF])
    return client(*rows[0]) if rows else "another process"


def client(pid: int | None, name: str, user: str | None, since: str | None) -> str:
    """Return what identifies a client of PostgreSQL. Who may not see the transactions of others does not know since when."""
    if pid is None:
        return "a prepared transaction (pg_prepared_xacts)"
    return f"{name} (pid {pid}, role {user or 'unknown'}, in a transaction since {since or 'an unknown time'})"
