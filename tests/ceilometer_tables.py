"""Databases as Ceilometer's SQL storage left them: what the real one of Ocata made, and more samples in the same tables."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "ceilometer-sql"

METERS = {"cpu": 1, "disk.device.read.bytes": 2, "memory": 3}
"""The meters in the databases, with their keys."""


def statements(database: str) -> list[str]:
    """The statements that make the tables, and what Ceilometer put into them, in ``database``: mysql, postgresql or sqlite."""
    text = (DATA / f"ocata-{database}.sql").read_text(encoding="utf-8")
    text = re.sub(r"^--.*\n", "", text, flags=re.M)
    return [each for each in re.split(r";\n(?=[A-Z]|$)", text) if each.strip()]


class SqliteTables:
    """Ceilometer's tables in the SQLite database ``path``, ``empty`` or with the 12 samples of the data."""

    def __init__(self, path: Path, *, empty: bool = False) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        for statement in statements("sqlite"):
            if not (empty and statement.startswith(('INSERT INTO "sample"', 'INSERT INTO "resource"'))):
                self.execute(statement)

    def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, parameters).fetchall()

    def ids(self) -> list[str]:
        """The message ids of all samples, in the order of the keys."""
        return [message_id for [message_id] in self.execute("SELECT message_id FROM sample ORDER BY id")]

    def resource(self, resource_id: str = "r1", metadata: Any = None, *, project_id: str | None = "p1") -> int:
        """Add a row of ``resource``, with metadata as JSON or as they are, and return its key."""
        text = metadata if isinstance(metadata, str) else json.dumps(metadata or {})
        columns = "user_id, project_id, source_id, resource_id, resource_metadata"
        with closing(sqlite3.connect(self.path)) as connection, connection:
            row = connection.execute(
                f"INSERT INTO resource ({columns}) VALUES (?, ?, ?, ?, ?)",
                ("u1", project_id, "openstack", resource_id, text),
            )
            return int(row.lastrowid or 0)

    def samples(
        self,
        resource: int | None,
        volumes: Iterable[tuple[datetime | None, Any]],
        *,
        meter: str = "cpu",
        **columns: Any,
    ) -> None:
        """Add a sample for each time and volume; ``columns`` replace those of all."""
        rows = [
            {
                "meter_id": METERS[meter],
                "resource_id": resource,
                "volume": volume,
                "timestamp": at and at.replace(tzinfo=None).isoformat(" ", "microseconds"),
                "message_id": str(uuid.uuid1()),
                **columns,
            }
            for at, volume in volumes
        ]
        names = list(rows[0])
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany(
                f"INSERT INTO sample ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
                [tuple(row.values()) for row in rows],
            )
