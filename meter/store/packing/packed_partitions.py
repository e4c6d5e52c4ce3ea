"""Partitions of ``packed_samples``: one a week, for the weeks that are packed."""

from __future__ import annotations

from datetime import date
from datetime import datetime

from meter.sample_identity import WEEK
from meter.store.migrations import has_table
from meter.store.postgres.pool import Session

LOCK = 0x6D65746572_11
"""Key of the advisory lock of transactions that pack or unpack samples, or change samples of weeks that are packed or being packed.

Writers of samples do not take it.
"""

PACKED_WEEKS = "SELECT week FROM packed_week ORDER BY week"

TABLES = ("packed_message_id", "packed_batch", "series_list", "packed_week", "archived_week")
"""Tables with rows by week, beside ``packed_samples``."""


REMOVE_ARCHIVED = "INSERT INTO archive_removal (server, week) SELECT server, week FROM archived_week WHERE week = %s AND lost_at IS NULL"


def packed_partition_name(week: date) -> str:
    """Return the name of the table that holds the packed samples of ``week``: ``packed_samples_2026_11_16``."""
    return f"packed_samples_{week:%Y_%m_%d}"


async def lock_packed_samples(session: Session) -> None:
    """Wait until no other transaction packs or unpacks, and keep others from it until the end of this transaction."""
    await session.rows("SELECT pg_advisory_xact_lock(%s)", [LOCK])


async def packed_weeks(session: Session) -> list[date]:
    """Return the weeks that are packed or being packed, oldest first."""
    return [week for [week] in await session.rows(PACKED_WEEKS)]


async def ensure_packed_partition(session: Session, week: date) -> None:
    """Create the partition of ``week`` if there is none, without blocking readers."""
    name = packed_partition_name(week)
    if await has_table(session, name):
        return
    await session.count(f"CREATE TABLE {name} (LIKE packed_samples INCLUDING ALL)")
    await session.count(
        f"ALTER TABLE packed_samples ATTACH PARTITION {name} FOR VALUES FROM (%s) TO (%s)",
        [f"{week} 00:00+00", f"{week + WEEK} 00:00+00"],
    )


async def drop_packed_week(session: Session, week: date) -> None:
    """Drop the packed samples of ``week``, and what finds them. Those of an archived week are to be removed from its archive server, too."""
    await session.count(REMOVE_ARCHIVED, [week])
    await session.count(f"DROP TABLE IF EXISTS {packed_partition_name(week)}")
    for table in TABLES:
        await session.count(f"DELETE FROM {table} WHERE week = %s", [week])


async def drop_packed_before(session: Session, monday: datetime) -> None:
    """Drop the packed weeks before ``monday``."""
    for week in await packed_weeks(session):
        if week < monday.date():
            await drop_packed_week(session, week)
