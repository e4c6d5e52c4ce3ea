"""The subcommand of ``meter-db`` that ends what an agent measures which will not report again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import SubcommandOptions
from meter.commands.command import time_option
from meter.commands.operator import REASON
from meter.commands.operator import WHO
from meter.commands.operator import act
from meter.settings import Config
from meter.store import Administration
from meter.store import NotRetirable


class RetireAgentOptions(SubcommandOptions):
    """The options of ``retire-agent``."""

    synopsis = "--reason TEXT AGENT"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["until", None, None, "Expect samples before this time, after its last cycle. [default: until its last cycle]"],
        REASON,
        WHO,
    ]
    optFlags = [  # noqa: N815, RUF012
        ["dry-run", None, "Only count what would end."],
        ["json", None, "Write one JSON object."],
    ]

    def parseArgs(self, *agents: str) -> None:
        """Take the name of the agent."""
        if len(agents) != 1:
            raise usage.UsageError(
                "retire-agent: give the name of one agent, such as meter-compute@hv1, after all options"
            )
        self["agent"] = agents[0]


async def retire_agent(
    administration: Administration, config: Config, options: Mapping[str, Any]
) -> tuple[dict[str, Any], int]:
    """Run ``retire-agent``; return the report and the exit status, 1 if the agent measured nothing."""
    dry_run = bool(options["dry-run"])
    acting = act(config, options, needs_reason=not dry_run, dry_run=dry_run)
    try:
        outcome = await administration.retire_agent(options["agent"], time_option(options, "until"), acting)
    except NotRetirable as error:
        raise CommandError(f"retire-agent: {error}") from error
    report: dict[str, Any] = {
        "agent": options["agent"],
        "would_end_resources" if dry_run else "ended_resources": outcome.resources,
        "last_cycle": outcome.last_cycle and outcome.last_cycle.isoformat(),
        "until": outcome.until and outcome.until.isoformat(),
    }
    if outcome.entry is not None:
        report["audit_entry"] = f"{outcome.entry.seq}:{outcome.entry.hash}"
    return report, EXIT_OK if outcome.resources else EXIT_FOUND_PROBLEMS
