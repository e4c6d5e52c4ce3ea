"""Archives all packed samples of a database on a second server: what is stored before a read is read from there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextlib import nullcontext
from datetime import date
from typing import Any

import pytest

from meter.store.archive.archive_servers import make_remote_tables
from meter.store.archive.archive_servers import make_server
from meter.store.archive.archiver import Archiver
from meter.store.postgres.dsn import parsed
from tests.packed import BlockingSession
from tests.packed import done_before_reads
from tests.packed import pack
from tests.packed import packed_before_reads
from tests.packed import result

SERVER = "cold"

HERE = "SELECT DISTINCT date_trunc('week', first AT TIME ZONE 'UTC')::date FROM packed_samples WHERE NOT archived AND count > 8 ORDER BY 1"


def add_server(dsn: str, archive_dsn: str, name: str = SERVER) -> None:
    """Make the database at ``archive_dsn`` an archive server of that at ``dsn``."""
    remote, session = BlockingSession(archive_dsn), BlockingSession(dsn)
    try:
        result(make_remote_tables(remote, None))
        result(make_server(session, name, parsed(archive_dsn), None))
    finally:
        remote.close()
        session.close()


def archive_all(dsn: str, name: str = SERVER, before: date = date.max) -> int:
    """Archive all packed weeks before ``before`` that are not archived; return how many samples."""
    session = BlockingSession(dsn)
    try:
        return _archive(session, name, before)
    finally:
        session.close()


def _archive(session: Any, name: str, before: date = date.max) -> int:
    weeks = [week for [week] in result(session.rows(HERE)) if week < before]
    return sum(result(Archiver(session).archive(week, name)) for week in weeks)


def archived_before_reads(dsn: str) -> AbstractContextManager[None]:
    """Pack and archive everything in the database before each read: see :func:`~tests.packed.done_before_reads`.

    Late samples of archived weeks stay plain.
    """

    def archive(session: Any) -> None:
        pack(session)
        _archive(session, SERVER)

    return done_before_reads(dsn, archive)


def before_reads(request: pytest.FixtureRequest, dsn: str) -> AbstractContextManager[None]:
    """Return what a fixture with the parameter ``packed`` or ``archived`` does to the database before reads; nothing for others."""
    if request.param == "packed":
        return packed_before_reads(dsn)
    if request.param != "archived":
        return nullcontext()
    archive = request.getfixturevalue("archive_postgresql")
    session = BlockingSession(dsn)
    try:
        known = result(session.rows("SELECT FROM pg_foreign_server"))
    finally:
        session.close()
    if not known:
        add_server(dsn, archive.dsn())
    return archived_before_reads(dsn)
