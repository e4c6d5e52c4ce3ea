"""Spreading: turns a running store on one server into one whose samples are on the workers of a Citus cluster.

Each step looks at what is there, so that a command that was stopped goes on where it was. Daemons run meanwhile. The first step makes
them reconnect: from then on they execute the statements for a spread store, which suit one server, too. Only then the unique index of
ids, which cannot be distributed, is replaced; writers look ids up instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime

from meter.interfaces import Unavailable
from meter.store.cluster.functions import VERSION
from meter.store.cluster.functions import make_functions
from meter.store.cluster.workers import disconnected_nodes
from meter.store.maintenance.rollups import lock_all_hours
from meter.store.migrations import SPREAD_STORE
from meter.store.migrations import has_table
from meter.store.packing.packed_partitions import lock_packed_samples
from meter.store.postgres.pool import Session
from meter.store.postgres.transaction import in_transaction

LOCK = 0x6D65746572_20
"""Key of the advisory lock of the one session that spreads the store."""

KEY = "message_id, timestamp, series_id"

MARK = """
CREATE TABLE spread_store (functions integer NOT NULL, began_at timestamptz NOT NULL, done_at timestamptz);
CREATE TABLE sampled_series (series_id integer PRIMARY KEY);
INSERT INTO sampled_series SELECT id FROM series WHERE resource_id > 0
"""
"""Of ``spread_store`` there is one row. ``sampled_series`` has the series that may have samples, on the servers of these."""

AS_OWNER = "SELECT set_config('role', pg_get_userbyid(relowner), true) FROM pg_class WHERE oid = %s::regclass"

WITHOUT_TRIGGERS = """
DROP TRIGGER IF EXISTS resources_of_inserted ON sample;
DROP TRIGGER IF EXISTS resources_of_updated ON sample;
UPDATE metadata_known SET since = 'infinity'
"""
"""Citus distributes no table with triggers. Nobody asks a spread store for the resources of metadata (docs/decisions/0035-resources-of-metadata.rst)."""

RECONNECT = """
SELECT count(*) FROM (
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
        AND application_name LIKE 'meter%' AND backend_start < clock_timestamp()
) AS ended
"""
"""Ends the sessions of Meter: they do not know yet that the store is spread."""

SETTINGS = """
SELECT name, success, result FROM (
    SELECT 'the coordinator' AS name, true AS success, current_setting('wal_level') || ' ' || current_setting('max_prepared_transactions')
        || ' ' || current_setting('max_connections') || ' ' || current_setting('server_version_num')
        || ' ' || (SELECT extversion FROM pg_extension WHERE extname = 'citus') AS result
    UNION ALL
    SELECT 'the worker ' || nodename || ':' || nodeport, success, result FROM run_command_on_workers($$
        SELECT current_setting('wal_level') || ' ' || current_setting('max_prepared_transactions') || ' ' || current_setting('max_connections')
            || ' ' || current_setting('server_version_num') || ' ' || (SELECT extversion FROM pg_extension WHERE extname = 'citus')
    $$)
) AS node
"""

WORKERS = (
    "SELECT count(*) FROM pg_dist_node WHERE groupid > 0 AND isactive AND noderole = 'primary' AND shouldhaveshards"
)
COORDINATOR = "SELECT nodename, shouldhaveshards FROM pg_dist_node WHERE groupid = 0"
IS_DISTRIBUTED = "SELECT FROM pg_dist_partition WHERE logicalrelid = %s::regclass AND partmethod = 'h'"

PARTITIONS = """
SELECT c.relname,
    EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p'),
    (SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND x.relname = c.relname || '_key_of_series'
        AND NOT i.indisvalid),
    (SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND x.relname = c.relname || '_message_id'),
    greatest(c.reltuples, 0)::bigint
FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'sample'::regclass ORDER BY c.relname
"""

HAS_KEY = "SELECT FROM pg_constraint WHERE conrelid = 'sample'::regclass AND contype = 'p'"
BOUNDS = "SELECT convalidated FROM pg_constraint WHERE conrelid = 'sample'::regclass AND conname = 'volume_in_bounds'"
VOLUME_IN_BOUNDS = "CHECK (volume = 0 OR abs(volume) BETWEEN 1e-100 AND 1e30)"

AT_ITSELF = """
SELECT current_setting('citus.local_hostname') || ':' || current_setting('port'),
    citus_check_connection_to_node(current_setting('citus.local_hostname'), current_setting('port')::integer)
"""
"""Whether the coordinator reaches itself by the name that it uses for that."""

COPIED = """
SELECT coalesce(sum(result::bigint), 0)::bigint
FROM run_command_on_workers('SELECT coalesce(sum(tuples_processed), 0) FROM pg_stat_progress_copy WHERE datname = current_database()')
WHERE success
"""
"""How many rows are being copied to the workers."""


class NotSpreadable(Exception):
    """The store cannot be spread as it is, and was not changed. Its text names everything that is missing."""


@dataclass(frozen=True, slots=True)
class SpreadStep:
    """A step that was done: what it did, and how many samples it concerned."""

    text: str
    samples: int


class Spreading:
    """Spreads the store over ``session``, which is outside of a transaction and without time limits.

    ``shards_per_worker`` is into how many tables on each worker the samples of a week are divided.
    """

    def __init__(self, session: Session, *, shards_per_worker: int = 4) -> None:
        self._session = session
        self._shards_per_worker = shards_per_worker

    async def open(self) -> None:
        """Become the one process that spreads; :class:`Unavailable` while another one does."""
        [[locked]] = await self._session.rows("SELECT pg_try_advisory_lock(%s)", [LOCK])
        if not locked:
            raise Unavailable("another session spreads this store")

    async def is_done(self) -> bool:
        """Return whether all is done."""
        return await has_table(self._session, SPREAD_STORE) and bool(
            await self._session.rows("SELECT FROM spread_store WHERE done_at IS NOT NULL")
        )

    async def check(self) -> None:
        """Raise :class:`NotSpreadable` with all that is missing."""
        if missing := await self._missing():
            raise NotSpreadable("; ".join(missing))

    async def samples(self) -> int:
        """Return an estimate of the number of samples that are not packed."""
        return sum(row[-1] for row in await self._session.rows(PARTITIONS))

    async def spread(self) -> AsyncIterator[SpreadStep]:
        """Do what is left to do, yielding each step when it is done."""
        session = self._session
        if not await has_table(session, SPREAD_STORE):
            await in_transaction(session, self._mark)
            ended = (await session.rows(RECONNECT))[0][0]
            yield SpreadStep(f"daemons know: {ended} of their connections were closed", 0)
        else:
            await in_transaction(session, self._renew)
        session.spread = True
        if not await session.rows(IS_DISTRIBUTED, ["sample"]):
            await self._briefly(WITHOUT_TRIGGERS)
            if await session.rows(BOUNDS):
                await self._briefly("ALTER TABLE sample DROP CONSTRAINT volume_in_bounds")
            async for step in self._keys():
                yield step
            samples = await self.samples()
            shards = self._shards_per_worker * (await session.rows(WORKERS))[0][0]
            await session.rows(
                "SELECT create_distributed_table_concurrently('sample', 'series_id', shard_count => %s)", [shards]
            )
            yield SpreadStep(f"samples are divided into {shards} shards", samples)
        if not await session.rows(IS_DISTRIBUTED, ["sampled_series"]):
            await session.rows(
                "SELECT create_distributed_table('sampled_series', 'series_id', colocate_with => 'sample')"
            )
            await session.rows("SELECT truncate_local_data_after_distributing_table('sampled_series')")
        bounds = await session.rows(BOUNDS)
        if not bounds:
            await self._briefly(f"ALTER TABLE sample ADD CONSTRAINT volume_in_bounds {VOLUME_IN_BOUNDS} NOT VALID")
        if not bounds or not bounds[0][0]:
            await session.count("ALTER TABLE sample VALIDATE CONSTRAINT volume_in_bounds")
        await session.count("UPDATE spread_store SET done_at = now() WHERE done_at IS NULL")
        yield SpreadStep("volumes are within their bounds", 0)

    async def _keys(self) -> AsyncIterator[SpreadStep]:
        """Give each partition a key that contains the series, in place of the unique index of its ids."""
        session = self._session
        for name, has_key, unfinished, message_ids, samples in await session.rows(PARTITIONS):
            index = f"{name}_key_of_series"
            if not has_key:
                if unfinished:
                    await session.count(f'DROP INDEX "{unfinished}"')
                await session.count(f'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "{index}" ON "{name}" ({KEY})')
                await self._briefly(
                    f'ALTER TABLE "{name}" ADD CONSTRAINT "{name}_pkey" PRIMARY KEY USING INDEX "{index}"'
                )
            if message_ids:
                await self._briefly(f'DROP INDEX "{message_ids}"')
            if not has_key or message_ids:
                yield SpreadStep(f"{name} has a key with the series", samples)
        if not await session.rows(HAS_KEY):
            await self._briefly(f"ALTER TABLE sample ADD PRIMARY KEY ({KEY})")

    async def _mark(self) -> None:
        """Commit to a spread store, while nothing is written, finalized or packed."""
        await self._as_owner_of("sample")
        await lock_packed_samples(self._session)
        await lock_all_hours(self._session)
        await self._session.count(MARK)
        await make_functions(self._session)
        await self._session.count(
            "INSERT INTO spread_store (functions, began_at) VALUES (%s, %s)", [VERSION, datetime.now(UTC)]
        )

    async def _renew(self) -> None:
        await self._as_owner_of("spread_store")
        await make_functions(self._session)
        await self._session.count("UPDATE spread_store SET functions = %s", [VERSION])

    async def _as_owner_of(self, table: str) -> None:
        """Become the owner of ``table`` until the end of the transaction.

        What the superuser makes belongs to the role that makes all other tables, and has the privileges that this one grants by default.
        """
        await self._session.rows(AS_OWNER, [table])

    async def _briefly(self, statement: str) -> None:
        """Execute a statement that needs a table for itself for a moment: wait for it no longer than that others notice."""
        await in_transaction(self._session, self._locking, statement)

    async def _locking(self, statement: str) -> None:
        await self._session.count("SET LOCAL lock_timeout = '10s'")
        await self._session.count(statement)

    async def _missing(self) -> Sequence[str]:
        """Return what keeps the store from being spread."""
        session = self._session
        if not await session.rows("SELECT FROM pg_extension WHERE extname = 'citus'"):
            return [
                "the database does not have the extension citus: install it on every server, add it to"
                " shared_preload_libraries, restart, and CREATE EXTENSION citus in this database on each of them"
            ]
        settings = await session.rows(SETTINGS)
        found = [f"{name} does not answer: {why}" for name, success, why in settings if not success]
        versions = set()
        for name, success, result in settings:
            if success:
                wal_level, prepared, connections, server, citus = result.split(" ")
                versions.add((int(server) // 10000, citus))
                if wal_level != "logical":
                    found.append(f"{name} has wal_level = {wal_level}: it must be logical")
                if int(prepared) < int(connections):
                    found.append(
                        f"{name} has max_prepared_transactions = {prepared}: it must be at least max_connections, {connections}"
                    )
        if len(versions) > 1:
            found.append(
                f"the servers have different versions: {', '.join(f'{a} with Citus {b}' for a, b in sorted(versions))}"
            )
        coordinator = await session.rows(COORDINATOR)
        if not coordinator or coordinator[0][0] == "localhost":
            found.append("the workers do not know the coordinator: SELECT citus_set_coordinator_host('host', port)")
        elif coordinator[0][1]:
            found.append(
                "the coordinator has shouldhaveshards: SELECT citus_set_node_property('host', port, 'shouldhaveshards', false)"
            )
        if not (await session.rows(WORKERS))[0][0]:
            found.append("there is no worker: SELECT citus_add_node('host', port)")
        [[is_superuser]] = await session.rows("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        if not is_superuser:
            found.append("the role is no superuser: name one in dsn for this command")
        return found or await self._disconnected()

    async def _disconnected(self) -> Sequence[str]:
        """Return which server does not reach which other one: copying samples would fail in the middle."""
        session = self._session
        found = [f"{one} cannot connect to {other}" for one, other in await disconnected_nodes(session)]
        [[address, reached]] = await session.rows(AT_ITSELF)
        if not reached:
            found.append(
                f"the coordinator cannot connect to itself at {address}: set citus.local_hostname to its own name"
            )
        if found:
            found.append("see citus.node_conninfo, pg_dist_authinfo and pg_hba.conf in docs/cluster.rst")
        return found
