"""Records the statements that an archive server executes for a store, from the server's own log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.postgresql import PostgreSQL

READ = re.compile(r"DECLARE c\d+ CURSOR FOR\s+(SELECT .*)")
"""How postgres_fdw begins to read; rows are then fetched a hundred at a time."""


def log_statements(server: PostgreSQL, dsn: str) -> None:
    """Let ``server`` log the statements of connections to the database at ``dsn`` that are made from now on."""
    database = dsn.rpartition("/")[2]
    for setting in ("log_statement = 'all'", "log_min_messages = 'log'"):
        server.execute(f"ALTER DATABASE {database} SET {setting}")


@contextmanager
def read_statements(server: PostgreSQL) -> Iterator[list[str]]:
    """Provide a list that has, at the end, the statements that postgres_fdw has read with meanwhile."""
    begin = len(server.output())
    found: list[str] = []
    yield found
    found += READ.findall(server.output()[begin:])
