"""A private PostgreSQL for tests: Debian's package on a free port in a temporary directory, never a server that happens to run.

``postgresql`` is one server for the whole run; each test takes databases of its own from it, empty ones or ones with
Meter's schema, which are copies of one: to upgrade each takes 0.3 s of a processor. Tests that stop, kill or
freeze the server start or thaw it again. Its methods block; in a test that must go on meanwhile:
``deferToThread(postgresql.restart)``.
"""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from meter.store.migrations import Schema
from meter.store.migrations import migrations
from tests.ports import free_port
from tests.servers import not_installed

BINARIES = os.environ.get("METER_TEST_POSTGRESQL", "/usr/lib/postgresql/*/bin")
"""Where to look, each directory named by its major version; the variable is for another PostgreSQL than Debian's."""

INSTALL = "PostgreSQL 14 or newer is not installed: apt-get install --no-install-recommends postgresql"
OLDEST_MAJOR = 14
TEMPLATE = "meter_schema"
START_SECONDS = 120.0
STOP_SECONDS = 60.0

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "autovacuum_naptime": "5s",
    "log_min_messages": "fatal",
}


class PostgreSQL:
    """One private server, superuser ``meter``, without passwords. ``port`` is on 127.0.0.1.

    ``settings`` replace those of ``SETTINGS`` that have the same name, and are added to the others. With a running
    ``primary`` it is a standby of that one.
    """

    def __init__(
        self,
        binaries: Path,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        primary: PostgreSQL | None = None,
    ) -> None:
        self._binaries = binaries
        self._settings = {**SETTINGS, **(settings or {})}
        self._directory = directory
        self._data = directory / "data"
        self._output = directory / "output.log"
        self._databases = 0
        self._has_template = False
        self._server: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        # PostgreSQL refuses to run as root; Debian's package has made a user for it.
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._identity = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(directory, "postgres", "postgres")
        initdb = [binaries / "initdb", "--pgdata", self._data, "--username=meter", "--auth=trust", "--no-sync"]
        make = [*initdb, "--encoding=UTF8", "--locale=C.UTF-8"]
        if primary is not None:
            source = f"host=127.0.0.1 port={primary.port} user=meter"
            make = [binaries / "pg_basebackup", "--pgdata", self._data, "--dbname", source, "--write-recovery-conf"]
            make += ["--checkpoint=fast", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd=directory, **self._identity)

    @property
    def pid(self) -> int:
        """The id of the server's process, the parent of all others."""
        assert self._server is not None
        return self._server.pid

    @property
    def url(self) -> str:
        """The DSN of the server's own database, for administration."""
        return self._dsn_of("postgres")

    def dsn(self) -> str:
        """Make an empty database and return its DSN."""
        return self._database("template1")

    def dsn_with_schema(self) -> str:
        """Make a database that has Meter's schema and nothing else, and return its DSN."""
        if not self._has_template:
            self.execute(f"CREATE DATABASE {TEMPLATE}")
            upgrade(self._dsn_of(TEMPLATE))
            self._has_template = True
        return self._database(TEMPLATE)

    def _database(self, template: str) -> str:
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._dsn_of(name)

    def _dsn_of(self, database: str) -> str:
        return f"postgresql://meter@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, dsn: str = "") -> list[tuple[Any, ...]]:
        """Execute ``statement`` as it is, waiting for it, and return its rows."""
        return executed(dsn or self.url, statement)

    def start(self) -> None:
        """Start the server and return once it answers."""
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        with self._output.open("ab") as output:
            self._server = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, "-p", str(self.port), *settings],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._directory,
                start_new_session=True,
                **self._identity,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg2.OperationalError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError(f"PostgreSQL did not start:\n{self._output.read_text()[-4000:]}") from None
            time.sleep(0.02)

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and not stopped."""
        return self._server is not None

    def output(self) -> str:
        """Return what the server has written to its log."""
        return self._output.read_text(errors="replace")

    def require_passwords(self, *users: str) -> None:
        """Let these users connect with a password only, unlike all others."""
        self._require([f"host all {user} 127.0.0.1/32 scram-sha-256" for user in users])

    def require_certificates(self, *users: str) -> None:
        """Let these users connect over TLS and with their client certificate only."""
        self._require(
            [
                rule
                for user in users
                for rule in (f"hostssl all {user} 127.0.0.1/32 cert", f"hostnossl all {user} 127.0.0.1/32 reject")
            ]
        )

    def _require(self, rules: list[str]) -> None:
        file = self._data / "pg_hba.conf"
        others = [line for line in file.read_text().splitlines() if line not in rules]
        file.write_text("\n".join([*rules, *others, ""]))
        self.execute("SELECT pg_reload_conf()")

    def stop(self) -> None:
        """Stop the server as an administrator would; its clients are told."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill the server and all its processes; return when they have ended, as another one cannot start before."""
        processes: list[int] = []
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGSTOP)  # it begins no further process
            processes = self._processes()
            _send(processes, signal.SIGKILL)
        self._end(signal.SIGKILL)
        deadline = time.monotonic() + STOP_SECONDS
        while any(map(_has_memory, processes)) and time.monotonic() < deadline:
            time.sleep(0.02)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop the server's processes where they are: connections stay open and nothing answers."""
        _send(self._processes(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the server go on after :meth:`freeze`."""
        _send(self._processes(), signal.SIGCONT)

    def _processes(self) -> list[int]:
        assert self._server is not None
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children")
        return [self._server.pid, *map(int, children.read_text().split())]

    def _end(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        if server.poll() is None:
            server.send_signal(how)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _send(processes: Iterable[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # a worker may have ended since
            os.kill(process, number)


def _has_memory(process: int) -> bool:
    """Return whether a process that was killed has not ended yet."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def executed(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    """Execute ``statement`` as it is over a connection of its own, waiting for it, and return its rows."""
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


class _BlockingSession:
    """What the steps of the schema need of a :class:`~meter.store.postgres.pool.Session`, without a reactor."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    async def rows(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement, parameters)
        return list(self._cursor.fetchall())

    async def count(self, statement: str, parameters: Any = None) -> int:
        self._cursor.execute(statement, parameters)
        return int(self._cursor.rowcount)

    async def remove_time_limits(self, *, of_transaction: bool = False) -> None:
        pass


def upgrade(dsn: str, version: int | None = None) -> None:
    """Give a database the schema of this Meter, or an earlier version of it, waiting for it; a running test may call it in the reactor's thread."""
    connection = psycopg2.connect(dsn)
    try:
        with connection, connection.cursor() as cursor:
            session: Any = _BlockingSession(cursor)
            with suppress(StopIteration):  # its end; it has nothing to wait for
                Schema(migrations()[:version]).upgrade(session).send(None)
    finally:
        connection.close()


def installed() -> Path | None:
    """Return where the newest PostgreSQL of the system has its programs, if one is new enough."""
    majors = {Path(path).parent.name: Path(path) for path in glob.glob(BINARIES) if (Path(path) / "initdb").exists()}
    usable = sorted((int(major), path) for major, path in majors.items() if major.isdigit())
    return usable[-1][1] if usable and usable[-1][0] >= OLDEST_MAJOR else None


@pytest.fixture(scope="session")
def archive_postgresql(server_directory: Callable[[str], Path]) -> Iterator[PostgreSQL]:
    """Another private PostgreSQL for the whole run, to which weeks are archived."""
    yield from _running(server_directory("meter-archive-"))


@pytest.fixture(scope="session")
def postgresql(server_directory: Callable[[str], Path]) -> Iterator[PostgreSQL]:
    """A private PostgreSQL for the whole run."""
    yield from _running(server_directory("meter-postgresql-"))


def _running(directory: Path) -> Iterator[PostgreSQL]:
    binaries = installed()
    if binaries is None:
        not_installed(INSTALL)
    server = PostgreSQL(binaries, directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()
