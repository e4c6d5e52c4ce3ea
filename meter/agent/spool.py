"""The spool of an agent: publications on disk, oldest first, until the bus has confirmed them.

:mod:`meter.agent.outbox` fills and empties it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.bus.batches import SAMPLES_HEADER
from meter.daemon.private_files import make_private_directory
from meter.daemon.private_files import make_private_file
from meter.daemon.private_files import tighten
from meter.daemon.services import wall_seconds
from meter.interfaces import Publication
from meter.interfaces import Unavailable

T = TypeVar("T")

Runner = Callable[..., Deferred[Any]]
"""Calls a blocking function with its arguments off the reactor thread, one call at a time and in order."""

_SCHEMA = """
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

_FILLED_FOR = """
CREATE TABLE IF NOT EXISTS filled_for (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    destination TEXT NOT NULL  -- JSON, see meter.agent.destination
)
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """Samples that were dropped because the spool was full or they were too old; the times are when they were spooled."""

    samples: int
    first: datetime
    last: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class SpooledMessage:
    """A publication in the spool."""

    id: int
    publication: Publication


class Spool:
    """A queue of publications on disk, limited in bytes and age.

    SQLite in WAL mode with ``synchronous = FULL``: after :meth:`put` has returned, its publications survive power loss.
    All work is done through ``run``, off the reactor thread. ``filled_for`` is stored as the destination of the
    publications. ``rows``, ``bytes``, ``oldest_at`` and ``lost_samples`` are as of the last call; ``oldest_at`` is when
    the oldest publication was spooled, in seconds since 1970, ``None`` while the spool is empty. Another process may
    put and remove publications too, as ``meter-dead-letters`` does.
    """

    _log = Logger()

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        max_age_seconds: float,
        clock: IReactorTime,
        run: Runner,
        filled_for: str = "",
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_age = max_age_seconds
        self._clock = clock
        self._run = run
        self._filled_for = filled_for
        self._database: sqlite3.Connection | None = None
        self._counted_version = 0
        self.rows = 0
        self.bytes = 0
        self.oldest_at: float | None = None
        self.lost_samples = 0

    @property
    def oldest_seconds(self) -> float:
        """Age of the oldest publication in seconds, 0 while the spool is empty; does not read the disk."""
        return 0.0 if self.oldest_at is None else max(0.0, wall_seconds(self._clock) - self.oldest_at)

    async def put(self, publications: Sequence[Publication]) -> None:
        """Write all publications to disk, or none; returns when they are durable.

        Raises :class:`Unavailable` when they cannot be written.
        """
        losses = await self._call(self._put, wall_seconds(self._clock), publications)
        self._report(losses)

    async def oldest(self, limit: int, after: int = 0) -> list[SpooledMessage]:
        """Return the oldest publications with an id greater than ``after``, without removing them."""
        self._report(await self._call(self._expire, wall_seconds(self._clock)))
        found: list[SpooledMessage] = await self._call(self._oldest, limit, after)
        return found

    async def remove(self, ids: Iterable[int]) -> None:
        """Remove publications that the bus has confirmed."""
        await self._call(self._remove, list(ids))

    async def close(self) -> None:
        """Close the file; the next call opens it again."""
        await self._run(self._close)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await self._run(function, *arguments)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"the spool {self._path} cannot be used: {error}") from error

    def _report(self, losses: Sequence[Loss]) -> None:
        for loss in losses:
            self.lost_samples += loss.samples
            self._log.error(
                "LOST {samples} samples, spooled from {first} to {last}: {reason}",
                samples=loss.samples,
                first=loss.first.isoformat(),
                last=loss.last.isoformat(),
                reason=loss.reason,
            )

    # The methods below run off the reactor thread.

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            make_private_directory(self._path.parent)
            make_private_file(self._path)  # SQLite gives its other files the same mode
            for suffix in ("-wal", "-shm"):
                tighten(self._path.with_name(self._path.name + suffix))
            database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                database.execute(_SCHEMA)
                if self._filled_for:
                    self._store_destination(database)
            except BaseException:
                database.close()
                raise
            self._database = database
            self._counted_version = 0
        [version] = self._database.execute("PRAGMA data_version").fetchone()
        if version != self._counted_version:  # just opened, or changed by another process
            self._recount(self._database)
            self._counted_version = version
        return self._database

    def _store_destination(self, database: sqlite3.Connection) -> None:
        try:
            database.execute(_FILLED_FOR)
            if database.execute("SELECT destination FROM filled_for").fetchall() != [(self._filled_for,)]:
                database.execute("INSERT OR REPLACE INTO filled_for VALUES (1, ?)", (self._filled_for,))
        except sqlite3.OperationalError as error:  # a full disk: the spool works all the same
            self._log.warn(
                "{path}: cannot store the destination of its samples: {error}", path=str(self._path), error=error
            )

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _committed(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of ``work`` once its changes are on disk.

        On a full disk the write-ahead log is checkpointed and reused from its beginning: then the existing space of the spool
        suffices while publications are added and removed.
        """
        database = self._open()
        try:
            with _transaction(database):
                return work(database)
        except sqlite3.OperationalError:
            database.execute("PRAGMA wal_checkpoint(RESTART)")
            with _transaction(database):
                return work(database)

    def _put(self, now: float, publications: Sequence[Publication]) -> list[Loss]:
        added = sum(len(publication.body) for publication in publications)

        def insert(database: sqlite3.Connection) -> list[Loss]:
            database.executemany(
                "INSERT INTO outbox (at, samples, exchange, routing_key, headers, body) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        now,
                        publication.headers.get(SAMPLES_HEADER, 1),
                        publication.exchange,
                        publication.routing_key,
                        json.dumps(dict(publication.headers)),
                        publication.body,
                    )
                    for publication in publications
                ],
            )
            excess = self.bytes + added - self._max_bytes
            if excess <= 0:
                return []
            return self._drop(database, "id <= ?", self._id_that_frees(database, excess), "the spool is full")

        losses = self._committed(insert)
        if losses:
            self._recount(self._open())
        else:
            if publications and self.oldest_at is None:
                self.oldest_at = now
            self.rows += len(publications)
            self.bytes += added
        return losses

    def _id_that_frees(self, database: sqlite3.Connection, excess: int) -> int:
        """Return the id up to which rows have to be deleted to free ``excess`` bytes."""
        freed = 0
        for row_id, size in database.execute("SELECT id, length(body) FROM outbox ORDER BY id"):
            freed += size
            if freed >= excess:
                return int(row_id)
        return 0

    def _expire(self, now: float) -> list[Loss]:
        losses = self._committed(
            lambda database: self._drop(database, "at < ?", now - self._max_age, "they exceeded the maximum age")
        )
        if losses:
            self._recount(self._open())
        return losses

    def _drop(self, database: sqlite3.Connection, condition: str, bound: float, reason: str) -> list[Loss]:
        samples, first, last = database.execute(
            f"SELECT sum(samples), min(at), max(at) FROM outbox WHERE {condition}", (bound,)
        ).fetchone()
        if samples is None:
            return []
        database.execute(f"DELETE FROM outbox WHERE {condition}", (bound,))
        return [Loss(samples, datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC), reason)]

    def _oldest(self, limit: int, after: int) -> list[SpooledMessage]:
        rows = self._open().execute(
            "SELECT id, exchange, routing_key, headers, body FROM outbox WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [
            SpooledMessage(
                row_id, Publication(exchange=exchange, routing_key=key, headers=json.loads(headers), body=body)
            )
            for row_id, exchange, key, headers, body in rows
        ]

    def _remove(self, ids: list[int]) -> None:
        def delete(database: sqlite3.Connection) -> tuple[list[int], float | None]:
            sizes = [
                size
                for row_id in ids
                for (size,) in database.execute("DELETE FROM outbox WHERE id = ? RETURNING length(body)", (row_id,))
            ]
            return sizes, _oldest_at(database)

        sizes, self.oldest_at = self._committed(delete)
        self.rows -= len(sizes)
        self.bytes -= sum(sizes)

    def _recount(self, database: sqlite3.Connection) -> None:
        row = database.execute("SELECT count(*), coalesce(sum(length(body)), 0) FROM outbox").fetchone()
        self.rows, self.bytes = row
        self.oldest_at = _oldest_at(database)


def _oldest_at(database: sqlite3.Connection) -> float | None:
    """Return when the oldest publication was spooled."""
    row = database.execute("SELECT at FROM outbox ORDER BY id LIMIT 1").fetchone()
    return None if row is None else float(row[0])


def inspect_spool(path: Path) -> tuple[int, str]:
    """Return the number of publications in the spool at ``path`` and its destination, ``""`` for none.

    Blocks; for the start of a daemon. Returns 0 for a file that is not a spool, which :class:`Spool` will report.
    """
    if not path.exists():
        return 0, ""
    database = sqlite3.connect(path)
    try:
        [count] = database.execute("SELECT count(*) FROM outbox").fetchone()
        destination = database.execute("SELECT destination FROM filled_for").fetchone()
    except sqlite3.Error:
        return 0, ""  # damaged, or without the tables
    finally:
        database.close()
    return count, destination[0] if destination else ""


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite rolls some failed transactions back itself, as on a full disk
            database.execute("ROLLBACK")
        raise
