"""The command line of ``meter-doctor``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from twisted.python import usage

from meter.commands.command import EXIT_OK
from meter.commands.command import EXIT_USAGE
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import SubcommandOptions
from meter.commands.command import configuration
from meter.commands.command import options_first
from meter.commands.command import run
from meter.commands.doctor.checks import CHECKS
from meter.commands.doctor.collection import evidence_of
from meter.commands.doctor.examination import ExaminationContext
from meter.commands.doctor.examination import examine
from meter.commands.doctor.finding import EXIT_FAULT
from meter.commands.doctor.finding import EXIT_WARNING
from meter.commands.doctor.finding import Finding
from meter.commands.doctor.finding import as_json
from meter.commands.doctor.finding import as_text
from meter.commands.doctor.finding import exit_status
from meter.commands.doctor.finding import steps_as_json
from meter.commands.doctor.finding import steps_as_text
from meter.commands.doctor.why import why
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.settings.config_file import DEFAULT_FILE
from meter.settings.problems import ConfigError


class WhyOptions(SubcommandOptions):
    """Which meter of which resource."""

    synopsis = "RESOURCE METER"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["at", None, None, "The time at which a sample is missing, such as 2026-11-22T17:00 (UTC). [default: now]"],
        ["as-project", "p", "", "Also say whether this project may see the samples. [default: an administrator may]"],
    ]
    optFlags = [["json", None, "Write one JSON object."]]  # noqa: N815, RUF012

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Accept options after the arguments too, as in ``why RESOURCE METER --at TIME``; those after ``--`` are arguments."""
        super().parseOptions(options_first(options or (), ("--at", "--as-project", "--project", "-p")))

    def opt_project(self, project: str) -> None:
        """The same as --as-project."""
        self["as-project"] = project

    def parseArgs(self, *which: str) -> None:
        """Take the id of the resource and the name of the meter."""
        if len(which) != 2:
            raise usage.UsageError("why: give the id of a resource and the name of a meter")
        self["resource"], self["meter"] = which

    def postOptions(self) -> None:
        """Parse the time."""
        try:
            self["at"] = None if self["at"] is None else parse_timestamp(self["at"], "--at")
        except BadMessage as error:
            raise usage.UsageError(str(error)) from error


class Options(CommandOptions):
    """The options of ``meter-doctor``."""

    synopsis = "Usage: meter-doctor [--config FILE] [--json] [why RESOURCE METER]"
    longdesc = (
        "Checks the whole installation, as far as it can be reached from this host, in less than a minute. Exit status:"
        f" 0 if all is well, {EXIT_WARNING} with warnings, {EXIT_FAULT} with faults, {EXIT_USAGE} for a wrong command line."
    )
    optFlags = [["json", None, "Write one JSON object."]]  # noqa: N815, RUF012  # Twisted reads it so
    subCommands = [  # noqa: N815, RUF012
        ["why", None, WhyOptions, "Say at which step the samples of a meter of a resource stop."]
    ]


def main() -> None:
    """Run ``meter-doctor``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Run all checks, or answer *why*; write the result, and return the exit status."""
    chosen = context_of(reactor, options["config"])
    if options.subCommand == "why" and isinstance(chosen, ExaminationContext):
        return await _why(chosen, options.subOptions, as_json=bool(options["json"] or options.subOptions["json"]))
    findings = await examine(chosen) if isinstance(chosen, ExaminationContext) else chosen
    sys.stdout.write(as_json(findings) if options["json"] else as_text(findings))
    sys.stdout.flush()
    return exit_status(findings)


async def _why(context: ExaminationContext, options: Any, *, as_json: bool) -> int:
    at = options["at"] or context.now()
    evidence = await evidence_of(context, options["resource"], options["meter"], at, options["as-project"])
    verdict, steps = why(evidence)
    sys.stdout.write(steps_as_json(verdict, steps) if as_json else steps_as_text(verdict, steps))
    sys.stdout.flush()
    return EXIT_OK if verdict.startswith("arrives") else EXIT_WARNING


def context_of(reactor: Any, path: str | None) -> ExaminationContext | list[Finding]:
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
    return ExaminationContext(reactor, path, config)
