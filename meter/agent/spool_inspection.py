"""Counts the messages in the file of a spool when a daemon starts, before the spool is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from meter.agent import spooled_reports


def inspect_spool(path: Path) -> tuple[int, str]:
    """Return the number of publications, and cycle reports, in the spool at ``path`` and its destination, ``""`` for none.

    Blocks; for the start of a daemon. Returns 0 for a file that is not a spool, which :class:`Spool` will report.
    """
    if not path.exists():
        return 0, ""
    database = sqlite3.connect(path)
    try:
        [count] = database.execute("SELECT count(*) FROM outbox").fetchone()
        destination = database.execute("SELECT destination FROM filled_for").fetchone()
        if spooled_reports.has_tables(database):
            count += spooled_reports.count_reports(database)
    except sqlite3.Error:
        return 0, ""  # damaged, or without the tables
    finally:
        database.close()
    return count, destination[0] if destination else ""
