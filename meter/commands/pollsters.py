"""``python -m meter.pollsters``: which pollsters are installed, and what one would measure now, without bus or store."""

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
from meter.commands.command import DONE
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
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


class TryOptions(usage.Options):
    """Which pollsters, and how."""

    synopsis = "try [options] NAME"
    longdesc = (
        "Polls the pollsters called NAME, with * and ?, and shows their samples. Nothing is signed, sent or kept."
    )
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["uri", None, None, "libvirt's connection URI. [default: as configured]"],
        ["again", None, None, "Poll once more after so many seconds, which rates and deltas take.", float],
    ]

    def parseOptions(self, options: Any = None) -> None:
        """Take options after the name as well; Twisted wants them before."""
        if options and not options[0].startswith("-"):
            options = [*options[1:], options[0]]
        super().parseOptions(options)

    def parseArgs(self, name: str) -> None:  # type: ignore[override]
        """Take the name."""
        self["name"] = name


class Options(CommandOptions):
    """What to do."""

    synopsis = "python -m meter.pollsters [--config FILE] list | try NAME [--uri URI] [--again SECONDS]"
    subCommands = [  # noqa: N815, RUF012
        ["list", None, usage.Options, "Say what is installed, and what would work here."],
        ["try", None, TryOptions, "Show what a pollster would measure now."],
    ]

    def postOptions(self) -> None:
        """Something has to be done."""
        if self.subCommand is None:
            raise usage.UsageError("say what to do: list, or try NAME")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command."""
    run(Options(), sys.argv[1:] if arguments is None else arguments, work)


async def work(reactor: Any, options: Any) -> int:
    """Do what the options say."""
    config = configuration(options["config"])
    sub = options.subOptions
    uri, _ = resolve_uri(sub.get("uri") or config.compute.libvirt_uri)
    hypervisor = LibvirtHypervisor(
        uri, clock=reactor, reactor_threads=reactor, timeout_seconds=config.compute.timeout_seconds
    )
    context = PluginContext("meter-compute", config, reactor, {IHypervisor: hypervisor, IHealth: Nobody()})
    sections = {"pollsters": config.pollsters, "listeners": config.listeners}
    configured = configure(find(), sections, [] if options.subCommand == "try" else config.plugins.disable)
    pollsters = [each for each in configured.decisions if each.kind in (COMPUTE, CENTRAL)]
    if options.subCommand == "try":
        pollsters = [each for each in pollsters if fnmatchcase(each.name, sub["name"])]
        if not pollsters:
            raise CommandError(
                f"no pollster is called {sub['name']!r}: python -m meter.pollsters list shows those installed"
            )
    pollsters = await decide(pollsters, context, reactor)
    try:
        if options.subCommand == "list":
            return _said(report(pollsters))
        return await _tried(pollsters, context, sub["again"])
    finally:
        await hypervisor.stopService()


class Nobody:
    """The health of a daemon that depends on nothing."""

    def readinesses(self) -> Sequence[Any]:
        """Return nothing."""
        return ()


async def _tried(pollsters: Sequence[Decision], context: PluginContext, again: float | None) -> int:
    samples, troubles = await _polled(pollsters, Cycle(context))
    if again is not None:
        await sleep(context.clock, again)
        samples, troubles = await _polled(pollsters, Cycle(context))
    _said(table(samples))
    for trouble in troubles:
        sys.stderr.write(f"{escape_terminal(trouble)}\n")
    return EXIT_FOUND_PROBLEMS if troubles else DONE


async def _polled(pollsters: Iterable[Decision], cycle: Cycle) -> tuple[list[Sample], list[str]]:
    samples: list[Sample] = []
    troubles = []
    for each in pollsters:
        if each.state != "active":
            troubles.append(f"{each.name} is {each.state}: {each.reason}")
            continue
        try:
            samples += await each.plugin.poll(cycle)
        except Unavailable as error:
            troubles.append(f"{each.name}: {error}")
        except Exception as error:
            troubles.append(f"{each.name} failed: {type(error).__name__}: {error}")
    return samples, troubles


def table(samples: Iterable[Sample]) -> str:
    """Return samples as lines for people, a column per field."""
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


def _said(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    return DONE
