"""``meter-import`` in the test's own process, with a store of its own, and what it left behind."""

from __future__ import annotations

import json

import pytest
from twisted.internet import reactor
from twisted.python import usage

from meter.commands.command import EXIT_USAGE
from meter.commands.command import status_of
from meter.commands.importing import command
from meter.commands.importing import import_destination
from meter.commands.importing.import_options import Options


@pytest.fixture
def meter_import(postgresql, tmp_path, monkeypatch, capsys):
    """Runs the command with a store of its own, in a directory of its own; ``meter_import.dsn`` is that of the store."""

    async def meter_import(*arguments, settings=""):
        url = "" if "[bus]" in settings else '[bus]\nurl = "local:"\n'
        (tmp_path / "meter.toml").write_text(
            f'[signing]\nkey = "k"\n{url}[store]\ndsn = "{meter_import.dsn}"\n{settings}'
        )
        options = Options()
        try:
            options.parseOptions(["--config", str(tmp_path / "meter.toml"), *map(str, arguments)])
            status = await status_of(command.work(reactor, options))
        except usage.UsageError as error:
            return EXIT_USAGE, "", str(error)
        return status, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(import_destination, "READY_SECONDS", 2.0)
    meter_import.dsn = postgresql.dsn_with_schema()
    return meter_import


def stored_ids(postgresql, dsn):
    """The ids of all samples, in order."""
    return [id for [id] in postgresql.execute("SELECT message_id::text FROM sample ORDER BY 1", dsn)]


def rejected(tmp_path):
    return [json.loads(line) for line in (tmp_path / "meter-import.rejected").read_text().splitlines()]
