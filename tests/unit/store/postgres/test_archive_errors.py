"""Which errors of PostgreSQL are those of an archive server, or of a worker: they do not end the connection to the store."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from meter.archive_unavailable import ArchiveUnavailable
from meter.archive_unavailable import SamplesLost
from meter.store.postgres.connection import _server_away

READ = 'SQL statement "SELECT volumes FROM archive_cold a WHERE a.store_id = $1 /* weeks 2026-01-05 to 2026-03-02 of archive cold */"'


class PostgresError(Exception):
    """An error as psycopg2 raises it."""

    def __init__(self, message, context="", pgcode="XX000", severity="ERROR"):
        super().__init__(message)
        self.pgcode = pgcode
        self.diag = SimpleNamespace(
            message_primary=message, context=context, internal_query=None, severity_nonlocalized=severity
        )


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize(
    ("error", "server", "first"),
    [
        (PostgresError("could not connect to server", READ, "08001"), "cold", "2026-01-05"),
        (PostgresError("permission denied for table packed_samples", READ, "42501"), "cold", "2026-01-05"),
        (PostgresError('could not connect to server "meter_archive_cold"', "", "08001"), "cold", None),
        (PostgresError("server closed the connection", "remote SQL command: SELECT FROM x", "08006"), "unknown", None),
    ],
)
def test_error_of_an_archive_names_it_and_its_weeks(error, server, first, spread):
    found = _server_away(error, spread=spread)
    assert (found.server, found.first) == (server, first)
    assert found.public_text.startswith("Samples of ")


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        PostgresError("terminating connection due to administrator command", "", "57P01", "FATAL"),
        PostgresError("division by zero", 'SQL statement "SELECT 1 / 0"', "22012"),
        ValueError("no error of PostgreSQL"),
    ],
)
def test_other_errors_are_none(error, spread):
    assert _server_away(error, spread=spread) is None


def test_error_of_a_worker_is_none_of_an_archive():
    found = _server_away(PostgresError("connection to the remote node db1:5432 failed", "", "08006"), spread=True)
    assert not isinstance(found, ArchiveUnavailable)
    assert str(found) == "a worker of the cluster does not answer: connection to the remote node db1:5432 failed"


def test_lost_week_is_named_with_the_day_and_the_entry_of_its_record():
    error = PostgresError("the samples of the week of 2026-03-02 are lost", READ, "MT001")
    error.diag.message_detail = "2026-03-02 cold 2026-11-28 17"
    found = _server_away(error, spread=False)
    assert isinstance(found, SamplesLost)
    assert (found.server, found.end.isoformat()) == ("cold", "2026-03-09T00:00:00+00:00")
    assert "recorded on 2026-11-28" in found.public_text
    assert "entry 17 of the audit log" in str(found)


def test_end_is_the_first_time_after_the_last_week():
    found = _server_away(PostgresError("could not connect", READ, "08001"), spread=False)
    assert found.end.isoformat() == "2026-03-09T00:00:00+00:00"
