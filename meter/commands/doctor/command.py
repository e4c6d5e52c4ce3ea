"""The command line of ``meter-doctor``."""

from __future__ import annotations

import os
import sys
from typing import Any

from meter.commands.command import EXIT_USAGE
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import configuration
from meter.commands.command import run
from meter.commands.doctor.checks import CHECKS
from meter.commands.doctor.examination import Context
from meter.commands.doctor.examination import examine
from meter.commands.doctor.finding import EXIT_FAULT
from meter.commands.doctor.finding import EXIT_WARNING
from meter.commands.doctor.finding import Finding
from meter.commands.doctor.finding import as_json
from meter.commands.doctor.finding import as_text
from meter.commands.doctor.finding import exit_status
from meter.settings.config_file import DEFAULT_FILE
from meter.settings.config_file import ConfigError


class Options(CommandOptions):
    """The options of ``meter-doctor``."""

    synopsis = "Usage: meter-doctor [--config FILE] [--json] [why RESOURCE METER]"
    longdesc = (
        "Checks the whole installation, as far as it can be reached from this host, in less than a minute. Exit status:"
        f" 0 if all is well, {EXIT_WARNING} with warnings, {EXIT_FAULT} with faults, {EXIT_USAGE} for a wrong command line."
    )
    optFlags = [["json", None, "Write one JSON object."]]  # noqa: N815, RUF012  # Twisted reads it so


def main() -> None:
    """Run ``meter-doctor``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Run all checks, write their findings, and return the exit status."""
    chosen = context_of(reactor, options["config"])
    findings = await examine(chosen) if isinstance(chosen, Context) else chosen
    sys.stdout.write(as_json(findings) if options["json"] else as_text(findings))
    sys.stdout.flush()
    return exit_status(findings)


def context_of(reactor: Any, path: str | None) -> Context | list[Finding]:
    """Return what the checks need, or the findings if there is no valid configuration."""
    if path is not None and not os.path.exists(path):
        raise CommandError(f"{path}: there is no such file")
    path = path or (DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else None)
    try:
        config = configuration(path)
    except ConfigError as error:
        advice = "correct the file; --check of a daemon shows the result"
        wrong = [Finding("configuration", "fault", problem, advice) for problem in error.problems]
        rest = [name for name in CHECKS if name != "configuration"]
        return wrong + [Finding(name, "not checked", "the configuration is invalid") for name in rest]
    return Context(reactor, path, config)
