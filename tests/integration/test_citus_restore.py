"""All servers of a cluster restored to one restore point, from base backups and archived WAL, as docs/cluster.rst says."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg2
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.integration.test_citus_page import PAGE
from tests.integration.test_citus_page import statements
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import finalized
from tests.integration.test_store_rollups import running
from tests.servers import not_allowed
from tests.servers.citus import CitusCluster
from tests.servers.citus import extension_missing
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed
from tests.spread import spread
from tests.store_messages import message
from tests.waiting import until

SERIES = 40
"""Of each batch, so that each worker has some."""

ARCHIVING = {
    "synchronous_commit": "on",
    "archive_mode": "on",
    # A command is executed in the directory of the server's data.
    "archive_command": "mkdir -p ../archive && cp %p ../archive/%f",
}

STORED = "SELECT r.name FROM sample s JOIN series x ON x.id = s.series_id JOIN resource r ON r.id = x.resource_id"
IN_ROLLUPS = """
SELECT r.series_id, sum(count)::integer FROM rollup r JOIN series x ON x.id = r.series_id WHERE hours = 1 AND x.resource_id > 0 GROUP BY 1 ORDER BY 1
"""
IN_SAMPLES = "SELECT series_id, count(*)::integer FROM sample GROUP BY 1 ORDER BY 1"
CRASHES = 3
ARCHIVED = "SELECT last_archived_wal >= '{}' FROM pg_stat_archiver"


class RestorableCluster(CitusCluster):
    """A cluster that archives its WAL, and can be backed up and restored at other addresses."""

    def __init__(self, binaries, directory):
        self.directories = {}

        def remembered(prefix):
            found = directory(prefix)
            self.directories[prefix] = found
            return found

        super().__init__(binaries, remembered, ARCHIVING)
        self._of = dict(zip(self.nodes, sorted(self.directories), strict=True))

    def back_up(self, point):
        """Return servers made of base backups of all nodes, which are restored to ``point`` when they are started."""
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            return list(threads.map(lambda node: self._backup_of(node, point), self.nodes))

    def _backup_of(self, node, point):
        name = self._of[node]
        directory = self._directory(f"restored-{name}")
        settings = {
            **self._settings,
            "archive_mode": "off",
            **dict(re.findall(r"^    (\w+) = '(.*)'$", PAGE, re.MULTILINE)),
            "restore_command": f"cp {self.directories[name]}/archive/%f %p",
            "recovery_target_name": point,
        }
        server = PostgreSQL(self._binaries, directory, settings, primary=node)
        # No standby, which would ask its primary.
        (directory / "data/standby.signal").rename(directory / "data/recovery.signal")
        return server

    def archive(self):
        """Let each node archive the WAL that it has written."""
        for node in self.nodes:
            [[segment]] = node.execute("SELECT pg_walfile_name(pg_switch_wal())")
            while node.execute(ARCHIVED.format(segment)) != [(True,)]:
                pass

    def replace(self, servers):
        """Start restored servers in the place of the nodes, which were killed."""
        with ThreadPoolExecutor(len(servers)) as threads:
            list(threads.map(lambda server: server.start(), servers))
        self.coordinator, *self.workers = servers


@pytest.fixture
def cluster(server_directory):
    if missing := extension_missing(installed()):
        not_allowed(missing)
    cluster = RestorableCluster(installed(), server_directory)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


class Batches:
    """Writes batches of one transaction each; ``numbers`` are those that are stored."""

    def __init__(self, store):
        self._store = store
        self.going = True
        self.numbers = []

    async def run(self):
        while self.going:
            await self.write(len(self.numbers))

    async def write(self, number):
        """Write a batch, with series of its own."""
        batch = [
            message(
                resource_id=f"{number}-{n}",
                at=START + timedelta(minutes=number),
                message_id=f"{number:08x}-{n:04x}-7000-8000-000000000000",
            )
            for n in range(SERIES)
        ]
        found = await self._store.write(batch)
        self.numbers.append(number)
        return found


def at_restored(statement, old, new):
    """Return the statement of the page that says where a node is now."""
    address = f"'127.0.0.1', {new.port}"
    moved = re.sub(r"'db1b\.example\.org', 5432", address, statement)
    return re.sub(r"nodename = '.*'", f"nodeport = {old.port}", moved)


def executed_again(cluster, statement, dsn):
    """Execute a statement as often as it takes: Citus 12.1 sometimes crashes in it, just after a restore."""
    for _ in range(CRASHES):
        with contextlib.suppress(psycopg2.OperationalError):
            return cluster.execute(statement, dsn)
        time.sleep(2)
    return cluster.execute(statement, dsn)


@pytest.mark.timeout(900)
@pytest_twisted.ensureDeferred
async def test_all_servers_are_restored_to_the_same_moment_and_meter_goes_on(cluster):
    [create, update, recover] = statements(
        "SELECT citus_create_restore_point", "SELECT citus_update_node", "SELECT recover_prepared_transactions"
    )
    point = re.search("'(.*)'", create)[1]
    dsn = await deferToThread(cluster.dsn_with_schema, spread)
    name = dsn.rpartition("/")[2]
    async with running(dsn, writers=1) as store:
        batches = Batches(store)
        await batches.write(0)
        restored = await deferToThread(cluster.back_up, point)
        await batches.write(1)
        await finalized(store)
        writing = Deferred.fromCoroutine(batches.run())
        try:
            await until(lambda: len(batches.numbers) > 4)
            before = len(batches.numbers)
            await deferToThread(cluster.execute, create, dsn)
            after = len(batches.numbers) + 1  # one may be under way
            await until(lambda: len(batches.numbers) > after + 1)
        finally:
            batches.going = False
            await writing
        await deferToThread(cluster.archive)
    old = cluster.nodes
    cluster.kill()
    try:
        await deferToThread(cluster.replace, restored)
        await until(lambda: all(each.execute("SELECT pg_is_in_recovery()") == [(False,)] for each in restored))
        dsn = f"postgresql://meter@127.0.0.1:{cluster.port}/{name}"
        for was, now in zip(old, restored, strict=True):
            await deferToThread(executed_again, cluster, at_restored(update, was, now), dsn)
        await deferToThread(cluster.execute, recover, dsn)

        # Each batch is there on both workers or on none, and those before and after the restore point are as they should be.
        stored = Counter(resource.partition("-")[0] for [resource] in cluster.execute(STORED, dsn))
        numbers = {int(number) for number in stored}
        assert set(stored.values()) == {SERIES}
        assert numbers == set(range(len(numbers)))
        assert before <= len(numbers) <= after

        async with running(dsn, writers=1) as store:
            await finalized(store)
            assert cluster.execute(IN_ROLLUPS, dsn) == cluster.execute(IN_SAMPLES, dsn)
            again = Batches(store)
            for number in batches.numbers:
                assert (await again.write(number)).stored == (0 if number in numbers else SERIES)
            await finalized(store)
            assert cluster.execute(IN_ROLLUPS, dsn) == cluster.execute(IN_SAMPLES, dsn)
            assert len(cluster.execute(IN_SAMPLES, dsn)) == SERIES * len(batches.numbers)
    finally:
        for each in restored:
            each.kill()
