"""A private PostgreSQL that fails over, for tests: a primary and a synchronous standby kept by Patroni, with one etcd, on loopback.

Patroni promotes the standby when the primary has not renewed its key in etcd for :data:`TTL_SECONDS`, and rewinds the old primary
when that comes back.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg2

from tests.ports import free_port
from tests.servers.postgresql import executed

MISSING = "Patroni and etcd are not installed: apt-get install --no-install-recommends patroni etcd-server"
TTL_SECONDS = 10
"""How long the key of a primary that renews it no longer is valid; 30 by default."""

START_SECONDS = 120.0

# pg_rewind needs full_page_writes, which is on by default.
PARAMETERS = {
    "fsync": "off",
    "shared_buffers": "64MB",
    "max_connections": 60,
    "max_wal_size": "256MB",
    "synchronous_commit": "on",
    "log_min_messages": "fatal",
}

SYNCHRONOUS = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


class PatroniNode:
    """One PostgreSQL and its Patroni. ``port`` is that of PostgreSQL on 127.0.0.1."""

    def __init__(self, name: str, binaries: Path, directory: Path, etcd_port: int) -> None:
        self.port = free_port()
        self._directory = directory
        self._data = directory / "data"
        self._patroni: subprocess.Popen[bytes] | None = None
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self._identity = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(directory, "postgres", "postgres")
        rest = f"127.0.0.1:{free_port()}"
        settings = {
            "scope": "meter",
            "name": name,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": f"127.0.0.1:{etcd_port}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_SECONDS,
                    "loop_wait": 2,
                    "retry_timeout": 4,
                    "synchronous_mode": True,
                    "postgresql": {"parameters": PARAMETERS},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "no-sync"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self._data),
                "bin_dir": str(binaries),
                "pgpass": str(directory / "pgpass"),
                "authentication": {"superuser": {"username": "meter"}, "replication": {"username": "replicator"}},
                "parameters": {"unix_socket_directories": ""},
                "pg_hba": ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
                "basebackup": ["no-sync", {"checkpoint": "fast"}],
                "use_pg_rewind": True,
            },
            "watchdog": {"mode": "off"},
        }
        self._config = directory / "patroni.yml"
        self._config.write_text(json.dumps(settings))  # which is YAML

    def start(self) -> None:
        """Start Patroni, which starts PostgreSQL; returns at once."""
        with (self._directory / "patroni.log").open("ab") as output:
            self._patroni = subprocess.Popen(
                ["/usr/bin/patroni", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._directory,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(self._directory)},
                start_new_session=True,
                **self._identity,
            )

    def kill(self) -> None:
        """End Patroni and PostgreSQL, with all processes, as if their machine had lost its power."""
        patroni, self._patroni = self._patroni, None
        if patroni is not None:
            patroni.kill()
            patroni.wait()
        for process in self._postgresql():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    @property
    def is_primary(self) -> bool:
        """Whether it accepts writes."""
        try:
            return executed(f"postgresql://meter@127.0.0.1:{self.port}/postgres", "SELECT pg_is_in_recovery()") == [
                (False,)
            ]
        except psycopg2.Error:
            return False

    @property
    def last_words(self) -> str:
        """The end of Patroni's log."""
        return (self._directory / "patroni.log").read_text(errors="replace")[-3000:]

    def _postgresql(self) -> list[int]:
        try:
            main = int((self._data / "postmaster.pid").read_text().split()[0])
            if Path(f"/proc/{main}/cwd").resolve() != self._data.resolve():
                return []  # a file that was left, and the number belongs to another process now
            children = Path(f"/proc/{main}/task/{main}/children").read_text()
        except (OSError, IndexError, ValueError):
            return []
        return [main, *map(int, children.split())]


class PatroniCluster:
    """``nodes`` are a primary and its synchronous standby. Its DSNs name both, so it serves where one server does."""

    def __init__(self, binaries: Path, directory: Callable[[str], Path]) -> None:
        self._etcd_directory = directory("meter-etcd-")
        self._etcd_port, self._peer_port = free_port(), free_port()
        self._etcd: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.nodes = [
            PatroniNode(f"node{number}", binaries, directory(f"meter-patroni-{number}-"), self._etcd_port)
            for number in (1, 2)
        ]

    @property
    def url(self) -> str:
        """The DSN of the server's own database, for administration."""
        return self._dsn_of("postgres")

    def dsn(self) -> str:
        """Make an empty database and return its DSN, by which the node that accepts writes is found."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self._dsn_of(name)

    def execute(self, statement: str, dsn: str = "") -> list[tuple[Any, ...]]:
        """Execute ``statement`` at the primary and return its rows."""
        return executed(dsn or self.url, statement)

    def start(self) -> None:
        """Start etcd and both nodes; return when the standby is synchronous."""
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._peer_port))
        with (self._etcd_directory / "etcd.log").open("ab") as output:
            self._etcd = subprocess.Popen(
                [
                    "/usr/bin/etcd",
                    *("--data-dir", str(self._etcd_directory / "data")),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", f"default={peer}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._etcd_directory,
                start_new_session=True,
            )
        for node in self.nodes:
            node.start()
        self.until_synchronous()

    def primary(self) -> PatroniNode | None:
        """Return the node that accepts writes, if there is one."""
        return next((node for node in self.nodes if node.is_primary), None)

    def until_synchronous(self) -> None:
        """Return when there is a primary that commits only what its standby has."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_synchronous():
            if time.monotonic() > deadline:
                logs = "\n".join(node.last_words for node in self.nodes)
                raise RuntimeError(f"there is no synchronous standby within {START_SECONDS:g} s:\n{logs}")
            time.sleep(0.2)

    def close(self) -> None:
        """Kill all."""
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(PatroniNode.kill, self.nodes))
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait()
            self._etcd = None

    def _is_synchronous(self) -> bool:
        try:
            return self.execute(SYNCHRONOUS) == [(1,)]
        except psycopg2.Error:
            return False

    def _dsn_of(self, database: str) -> str:
        places = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://meter@{places}/{database}?target_session_attrs=read-write"


def patroni_missing() -> str:
    """Return why there can be no cluster here, or ""."""
    return "" if all(Path(f"/usr/bin/{name}").exists() for name in ("patroni", "etcd")) else MISSING
