"""The command line of ``meter-rate``, and what its subcommands share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.python import usage

from meter.commands.command import CommandError
from meter.commands.rate.command import Options
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions


class PlainOptions(usage.Options):
    optParameters = [["prices", None, None, ""], ["config", "c", None, ""]]  # noqa: N815, RUF012
    subCommands = [["months", None, RateOptions, ""]]  # noqa: N815, RUF012


class MonthOptions(RateOptions):
    optParameters = [["key", "k", None, ""]]  # noqa: N815, RUF012

    def parseArgs(self, *months: str) -> None:
        self["months"] = months


@pytest.mark.parametrize("arguments", [[], ["--prices", "x"], ["rate"]])
def test_command_without_a_known_subcommand_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(usage.UsageError):
        Options().parseOptions(arguments)


@pytest.mark.parametrize(
    "words", [["a", "--json", "b", "-k", "7"], ["--key", "7", "a", "b", "--json"], ["a", "-k7", "--json", "--", "b"]]
)
def test_options_may_stand_after_arguments(words: list[str]) -> None:
    options = MonthOptions()
    options.parseOptions(words)
    assert (options["months"], options["json"], options["key"]) == (("a", "b"), 1, "7")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["months"], None),
        (["--prices", "before", "months"], "before"),
        (["months", "--prices", "after"], "after"),
        (["--prices", "before", "months", "--prices", "after"], "after"),
    ],
)
def test_option_of_all_subcommands_may_stand_before_and_after_them(words: list[str], expected: str | None) -> None:
    options = PlainOptions()
    options.parseOptions(words)
    assert options.subOptions.given("prices") == expected


def test_price_directory_of_the_command_line_precedes_that_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "meter.toml"
    file.write_text(f'[meter]\nstate_dir = "{tmp_path}"\n[rating]\nprice_directory = "/configured"\n')
    assert RateContext(Clock(), str(file)).price_directory() == Path("/configured")
    assert RateContext(Clock(), str(file), "here").price_directory() == Path("here")


def test_absent_price_directory_is_said(tmp_path: Path) -> None:
    file = tmp_path / "meter.toml"
    file.write_text(f'[meter]\nstate_dir = "{tmp_path}"\n')
    with pytest.raises(CommandError, match="set \\[rating\\] price_directory, or give --prices"):
        RateContext(Clock(), str(file)).price_directory()


def test_output_is_json_or_lines_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).write([{"name": "Café"}], ["unused"])
    Output(as_json=False).write([], ["a\x1b[1mb\nc"])
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first) == {"name": "Café"}
    assert second == "a\\x1b[1mb c"
