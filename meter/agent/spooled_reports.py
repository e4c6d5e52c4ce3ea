"""Cycle reports in a spool: they have tables of their own, so that samples are dropped first and never wait for reports.

The functions work on the database of :class:`meter.agent.spool.Spool`, off the reactor thread, within its transactions.

A report is sent when no sample is left that was spooled before it. What was dropped is stored with the samples' deletion, until
a report that states it is stored; the series that samples are expected of are stored with the report that states them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime

from meter.cycle_report import REPORTS_LOST
from meter.cycle_report import ConfirmedReport
from meter.cycle_report import DroppedSamples
from meter.interfaces import Publication
from meter.sample import utc_text

SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS spooled_report (
    id INTEGER PRIMARY KEY,
    after_id INTEGER NOT NULL,  -- of the last row of outbox that was written before
    at REAL NOT NULL,           -- when it was written, seconds since 1970
    boot TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    headers TEXT NOT NULL,      -- JSON
    body BLOB NOT NULL,
    UNIQUE (boot, sequence)
)
""",
    """
CREATE TABLE IF NOT EXISTS confirmed_report (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    boot TEXT NOT NULL,
    sequence INTEGER NOT NULL
)
""",
    """
CREATE TABLE IF NOT EXISTS dropped_samples (
    reason TEXT PRIMARY KEY,
    samples INTEGER NOT NULL,
    first REAL NOT NULL,        -- seconds since 1970
    last REAL NOT NULL
)
""",
    """
CREATE TABLE IF NOT EXISTS expected_series (
    pollster TEXT PRIMARY KEY,
    series BLOB NOT NULL        -- JSON, see meter.agent.measured_series
)
""",
)

MAX_DROP_REASONS = 100
MAX_DROP_REASON = 300


@dataclass(frozen=True, slots=True)
class Dropped:
    """Samples that were dropped; the times are seconds since 1970."""

    samples: int
    first: float
    last: float
    reason: str


@dataclass(frozen=True, slots=True)
class SpooledReport:
    """A report in the spool."""

    id: int
    publication: Publication


@dataclass(frozen=True, slots=True)
class ReportState:
    """What the spool knows of earlier reports: the last confirmed one, and the expected series by pollster, as JSON."""

    confirmed: ConfirmedReport | None = None
    series: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReportToSpool:
    """A report that is to be spooled. ``publication`` makes it, given what was dropped since the report before.

    ``series`` has the changed series by pollster, as JSON; after a report of ``standby`` no series are expected.
    """

    boot: str
    sequence: int
    publication: Callable[[Sequence[DroppedSamples]], Publication]
    series: Mapping[str, bytes] = field(default_factory=dict)
    standby: bool = False


def make_tables(database: sqlite3.Connection) -> None:
    """Create the tables that do not exist yet."""
    for statement in SCHEMA:
        database.execute(statement)


def put_report(database: sqlite3.Connection, now: float, report: ReportToSpool, max_bytes: int) -> list[Dropped]:
    """Write a report; return the reports that were dropped for it, because all would have more than ``max_bytes``."""
    rows = database.execute("SELECT reason, samples, first, last FROM dropped_samples ORDER BY first").fetchall()
    publication = report.publication(
        [DroppedSamples(n, _text(first), _text(last), why) for why, n, first, last in rows]
    )
    [after_id] = database.execute("SELECT coalesce(max(id), 0) FROM outbox").fetchone()
    if rows:
        database.execute("DELETE FROM dropped_samples")
    database.execute(
        "INSERT OR REPLACE INTO spooled_report (after_id, at, boot, sequence, exchange, routing_key, headers, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            after_id,
            now,
            report.boot,
            report.sequence,
            publication.exchange,
            publication.routing_key,
            json.dumps(dict(publication.headers)),
            publication.body,
        ),
    )
    if report.standby:
        database.execute("DELETE FROM expected_series")
    if report.series:
        database.executemany("INSERT OR REPLACE INTO expected_series VALUES (?, ?)", list(report.series.items()))
    lost = _limited(database, max_bytes)
    record_dropped(database, lost)
    return lost


def _limited(database: sqlite3.Connection, max_bytes: int) -> list[Dropped]:
    """Delete the oldest reports beyond ``max_bytes``, but never the newest; return what was deleted."""
    [excess] = database.execute("SELECT sum(length(body)) - ? FROM spooled_report", (max_bytes,)).fetchone()
    if excess <= 0:
        return []
    sizes = database.execute("SELECT id, length(body), at FROM spooled_report ORDER BY id").fetchall()
    times: list[float] = []
    for row_id, size, at in sizes[:-1]:
        if excess <= 0:
            break
        database.execute("DELETE FROM spooled_report WHERE id = ?", (row_id,))
        excess -= size
        times.append(at)
    return [Dropped(0, min(times), max(times), f"{REPORTS_LOST}: the spool is full")] if times else []


def record_dropped(database: sqlite3.Connection, dropped: Sequence[Dropped]) -> None:
    """Add to what was dropped since the last report; equal reasons become one row."""
    for each in dropped:
        reason = each.reason[:MAX_DROP_REASON]
        [others] = database.execute("SELECT count(*) FROM dropped_samples WHERE reason <> ?", (reason,)).fetchone()
        if others >= MAX_DROP_REASONS:
            reason = "various reasons"
        database.execute(
            "INSERT INTO dropped_samples VALUES (?, ?, ?, ?) ON CONFLICT (reason) DO UPDATE SET"
            " samples = samples + excluded.samples, first = min(first, excluded.first), last = max(last, excluded.last)",
            (reason, each.samples, each.first, each.last),
        )


def oldest_reports(database: sqlite3.Connection, limit: int) -> list[SpooledReport]:
    """Return the oldest reports before which no sample is left, without removing them."""
    rows = database.execute(
        "SELECT id, exchange, routing_key, headers, body FROM spooled_report"
        " WHERE after_id < coalesce((SELECT min(id) FROM outbox), 9223372036854775807) ORDER BY id LIMIT ?",
        (limit,),
    )
    return [
        SpooledReport(row_id, Publication(exchange=exchange, routing_key=key, headers=json.loads(headers), body=body))
        for row_id, exchange, key, headers, body in rows
    ]


def remove_reports(database: sqlite3.Connection, confirmed: Sequence[int], refused: Mapping[int, str]) -> None:
    """Delete reports that the bus has confirmed, and those that it refuses for ever, by the reason."""
    for row_id in sorted(confirmed):
        for boot, sequence in database.execute("SELECT boot, sequence FROM spooled_report WHERE id = ?", (row_id,)):
            database.execute(
                "INSERT INTO confirmed_report VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET"
                " sequence = CASE boot WHEN excluded.boot THEN max(sequence, excluded.sequence) ELSE excluded.sequence END,"
                " boot = excluded.boot",
                (boot, sequence),
            )
    for row_id, reason in refused.items():
        for (at,) in database.execute("SELECT at FROM spooled_report WHERE id = ?", (row_id,)):
            record_dropped(database, [Dropped(0, at, at, f"{REPORTS_LOST}: {reason}")])
    database.executemany("DELETE FROM spooled_report WHERE id = ?", [(each,) for each in (*confirmed, *refused)])


def report_state(database: sqlite3.Connection) -> ReportState:
    """Return what is known of earlier reports."""
    confirmed = database.execute("SELECT boot, sequence FROM confirmed_report").fetchone()
    series = dict(database.execute("SELECT pollster, series FROM expected_series").fetchall())
    return ReportState(ConfirmedReport(*confirmed) if confirmed else None, series)


def has_tables(database: sqlite3.Connection) -> bool:
    """Return whether the database has the tables of reports: that of an earlier version has not."""
    return database.execute("SELECT 1 FROM sqlite_master WHERE name = 'spooled_report'").fetchone() is not None


def count_reports(database: sqlite3.Connection) -> int:
    """Return the number of reports."""
    [count] = database.execute("SELECT count(*) FROM spooled_report").fetchone()
    return int(count)


def _text(seconds: float) -> str:
    return utc_text(datetime.fromtimestamp(seconds, UTC))
