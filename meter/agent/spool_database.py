"""The SQLite database of a spool: its table of publications, the sizes with which it is opened, and transactions.

The functions block: :class:`meter.agent.spool.Spool` calls them off the reactor thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,          -- when it was written, seconds since 1970
    samples INTEGER NOT NULL,  -- number of samples in the body
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    headers TEXT NOT NULL,     -- JSON
    body BLOB NOT NULL
)
"""

PAGE_BYTES = 32 * 1024
"""Size of the pages of a spool. A publication has up to some hundred KiB, and each page costs time of its own: with SQLite's 4 KiB
writing takes twice as long."""

CHECKPOINT_BYTES = 8 * 1024 * 1024
"""Size of the write-ahead log from which on its pages are copied to the spool."""


def opened(path: Path) -> sqlite3.Connection:
    """Return a connection to the database at ``path``, which has the table of publications then."""
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        # Some builds of SQLite overwrite what is deleted with zeros, which takes as long as writing it.
        database.execute("PRAGMA secure_delete = OFF")
        database.execute(SCHEMA)
        _enlarge_pages(database)
        [page_bytes] = database.execute("PRAGMA page_size").fetchone()
        database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_BYTES // page_bytes}")
    except BaseException:
        database.close()
        raise
    return database


def _enlarge_pages(database: sqlite3.Connection) -> None:
    """Give an empty spool of an earlier Meter pages of :data:`PAGE_BYTES`, if no other process uses it now."""
    if database.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,) or oldest_at(database) is not None:
        return
    with suppress(sqlite3.OperationalError):
        try:
            database.execute("PRAGMA journal_mode = DELETE")  # pages cannot be changed in WAL mode
            database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            database.execute("VACUUM")
        finally:
            database.execute("PRAGMA journal_mode = WAL")


def oldest_at(database: sqlite3.Connection) -> float | None:
    """Return when the oldest publication was spooled."""
    row = database.execute("SELECT at FROM outbox ORDER BY id LIMIT 1").fetchone()
    return None if row is None else float(row[0])


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done in the ``with`` block, or nothing of it."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite rolls some failed transactions back itself, as on a full disk
            database.execute("ROLLBACK")
        raise
