"""``python -m meter.pollsters``: lists installed pollsters, and polls one without bus or store."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any
from typing import NoReturn

from twisted.python import usage

from meter.agent.cycle import Cycle
from meter.agent.cycle import PluginContext
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import SubcommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.daemon.services import sleep
from meter.hypervisor import LibvirtHypervisor
from meter.hypervisor import resolve_uri
from meter.interfaces import IHealth
from meter.interfaces import IHypervisor
from meter.interfaces import Unavailable
from meter.plugins.registry import CENTRAL
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import Decision
from meter.plugins.registry import configure
from meter.plugins.registry import decide
from meter.plugins.registry import find
from meter.plugins.registry import report
from meter.sample import Sample


class TryOptions(SubcommandOptions):
    """Options of ``try``."""

    synopsis = "[options] NAME"
    longdesc = (
        "Polls the pollsters whose names match the pattern NAME (* and ?) and prints their samples. Nothing is signed,"
        " sent or stored."
    )
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["uri", None, None, "Connection URI of libvirt. [default: as configured]"],
        ["again", None, None, "Poll again after this many seconds; rates and deltas need two polls.", float],
    ]

    def parseOptions(self, options: Any = None) -> None:
        """Permit options after the name; Twisted requires them before it."""
        if options and not options[0].startswith("-"):
            options = [*options[1:], options[0]]
        super().parseOptions(options)

    def parseArgs(self, name: str) -> None:  # type: ignore[override]
        """Take the name pattern."""
        self["name"] = name


class Options(CommandOptions):
    """Options of the command."""

    synopsis = "python -m meter.pollsters [--config FILE] list | try NAME [--uri URI] [--again SECONDS]"
    subCommands = [  # noqa: N815, RUF012
        ["list", None, SubcommandOptions, "List installed pollsters with their state on this host."],
        ["try", None, TryOptions, "Poll one or more pollsters now and print their samples."],
    ]

    def postOptions(self) -> None:
        """Require a subcommand."""
        if self.subCommand is None:
            raise usage.UsageError("give a subcommand: list, or try NAME")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command."""
    run(Options(), sys.argv[1:] if arguments is None else arguments, work)


async def work(reactor: Any, options: Any) -> int:
    """Run the subcommand; return the exit status."""
    config = configuration(options["config"])
    sub = options.subOptions
    uri, _ = resolve_uri(sub.get("uri") or config.compute.libvirt_uri)
    hypervisor = LibvirtHypervisor(
        uri, clock=reactor, reactor_threads=reactor, timeout_seconds=config.compute.timeout_seconds
    )
    context = PluginContext("meter-compute", config, reactor, {IHypervisor: hypervisor, IHealth: NoDependencies()})
    sections = {"pollsters": config.pollsters, "listeners": config.listeners}
    configured = configure(find(), sections, [] if options.subCommand == "try" else config.plugins.disable)
    pollsters = [each for each in configured.decisions if each.kind in (COMPUTE, CENTRAL)]
    if options.subCommand == "try":
        pollsters = [each for each in pollsters if fnmatchcase(each.name, sub["name"])]
        if not pollsters:
            raise CommandError(
                f"no pollster matches {sub['name']!r}; python -m meter.pollsters list shows those installed"
            )
    pollsters = await decide(pollsters, context, reactor)
    try:
        if options.subCommand == "list":
            return _print(report(pollsters))
        return await _try(pollsters, context, sub["again"])
    finally:
        await hypervisor.stopService()


class NoDependencies:
    """The health of a daemon without dependencies."""

    def readinesses(self) -> Sequence[Any]:
        """Return an empty sequence."""
        return ()


async def _try(pollsters: Sequence[Decision], context: PluginContext, again: float | None) -> int:
    samples, problems = await _poll(pollsters, Cycle(context))
    if again is not None:
        await sleep(context.clock, again)
        samples, problems = await _poll(pollsters, Cycle(context))
    _print(table(samples))
    for problem in problems:
        sys.stderr.write(f"{escape_terminal(problem)}\n")
    return EXIT_FOUND_PROBLEMS if problems else EXIT_OK


async def _poll(pollsters: Iterable[Decision], cycle: Cycle) -> tuple[list[Sample], list[str]]:
    """Return the samples of all ``pollsters``, and a message for each that made none."""
    samples: list[Sample] = []
    problems = []
    for each in pollsters:
        if each.state != "active":
            problems.append(f"{each.name} is {each.state}: {each.reason}")
            continue
        try:
            samples += await each.plugin.poll(cycle)
        except Unavailable as error:
            problems.append(f"{each.name}: {error}")
        except Exception as error:
            problems.append(f"{each.name} failed: {type(error).__name__}: {error}")
    return samples, problems


def table(samples: Iterable[Sample]) -> str:
    """Return samples as an aligned table, one per line, with a heading."""
    rows = [("METER", "TYPE", "VOLUME", "UNIT", "RESOURCE", "PROJECT", "TIME")]
    for sample in samples:
        volume = f"{sample.volume:.6g}" if isinstance(sample.volume, float) else str(sample.volume)
        project = sample.project_id or "-"
        time = f"{sample.timestamp:%H:%M:%S}"
        rows.append((sample.name, sample.type, volume, sample.unit, sample.resource_id, project, time))
    widths = [max(len(escape_terminal(row[column])) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(escape_terminal(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _print(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    return EXIT_OK
