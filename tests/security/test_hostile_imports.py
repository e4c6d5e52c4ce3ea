"""What ``meter-import`` reads was written by others: a record that cannot be a sample stops no other, and no password is shown."""

from __future__ import annotations

import json
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import EXIT_USAGE
from meter.commands.command import UNAVAILABLE
from meter.commands.importing.ceilometer_tables import CeilometerTables
from meter.commands.importing.gnocchi_metrics import granularity_of
from meter.commands.importing.gnocchi_metrics import metadata_of
from meter.commands.importing.import_source import ImportSelection
from meter.commands.importing.import_source import ImportSourceError
from tests.ceilometer_tables import SqliteTables
from tests.ceilometer_tables import statements
from tests.importing import meter_import as meter_import
from tests.importing import stored_ids

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
UNTIL = ("--until", "2026-11-25")

BAD_COLUMNS: list[dict[str, Any]] = [
    {"timestamp": "0000-00-00 00:00:00.000000"},
    {"timestamp": "1=1"},
    {"timestamp": 17},
    {"volume": float("inf")},
    {"volume": 1e31},
    {"volume": "=cmd|' /C calc'!A0"},
    {"message_id": "a" * 5000},
    {"resource_id": "r1"},
    {"meter_id": "cpu"},
]

BAD_RESOURCES = [
    "UPDATE resource SET resource_metadata = x'ff00' WHERE internal_id = ?",
    'UPDATE resource SET resource_metadata = \'{"_meter": {"run": "exists"}}\' WHERE internal_id = ?',
    "UPDATE resource SET resource_id = CAST(x'ff41' AS TEXT) WHERE internal_id = ?",
    "UPDATE resource SET project_id = char(0) WHERE internal_id = ?",
]


def rejected_strictly(directory: Path) -> list[dict[str, Any]]:
    """The records that were not imported; each line is JSON as other programs read it, without Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    lines = (directory / "meter-import.rejected").read_text(encoding="ascii").splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


@pytest_twisted.ensureDeferred
async def test_rows_that_are_no_samples_do_not_stop_those_that_are(
    meter_import: Any, postgresql: Any, tmp_path: Path
) -> None:
    tables = SqliteTables(tmp_path / "ceilometer.sqlite", empty=True)
    good = tables.resource()
    for columns in BAD_COLUMNS:
        tables.samples(good, [(NOON, 2.0)], **columns)
    for statement in BAD_RESOURCES:
        bad = tables.resource("r2")
        tables.execute(statement, bad)
        tables.samples(bad, [(NOON, 2.0)])
    tables.samples(good, [(NOON, 1.0)], message_id="6ba7b810-9dad-11d1-80b4-00c04fd430c8")

    status, out, errors = await meter_import("ceilometer", *UNTIL, tables.url)

    assert (status, errors) == (EXIT_FOUND_PROBLEMS, "")
    assert stored_ids(postgresql, meter_import.dsn) == ["6ba7b810-9dad-11d1-80b4-00c04fd430c8"]
    assert len(rejected_strictly(tmp_path)) == len(BAD_COLUMNS) + len(BAD_RESOURCES)
    assert out.isascii()
    assert out.replace("\n", "").isprintable()


@pytest_twisted.ensureDeferred
async def test_row_with_the_id_of_a_stored_sample_is_refused_and_changes_nothing(
    meter_import: Any, postgresql: Any, tmp_path: Path
) -> None:
    true = SqliteTables(tmp_path / "true.sqlite", empty=True)
    true.samples(true.resource("r1"), [(NOON, 5.0)], message_id="6ba7b810-9dad-11d1-80b4-00c04fd430c8")
    assert (await meter_import("ceilometer", "--state", "true", *UNTIL, true.url))[0] == EXIT_OK
    other = SqliteTables(tmp_path / "other.sqlite", empty=True)
    claimed = other.resource("r1", project_id="p2")
    other.samples(claimed, [(NOON, 0.0)], message_id="6ba7b810-9dad-11d1-80b4-00c04fd430c8")

    status, out, _ = await meter_import("ceilometer", "--json", "--state", "other", *UNTIL, other.url)

    assert (status, json.loads(out)["samples"]) == (EXIT_FOUND_PROBLEMS, 0)
    [refused] = rejected_strictly(tmp_path)
    assert "belongs to another sample" in refused["reason"]
    stored = postgresql.execute("SELECT message_id::text, volume FROM sample", meter_import.dsn)
    assert stored == [("6ba7b810-9dad-11d1-80b4-00c04fd430c8", 5.0)]


@pytest_twisted.ensureDeferred
async def test_times_before_the_year_1_do_not_stop_the_import(
    meter_import: Any, postgresql: Any, tmp_path: Path
) -> None:
    url = postgresql.dsn()
    postgresql.execute("; ".join(statements("postgresql")), url)
    postgresql.execute("UPDATE sample SET timestamp = '0044-03-15 12:00:00 BC' WHERE id = 3", url)
    postgresql.execute("UPDATE sample SET timestamp = '-infinity' WHERE id = 5", url)

    status, out, _ = await meter_import("ceilometer", "--json", *UNTIL, url)

    assert (status, json.loads(out)["samples"]) == (EXIT_FOUND_PROBLEMS, 10)
    assert [each["record"] for each in rejected_strictly(tmp_path)] == ["sample 3", "sample 5"]


CSV = """timestamp,granularity,value
2026-11-18T12:00:00+00:00,300.0,1.0
2026-11-18T12:05:00+00:00,inf,1.0
2026-11-18T12:05:00+00:00,nan,1.0
2026-11-18T12:05:00+00:00,1e300,1.0
2026-11-18T12:05:00+00:00,-300,1.0
2026-11-18T12:10:00+00:00,300.0,nan
2026-11-18T12:10:00+00:00,300.0,1e999
2026-11-18T12:10:00+00:00,300.0,=1+1
0000-01-01T00:00:00+00:00,300.0,1.0
0001-01-01T00:00:00+14:00,300.0,1.0
\x1b[2J,300.0,1.0
2026-11-18T12:15:00+00:00,300.0,1.0
"""


@pytest_twisted.ensureDeferred
async def test_points_that_are_no_samples_do_not_stop_those_that_are(meter_import: Any, tmp_path: Path) -> None:
    (tmp_path / "cpu.csv").write_text(CSV)

    status, out, errors = await meter_import("gnocchi-csv", *UNTIL, "--meter", "cpu", "--resource", "r", "cpu.csv")

    assert (status, errors) == (EXIT_FOUND_PROBLEMS, "")
    assert out.splitlines()[0] == "2 samples of 1 meter stored"
    assert len(rejected_strictly(tmp_path)) == 10
    assert "\x1b" not in out


@pytest.mark.parametrize("granularity", [10**400, float("inf"), -1, 0, "9" * 5000 + ":00:00", "0:00:00", 1e300])
def test_absurd_granularity_is_none(granularity: Any) -> None:
    with pytest.raises(LookupError, match="granularity"):
        granularity_of(granularity)


def test_resource_of_gnocchi_cannot_tell_what_only_agents_may() -> None:
    assert metadata_of({"_meter": {"run": "exists"}, "host": "hv1"}) == {"host": "hv1"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ceilometer@127.0.0.1:9/ceilometer?password=hunter2",
        "postgresql://ceilometer@127.0.0.1:9/ceilometer?sslpassword=hunter2",
        "mysql://ceilometer@127.0.0.1:9/ceilometer?password=hunter2",
        "mysql://ceilometer:hun@ter2@127.0.0.1:9/ceilometer",
        "postgresql://ceilometer:it'shunter2@/ceilometer?host=127.0.0.1:9&host=127.0.0.2:9",
        "postgresql://ceilometer:hunter2@127.0.0.1:port/ceilometer",
        "postgresql:/ceilometer:hunter2@127.0.0.1/ceilometer",
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_password_of_a_source_is_shown_or_kept(meter_import: Any, url: str) -> None:
    status, out, errors = await meter_import("ceilometer", *UNTIL, url)
    assert status in (EXIT_USAGE, UNAVAILABLE)
    assert "ter2" not in out + errors
    try:  # in the state and in the audit log
        identity = str(CeilometerTables(reactor, url, ImportSelection(None, NOON)).identity)
    except ImportSourceError as error:
        identity = str(error)
    assert "ter2" not in identity
