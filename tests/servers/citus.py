"""A private Citus cluster for tests: a coordinator and workers, each a PostgreSQL of its own on loopback.

``citus`` is one cluster for the whole run. Each test takes databases of its own from it: empty ones in which the nodes
know each other, or ones with Meter's schema whose samples are distributed. A database of a cluster is a database of
the same name on every node. It is copied from a template on every node at once: Citus knows the other nodes by host and
port, and their database by the name of its own, so a copy of all templates is a cluster. Only Citus' maintenance
daemons must leave a template before it can be copied, and never come back.

Debian does not package the extension. Where it is missing, tests that need it are skipped and say why.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.servers import not_allowed
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed
from tests.servers.postgresql import upgrade

MISSING = "the extension Citus 12 or newer is not installed for the newest PostgreSQL here: Debian does not package it"
WORKERS = 2
NODES_TEMPLATE = "meter_nodes"
SCHEMA_TEMPLATE = "meter_cluster"

NODE_SETTINGS = {
    "shared_preload_libraries": "citus",
    "wal_level": "logical",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "max_prepared_transactions": "200",
    "max_worker_processes": "64",
    "max_locks_per_transaction": "256",
    "citus.max_cached_conns_per_worker": "4",
    "citus.all_modifications_commutative": "on",
    "citus.shard_count": "8",
    # Anything but the default keeps the first CREATE EXTENSION from making keys and turning TLS on.
    "citus.node_conninfo": "sslmode=disable",
    # What is in doubt stays so until somebody recovers it.
    "citus.recover_2pc_interval": "-1",
    # Background jobs, such as rebalancing, are looked for every five seconds by default.
    "citus.background_task_queue_interval": "500",
    "citus.enable_statistics_collection": "off",
}

DAEMONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"

OWN_DATABASE = """
BEGIN; SET LOCAL allow_system_table_mods = on;
UPDATE pg_dist_object SET objid = (SELECT oid FROM pg_database WHERE datname = current_database())
WHERE classid = 'pg_database'::regclass;
COMMIT
"""
"""Corrects what a copy has from its template, and what Citus sends to new workers: the number of the database."""


class CitusCluster:
    """``coordinator`` and ``workers`` are servers. Its DSNs are the coordinator's, so it serves where one server does."""

    def __init__(
        self, binaries: Path, directory: Callable[[str], Path], settings: Mapping[str, str] | None = None
    ) -> None:
        self._binaries = binaries
        self._directory = directory
        self._settings = {**NODE_SETTINGS, **decoding_plugins(binaries), **(settings or {})}
        self._databases = 0
        self._templates: set[str] = set()
        names = ["meter-coordinator-", *(f"meter-worker-{number}-" for number in range(1, WORKERS + 1))]
        with ThreadPoolExecutor(len(names)) as threads:
            self.coordinator, *self.workers = threads.map(self._node, names)

    def _node(self, name: str) -> PostgreSQL:
        return PostgreSQL(self._binaries, self._directory(name), self._settings)

    @property
    def nodes(self) -> Sequence[PostgreSQL]:
        """All servers, the coordinator first."""
        return [self.coordinator, *self.workers]

    @property
    def port(self) -> int:
        """The port of the coordinator on 127.0.0.1."""
        return self.known_port(self.coordinator)

    def known_port(self, node: PostgreSQL) -> int:
        """Return the port on 127.0.0.1 at which the other nodes, and clients of the coordinator, find ``node``."""
        return node.port

    @property
    def url(self) -> str:
        """The DSN of the coordinator's own database, for administration."""
        return self.coordinator.url

    def start(self) -> None:
        """Start all servers that do not run."""
        self._on_all(lambda node: node.start())

    def kill(self) -> None:
        """Kill all servers."""
        self._on_all(lambda node: node.kill())

    def execute(self, statement: str, dsn: str = "") -> list[tuple[Any, ...]]:
        """Execute ``statement`` at the coordinator and return its rows."""
        return self.coordinator.execute(statement, dsn)

    def dsn(self) -> str:
        """Make a database on every node that has the extension and knows the workers, and return the coordinator's DSN."""
        self._make_template(NODES_TEMPLATE, "template1", self._introduce)
        return self._database(NODES_TEMPLATE)

    def dsn_with_schema(self, spread: Callable[[str], None]) -> str:
        """Make a database with Meter's schema that ``spread``, given its DSN, has distributed; all calls with the same function."""

        def prepare(dsn: str) -> None:
            upgrade(dsn)
            spread(dsn)

        self._make_template(NODES_TEMPLATE, "template1", self._introduce)
        self._make_template(SCHEMA_TEMPLATE, NODES_TEMPLATE, prepare)
        return self._database(SCHEMA_TEMPLATE)

    def drop(self, dsn: str) -> None:
        """Drop a database on all nodes that answer; each has processes of Citus as long as it exists."""
        name = dsn.rpartition("/")[2]

        def drop_at(node: PostgreSQL) -> None:
            with suppress(psycopg2.Error):
                node.execute(f"DROP DATABASE {name} WITH (FORCE)")

        self._on_all(drop_at)

    def dsn_at(self, node: PostgreSQL, dsn: str) -> str:
        """Return the DSN of the part of a database that is at ``node``."""
        return f"postgresql://meter@127.0.0.1:{node.port}/{dsn.rpartition('/')[2]}"

    def add_worker(self) -> PostgreSQL:
        """Start another worker and return it; no database knows it before :meth:`introduce`."""
        worker = self._node(f"meter-worker-{len(self.workers) + 1}-")
        self.workers.append(worker)
        worker.start()
        return worker

    def introduce(self, worker: PostgreSQL, dsn: str) -> None:
        """Add a worker, of :meth:`add_worker`, to the cluster of one database; no shards are moved."""
        worker.execute(f"CREATE DATABASE {dsn.rpartition('/')[2]}")
        worker.execute("CREATE EXTENSION citus", self.dsn_at(worker, dsn))
        self.execute(OWN_DATABASE, dsn)
        self.execute(f"SELECT citus_add_node('127.0.0.1', {self.known_port(worker)})", dsn)

    def standby_of_coordinator(self) -> PostgreSQL:
        """Start a standby of the coordinator and return it. Whoever promotes it makes it ``coordinator``."""
        directory = self._directory("meter-standby-")
        standby = PostgreSQL(self._binaries, directory, self._settings, primary=self.coordinator)
        standby.start()
        return standby

    def remove(self, worker: PostgreSQL) -> None:
        """Kill a worker, of :meth:`add_worker`, that no database needs any more, and forget it."""
        worker.kill()
        self.workers.remove(worker)

    def _introduce(self, dsn: str) -> None:
        self._on_all(lambda node: node.execute("CREATE EXTENSION citus", self.dsn_at(node, dsn)))
        self.execute(f"SELECT citus_set_coordinator_host('127.0.0.1', {self.port})", dsn)
        for worker in self.workers:
            self.execute(f"SELECT citus_add_node('127.0.0.1', {self.known_port(worker)})", dsn)

    def _make_template(self, name: str, template: str, prepare: Callable[[str], None]) -> None:
        if name in self._templates:
            return
        self._create(name, template)
        prepare(f"postgresql://meter@127.0.0.1:{self.port}/{name}")
        self._on_all(lambda node: _close(node, name))
        self._templates.add(name)

    def _database(self, template: str) -> str:
        self._databases += 1
        name = f"test_{self._databases}"
        self._create(name, template)
        return f"postgresql://meter@127.0.0.1:{self.port}/{name}"

    def _create(self, name: str, template: str) -> None:
        self._on_all(lambda node: node.execute(f"CREATE DATABASE {name} TEMPLATE {template}"))

    def _on_all(self, work: Callable[[PostgreSQL], object]) -> None:
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(work, self.nodes))


def _close(node: PostgreSQL, database: str) -> None:
    """Let nothing connect to ``database`` any more, and wait until nothing is connected: only then can it be copied."""
    node.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    deadline = time.monotonic() + 30
    while node.execute(DAEMONS.format(database)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"something does not leave {database}")
        time.sleep(0.02)


def decoding_plugins(binaries: Path) -> dict[str, str]:
    """Return the setting that permits Citus' plugin for logical decoding, which only some builds of PostgreSQL have."""
    described = subprocess.run([binaries / "postgres", "--describe-config"], check=True, capture_output=True, text=True)
    name = "output_plugin_libraries"
    return {name: "citus, pgoutput, test_decoding"} if f"\n{name}\t" in f"\n{described.stdout}" else {}


def extension_missing(binaries: Path | None) -> str:
    """Return why there can be no cluster here, or ""."""
    if binaries is None or not (binaries / "pg_config").exists():
        return MISSING
    directory = subprocess.run([binaries / "pg_config", "--sharedir"], check=False, capture_output=True, text=True)
    return "" if (Path(directory.stdout.strip()) / "extension/citus.control").exists() else MISSING


@pytest.fixture(scope="session")
def citus_cluster(server_directory: Callable[[str], Path]) -> Iterator[CitusCluster]:
    """A private cluster for the whole run."""
    binaries = installed()
    missing = extension_missing(binaries)
    if binaries is None or missing:
        not_allowed(missing)
    cluster = CitusCluster(binaries, server_directory)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def citus(citus_cluster: CitusCluster) -> Iterator[CitusCluster]:
    """The cluster; databases that the test makes are dropped at its end."""
    before = set(_databases(citus_cluster))
    yield citus_cluster
    for name in set(_databases(citus_cluster)) - before:
        citus_cluster.drop(name)


def _databases(cluster: CitusCluster) -> list[str]:
    names = cluster.execute("SELECT datname FROM pg_database WHERE datname LIKE 'test\\_%'")
    return [name for [name] in names]
