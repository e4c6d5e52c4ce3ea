"""The spool of an agent: publications on disk, oldest first, until the bus has confirmed them.

:mod:`meter.agent.outbox` fills and empties it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.agent import spooled_reports
from meter.agent.spool_database import PAGE_BYTES
from meter.agent.spool_database import oldest_at
from meter.agent.spool_database import opened
from meter.agent.spool_database import transaction
from meter.agent.spooled_reports import Dropped
from meter.agent.spooled_reports import ReportState
from meter.agent.spooled_reports import ReportToSpool
from meter.agent.spooled_reports import SpooledReport
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

_FILLED_FOR = """
CREATE TABLE IF NOT EXISTS filled_for (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    destination TEXT NOT NULL  -- JSON, see meter.agent.destination
)
"""

SHARE_OF_REPORTS = 0.1
"""Cycle reports may have so many bytes, as a share of the maximum size of the spool, beside the samples."""


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

    Cycle reports (:mod:`meter.agent.spooled_reports`) are kept beside the publications: they are not dropped when these are full
    or too old, and may have a tenth of ``max_bytes``. ``reports`` is their number.
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
        self.filled_for = filled_for
        self._database: sqlite3.Connection | None = None
        self._counted_version = 0
        self._has_report_tables = False
        self._lacks_report_tables = False
        self.rows = 0
        self.bytes = 0
        self.reports = 0
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

    async def set_destination(self, destination: str) -> None:
        """Store another destination of the publications: the signing keys have changed while the agent runs."""
        self.filled_for = destination
        await self._call(lambda: self._store_destination(self._open()))

    async def oldest(self, limit: int, after: int = 0) -> list[SpooledMessage]:
        """Return the oldest publications with an id greater than ``after``, without removing them."""
        self._report(await self._call(self._expire, wall_seconds(self._clock)))
        found: list[SpooledMessage] = await self._call(self._oldest, limit, after)
        return found

    async def remove(self, ids: Iterable[int], refused: Mapping[int, str] | None = None) -> None:
        """Remove publications that the bus has confirmed, and those that it refuses for ever, by the reason."""
        await self._call(self._remove, list(ids), refused or {})

    async def put_report(self, report: ReportToSpool) -> bool:
        """Write a cycle report to disk; return whether all earlier ones were kept, beyond the limit.

        On a full disk the oldest samples make room for it. Raises :class:`Unavailable` when it cannot be written all the same.
        """
        losses, kept = await self._call(self._put_report, wall_seconds(self._clock), report)
        self._report(losses)
        return bool(kept)

    async def oldest_reports(self, limit: int) -> list[SpooledReport]:
        """Return the oldest cycle reports before which no sample is left, without removing them."""
        found: list[SpooledReport] = await self._call(self._oldest_reports, limit)
        return found

    async def remove_reports(self, confirmed: Sequence[int], refused: Mapping[int, str]) -> None:
        """Remove cycle reports that the bus has confirmed, and those that it refuses for ever, by the reason."""
        await self._call(self._remove_reports, confirmed, refused)

    async def report_state(self) -> ReportState:
        """Return what is known of earlier cycle reports."""
        state: ReportState = await self._call(self._report_state)
        return state

    async def close(self) -> None:
        """Close the file; the next call opens it again."""
        await self._run(self._close)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await self._run(function, *arguments)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"the spool {self._path} cannot be used: {error}") from error

    def _report(self, losses: Sequence[Dropped]) -> None:
        for loss in losses:
            self.lost_samples += loss.samples
            self._log.error(
                "LOST {samples} samples, spooled from {first} to {last}: {reason}",
                samples=loss.samples,
                first=datetime.fromtimestamp(loss.first, UTC).isoformat(),
                last=datetime.fromtimestamp(loss.last, UTC).isoformat(),
                reason=loss.reason,
            )

    # The methods below run off the reactor thread.

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            make_private_directory(self._path.parent)
            make_private_file(self._path)  # SQLite gives its other files the same mode
            for suffix in ("-wal", "-shm"):
                tighten(self._path.with_name(self._path.name + suffix))
            database = opened(self._path)
            try:
                if self.filled_for:
                    self._store_destination(database)
            except BaseException:
                database.close()
                raise
            self._database = database
            self._has_report_tables = False
            self._counted_version = 0
        if not self._has_report_tables:
            self._make_report_tables(self._database)
        [version] = self._database.execute("PRAGMA data_version").fetchone()
        if version != self._counted_version:  # just opened, or changed by another process
            self._recount(self._database)
            self._counted_version = version
        return self._database

    def _make_report_tables(self, database: sqlite3.Connection) -> None:
        try:
            spooled_reports.make_tables(database)
            self._has_report_tables = True
        except sqlite3.OperationalError as error:  # a full disk: samples are spooled all the same
            if not self._lacks_report_tables:
                self._log.warn("{path}: cannot store cycle reports: {error}", path=str(self._path), error=error)
            self._lacks_report_tables = True

    def _store_destination(self, database: sqlite3.Connection) -> None:
        try:
            database.execute(_FILLED_FOR)
            if database.execute("SELECT destination FROM filled_for").fetchall() != [(self.filled_for,)]:
                database.execute("INSERT OR REPLACE INTO filled_for VALUES (1, ?)", (self.filled_for,))
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
            with transaction(database):
                return work(database)
        except sqlite3.OperationalError:
            database.execute("PRAGMA wal_checkpoint(RESTART)")
            with transaction(database):
                return work(database)

    def _put(self, now: float, publications: Sequence[Publication]) -> list[Dropped]:
        added = sum(len(publication.body) for publication in publications)

        def insert(database: sqlite3.Connection) -> list[Dropped]:
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
        freed = last = 0
        for row_id, size in database.execute("SELECT id, length(body) FROM outbox ORDER BY id"):
            freed += size
            last = int(row_id)
            if freed >= excess:
                break
        return last

    def _expire(self, now: float) -> list[Dropped]:
        losses = self._committed(
            lambda database: self._drop(database, "at < ?", now - self._max_age, "they exceeded the maximum age")
        )
        if losses:
            self._recount(self._open())
        return losses

    def _drop(
        self, database: sqlite3.Connection, condition: str, bound: float, reason: str, *, delete: bool = True
    ) -> list[Dropped]:
        samples, first, last = database.execute(
            f"SELECT sum(samples), min(at), max(at) FROM outbox WHERE {condition}", (bound,)
        ).fetchone()
        if samples is None:
            return []
        if delete:
            database.execute(f"DELETE FROM outbox WHERE {condition}", (bound,))
        dropped = [Dropped(samples, first, last, reason)]
        if self._has_report_tables:
            spooled_reports.record_dropped(database, dropped)
        return dropped

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

    def _remove(self, ids: list[int], refused: Mapping[int, str]) -> None:
        def delete(database: sqlite3.Connection) -> tuple[list[int], float | None]:
            for row_id, reason in refused.items():
                self._drop(database, "id = ?", row_id, reason, delete=False)
            sizes = [
                size
                for row_id in (*ids, *refused)
                for (size,) in database.execute("DELETE FROM outbox WHERE id = ? RETURNING length(body)", (row_id,))
            ]
            return sizes, oldest_at(database)

        sizes, self.oldest_at = self._committed(delete)
        self.rows -= len(sizes)
        self.bytes -= sum(sizes)

    def _put_report(self, now: float, report: ReportToSpool) -> tuple[list[Dropped], bool]:
        limit = int(SHARE_OF_REPORTS * self._max_bytes)

        def insert(database: sqlite3.Connection, losses: Sequence[Dropped] = ()) -> tuple[list[Dropped], bool]:
            lost = spooled_reports.put_report(database, now, report, limit)
            return [*losses, *lost], not lost

        def insert_in_place_of_samples(database: sqlite3.Connection) -> tuple[list[Dropped], bool]:
            room = 2 * max(PAGE_BYTES, len(report.publication(()).body))
            bound = self._id_that_frees(database, room)
            return insert(database, self._drop(database, "id <= ?", bound, "the disk is full"))

        try:
            done = self._committed(insert)
        except sqlite3.OperationalError:
            done = self._committed(insert_in_place_of_samples)
            self._recount(self._open())
        self.reports = spooled_reports.count_reports(self._open())
        return done

    def _oldest_reports(self, limit: int) -> list[SpooledReport]:
        database = self._open()
        return spooled_reports.oldest_reports(database, limit) if self._has_report_tables else []

    def _remove_reports(self, confirmed: Sequence[int], refused: Mapping[int, str]) -> None:
        self._committed(lambda database: spooled_reports.remove_reports(database, confirmed, refused))
        self.reports = spooled_reports.count_reports(self._open())

    def _report_state(self) -> ReportState:
        database = self._open()
        return spooled_reports.report_state(database) if self._has_report_tables else ReportState()

    def _recount(self, database: sqlite3.Connection) -> None:
        row = database.execute("SELECT count(*), coalesce(sum(length(body)), 0) FROM outbox").fetchone()
        self.rows, self.bytes = row
        if self._has_report_tables:
            self.reports = spooled_reports.count_reports(database)
        self.oldest_at = oldest_at(database)
