"""``meter-rate list``: the closed statements."""

from __future__ import annotations

from typing import Any

from twisted.python import usage

from meter.commands.command import EXIT_OK
from meter.commands.rate.statement_text import table
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.rating.statements.statement_store import StatementSummary
from meter.sample import utc_text


class ClosedListOptions(RateOptions):
    """The options of ``list``."""

    synopsis = "[--account ID] [--project ID] [--period YYYY-MM] [--limit NUMBER] [--json]"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["account", "a", None, "Only statements of this account."],
        ["project", "p", None, "Only statements with this project."],
        ["period", None, None, "Only statements of this period, such as 2026-11."],
        ["limit", None, "1000", "Maximum number of statements, the newest first."],
    ]

    def parseArgs(self) -> None:
        """Take no arguments."""

    def postOptions(self) -> None:
        """Check the limit."""
        if not self["limit"].isascii() or not self["limit"].isdecimal() or not int(self["limit"][:9]) > 0:
            raise usage.UsageError(f"--limit must be a positive number, not {self['limit']}")
        self["limit"] = int(self["limit"][:9])


async def work(context: RateContext, options: Any) -> int:
    """Write the statements; return the exit status."""
    projects = None if options["project"] is None else [options["project"]]
    async with context.store() as store:
        found = await store.rating.statements.summaries(
            options["account"], projects, options["period"], options["limit"]
        )
    lines = table(
        [
            (
                each.statement_id,
                each.account_name,
                each.total.rjust(12),
                each.currency,
                utc_text(each.closed_at),
                each.closed_by,
            )
            for each in found
        ]
    )
    Output(bool(options["json"])).write([summary_json(each) for each in found], lines)
    return EXIT_OK


def summary_json(summary: StatementSummary) -> dict[str, Any]:
    """Return a statement for JSON."""
    return {
        "statement_id": summary.statement_id,
        "account": summary.account_id,
        "account_name": summary.account_name,
        "period": summary.period,
        "currency": summary.currency,
        "total": summary.total,
        "closed_at": utc_text(summary.closed_at),
        "closed_by": summary.closed_by,
        "projects": list(summary.projects),
    }
