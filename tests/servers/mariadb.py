"""A private MariaDB for tests: Debian's package on a free port in a temporary directory. It speaks for MySQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.ports import free_port
from tests.servers import not_installed

SERVER = Path("/usr/sbin/mariadbd")
INSTALL = "MariaDB is not installed: apt-get install --no-install-recommends mariadb-server-core mariadb-client-core"
START_SECONDS = 120.0
PASSWORD = "s3cret"


class MariaDB:
    """One private server, whose user ``meter`` has a password. ``port`` is on 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.port = free_port()

    def start(self) -> None:
        """Make the server's tables, start it, and return once it answers."""
        user = "--user=root" if os.geteuid() == 0 else "--skip-networking=0"
        data = self._directory / "data"
        make = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
        subprocess.run([*make, user], check=True, capture_output=True)
        first = self._directory / "first.sql"
        first.write_text(
            f"CREATE USER meter@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO meter@'127.0.0.1';\n"
        )
        where = [f"--datadir={data}", f"--socket={self._directory}/socket", f"--port={self.port}"]
        with (self._directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    SERVER,
                    "--no-defaults",
                    user,
                    *where,
                    "--bind-address=127.0.0.1",
                    "--skip-name-resolve",
                    f"--init-file={first}",
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except pymysql.Error:
                if time.monotonic() > deadline or self._server.poll() is not None:
                    pytest.fail((self._directory / "log").read_text()[-3000:])
                time.sleep(0.05)

    def database(self) -> str:
        """Make an empty database and return its name."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8")
        return name

    def execute(self, *statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Execute ``statements``, waiting for them, and return the rows of the last one."""
        connection = pymysql.connect(
            host="127.0.0.1", port=self.port, user="meter", password=PASSWORD, database=database, autocommit=True
        )
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def kill(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()


@pytest.fixture(scope="session")
def mariadb(server_directory: Callable[[str], Path]) -> Iterator[MariaDB]:
    """A private MariaDB for the whole run."""
    if not SERVER.exists() or None in map(shutil.which, ("mariadb-install-db", "my_print_defaults")):
        not_installed(INSTALL)
    server = MariaDB(server_directory("meter-mariadb-"))
    try:
        server.start()
        yield server
    finally:
        server.kill()
