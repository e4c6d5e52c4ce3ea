"""The subcommands of ``meter-db`` that void samples, restore them and list them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from meter.store import Selection
from meter.store import UnexpectedCount
from meter.store import Voiding
from meter.store import WeekIsArchived

SELECTION = [
    ["meter", "m", None, "Only samples of this meter."],
    ["resource", "r", None, "Only samples of this resource."],
    ["project", "p", None, "Only samples of this project."],
    ["user", None, None, "Only samples of this user."],
    ["source", None, None, "Only samples of this source."],
    [
        "key",
        None,
        None,
        "Only samples that the signing key with this id has signed, by the id that was stored with them.",
    ],
    ["start", None, None, "Only samples with this timestamp, such as 2026-11-01 (UTC), or a later one."],
    ["end", None, None, "Only samples with an earlier timestamp."],
    ["expect", None, None, "Change nothing unless exactly this number of samples is selected.", int],
]


class VoidOptions(SubcommandOptions):
    """The options of ``void``."""

    synopsis = "[MESSAGE_ID …] --reason TEXT"
    optParameters = [*SELECTION, REASON, WHO]  # noqa: N815, RUF012  # Twisted reads it so
    optFlags = [  # noqa: N815, RUF012
        ["dry-run", None, "Only count the samples that would be changed."],
        ["json", None, "Write one JSON object."],
    ]

    def parseArgs(self, *ids: str) -> None:
        """Take message ids."""
        self["ids"] = ids


class UnvoidOptions(VoidOptions):
    """The options of ``unvoid``."""

    optParameters = [  # noqa: N815, RUF012
        ["entry", None, None, "Only samples that were voided under this entry of the audit log.", int],
    ]


class VoidedOptions(SubcommandOptions):
    """The options of ``voided``."""

    optParameters = [["limit", "n", 100, "Maximum number of samples to list.", int]]  # noqa: N815, RUF012
    optFlags = [["json", None, "Write one JSON object."]]  # noqa: N815, RUF012


class FinalizeOptions(SubcommandOptions):
    """The options of ``finalize``."""

    optParameters = [  # noqa: N815, RUF012
        ["until", None, None, "Finalize the hours and days that ended before this time. [default: now]"],
        REASON,
        WHO,
    ]
    optFlags = [["json", None, "Write one JSON object."]]  # noqa: N815, RUF012


async def change(
    administration: Administration, config: Config, command: str, options: Mapping[str, Any]
) -> tuple[dict[str, Any], int]:
    """Run ``void`` or ``unvoid``; return the report and the exit status, 1 if a named sample is left as it is."""
    selection = Selection(
        ids=tuple(dict.fromkeys(options["ids"])),
        meter=options["meter"],
        resource_id=options["resource"],
        project_id=options["project"],
        user_id=options["user"],
        source=options["source"],
        key_id=options["key"],
        start=time_option(options, "start"),
        end=time_option(options, "end"),
        audit_seq=options.get("entry"),
    )
    if not selection.names_samples:
        raise CommandError(f"{command}: name samples by their ids, or by meter, resource, project, user, source or key")
    dry_run = bool(options["dry-run"])
    acting = act(config, options, needs_reason=not dry_run, expected=options["expect"], dry_run=dry_run)
    try:
        work = administration.void if command == "void" else administration.unvoid
        outcome = await work(selection, acting)
    except (UnexpectedCount, WeekIsArchived) as error:
        raise CommandError(str(error)) from error
    return _report(command, outcome, dry_run), EXIT_FOUND_PROBLEMS if outcome.problems else EXIT_OK


def _report(command: str, outcome: Voiding, dry_run: bool) -> dict[str, Any]:
    done = {"void": "voided", "unvoid": "restored"}[command]
    report: dict[str, Any] = {
        f"would_be_{done}" if dry_run else done: outcome.samples,
        "first": outcome.first and outcome.first.isoformat(),
        "last": outcome.last and outcome.last.isoformat(),
    }
    if outcome.entry is not None:
        report["audit_entry"] = f"{outcome.entry.seq}:{outcome.entry.hash}"
    if outcome.meters:
        report["meters"] = [each._asdict() for each in outcome.meters]
    if outcome.problems:
        report["left_as_they_are"] = [{"message_id": id, "problem": problem} for id, problem in outcome.problems]
    return report
