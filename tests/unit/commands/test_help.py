"""``--help`` and ``--version`` of subcommands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import meter
from meter.commands import audit
from meter.commands import db
from meter.commands import dead_letters
from meter.commands import notify
from meter.commands import pollsters
from meter.commands.command import EXIT_USAGE
from meter.commands.command import run
from meter.commands.doctor import command as doctor
from meter.commands.importing import import_options
from meter.commands.rate import command as rate

COMMANDS = {
    "meter-audit": audit.Options,
    "meter-db": db.Options,
    "meter-dead-letters": dead_letters.Options,
    "meter-doctor": doctor.Options,
    "meter-import": import_options.Options,
    "meter-notify": notify.Options,
    "meter-rate": rate.Options,
    "python -m meter.pollsters": pollsters.Options,
}
SUBCOMMANDS = [(command, name) for command, options in COMMANDS.items() for name, *_ in options.subCommands]


@pytest.mark.parametrize(("command", "name"), SUBCOMMANDS)
def test_version_of_a_subcommand_is_that_of_meter(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        COMMANDS[command]().parseOptions([name, "--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"Meter {meter.__version__}\n"


@pytest.mark.parametrize(("command", "name"), SUBCOMMANDS)
def test_usage_of_a_subcommand_names_it_once_and_no_other(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        COMMANDS[command]().parseOptions([name, "--help"])
    usage, *_ = capsys.readouterr().out.splitlines()
    assert usage.startswith(f"Usage: {command} [--config FILE] {name} ")
    assert usage.split().count(name) == 1


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["archive-server", "--expect", "many", "lost", "cold"], "'many' is not a whole number"),
        (["pack", "--after-days", "fast", "2026-03-02"], "'fast' is not a number"),
    ],
)
def test_value_that_is_no_number_is_told_without_words_of_python(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(db.Options(), words, rate.work)
    assert capsys.readouterr().err.splitlines()[0] == problem


@pytest.mark.parametrize(("command", "name"), SUBCOMMANDS)
def test_wrong_command_line_is_answered_with_the_usage_of_the_subcommand(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(COMMANDS[command](), [name, "--no-such-option"], rate.work)
    assert ended.value.code == EXIT_USAGE
    error, usage, hint = capsys.readouterr().err.splitlines()
    assert "no-such-option" in error
    assert usage.startswith(f"Usage: {command} [--config FILE] {name} ")
    assert hint == "Try --help."


def test_help_ends_quietly_when_its_reader_leaves() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", "from meter.commands.audit import main; main()", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
