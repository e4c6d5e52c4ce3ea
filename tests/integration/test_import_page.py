"""The commands of docs/coming-from.rst do what the page says: they are read there, and run on real databases and a real Gnocchi."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.commands import db
from meter.commands.command import EXIT_OK
from meter.commands.command import status_of
from meter.commands.importing import command
from meter.commands.importing.gnocchi_points import AGGREGATIONS
from meter.commands.importing.import_options import DEFAULT_RATE
from meter.commands.importing.import_options import Options
from tests.ceilometer_tables import SqliteTables
from tests.importing import meter_import as meter_import
from tests.importing import stored_ids
from tests.integration.test_import_gnocchi import INSTANCE
from tests.integration.test_import_gnocchi import polls
from tests.servers.gnocchi import USER

PAGE = (Path(__file__).parents[2] / "docs/coming-from.rst").read_text(encoding="utf-8")


def examples(program):
    """The command lines of ``program`` on the page, each with what the page shows as its output."""
    found = re.findall(rf"^    \$ ({program} (?:.*\\\n)*.*)\n((?:    (?!\$).*\n)*)", PAGE, re.M)
    return [
        (shlex.split(line.replace("\\\n", " "))[1:], re.sub(r"^    ", "", output, flags=re.M)) for line, output in found
    ]


def replaced(words, replacements):
    """The words of a command line, with those of a test in the place of some."""
    return [replacements.get(word, word) for word in words]


@pytest.mark.parametrize("words", [words for words, _ in examples("meter-import")], ids=" ".join)
def test_command_line_on_the_page_is_valid(words):
    options = Options()
    options.parseOptions(words)
    assert options.subOptions["selection"].until.isoformat() == "2026-11-25T00:00:00+00:00"


def test_numbers_on_the_page_are_those_of_the_code():
    assert f"{DEFAULT_RATE:.0f} if it is not given" in PAGE
    for kind, aggregates in AGGREGATIONS.items():
        rows = re.findall(rf"^{kind} +(.+?)(?:, if there is no other)? {{2,}}", PAGE, re.M)
        assert [each for row in rows for each in re.findall(r"``(\w+)``", row)] == list(aggregates)


@pytest_twisted.ensureDeferred
async def test_ceilometers_tables_are_imported_as_the_page_shows(meter_import, tmp_path):
    tables = SqliteTables(tmp_path / "ceilometer.sqlite")
    ceilometer = [(words, output) for words, output in examples("meter-import") if words[0] == "ceilometer"]
    assert len(ceilometer) == 2
    for words, output in ceilometer:
        status, out, errors = await meter_import(*replaced(words, {"mysql://ceilometer@db1/ceilometer": tables.url}))

        # The test has no broker.
        assert (status, out.replace(" stored", " published"), errors) == (EXIT_OK, output, "")


@pytest_twisted.ensureDeferred
async def test_gnocchi_and_its_clients_file_are_imported_as_the_page_says(meter_import, gnocchi, postgresql, tmp_path):
    words = [words for words, _ in examples("meter-import")]
    [over_api] = [each for each in words if each[0] == "gnocchi" and "--user" in each]
    [of_file] = [each for each in words if each[0] == "gnocchi-csv"]
    [[client, _]] = examples("gnocchi")
    resource_id = of_file[of_file.index("--resource") + 1]

    def make():
        instance = {**INSTANCE, "project_id": of_file[of_file.index("--project") + 1], "user_id": None}
        made = gnocchi.resource(resource_id, {"cpu": ("ceilometer-low-rate", "ns")}, **instance)
        gnocchi.measure(made["metrics"]["cpu"], polls(1, 2, 3))
        (tmp_path / "cpu.csv").write_text(gnocchi.client(*client[: client.index(">")]))

    await deferToThread(make)

    assert USER in over_api
    status, out, errors = await meter_import(*replaced(over_api, {"http://gnocchi.example.org:8041": gnocchi.url}))
    assert (status, "3 samples of 1 meter stored" in out, errors) == (EXIT_OK, True, "")
    ids = stored_ids(postgresql, meter_import.dsn)
    status, out, errors = await meter_import(of_file[0], "--state", "csv.state", *of_file[1:])
    assert (status, "3 samples of 1 meter stored" in out, errors) == (EXIT_OK, True, "")
    assert stored_ids(postgresql, meter_import.dsn) == ids


@pytest_twisted.ensureDeferred
async def test_import_with_a_key_of_its_own_is_undone_by_one_command(meter_import, postgresql, tmp_path, capsys):
    [settings] = re.findall(r"^    (\[\[signing\.keys\]\]\n(?:    .+\n)+)", PAGE, re.M)
    settings = re.sub(r"^    ", "", settings, flags=re.M).replace("/etc/meter/key-import", str(tmp_path / "key"))
    (tmp_path / "key").write_text("a secret of the import")
    (tmp_path / "key").chmod(0o600)
    tables = SqliteTables(tmp_path / "ceilometer.sqlite")
    file = tmp_path / "import.toml"
    file.write_text(f'[bus]\nurl = "local:"\n[store]\ndsn = "{meter_import.dsn}"\n{settings}')

    async def run(options, work, *words):
        options.parseOptions(["--config", str(file), *words])
        status = await status_of(work(reactor, options))
        return status, *capsys.readouterr()

    status, _, errors = await run(Options(), command.work, "ceilometer", "--until", "2026-11-25", tables.url)
    assert (status, errors, len(stored_ids(postgresql, meter_import.dsn))) == (EXIT_OK, "", 12)

    [[words, _]] = examples("meter-db")
    status, out, errors = await run(db.Options(), db.work, *words)
    assert (status, "12" in out, errors) == (EXIT_OK, True, "")
    status, out, errors = await run(db.Options(), db.work, "void", "--reason", "undone", "--key", "import")
    assert (status, errors, stored_ids(postgresql, meter_import.dsn)) == (EXIT_OK, "", [])
