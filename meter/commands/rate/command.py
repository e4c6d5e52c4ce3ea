"""The command line of ``meter-rate``."""

from __future__ import annotations

import sys
from typing import Any

from twisted.python import usage

from meter.commands.command import CommandOptions
from meter.commands.command import run
from meter.commands.rate import budgets
from meter.commands.rate import check
from meter.commands.rate import close
from meter.commands.rate import closed_list
from meter.commands.rate import diff
from meter.commands.rate import export
from meter.commands.rate import import_cloudkitty
from meter.commands.rate import keys
from meter.commands.rate import preview
from meter.commands.rate import quote
from meter.commands.rate import reproduce
from meter.commands.rate import verify
from meter.commands.rate import webhooks
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import Subcommand

SUBCOMMANDS: tuple[Subcommand, ...] = (
    Subcommand(
        "check", check.CheckOptions, "Say everything that is wrong with the price directory at once.", check.work
    ),
    Subcommand("quote", quote.QuoteOptions, "Say what resources would cost in a month.", quote.work),
    Subcommand("keys", keys.KeysOptions, "Make, list or rotate the keys that sign statements.", keys.work),
    Subcommand("preview", preview.PreviewOptions, "Show the statements of an open period.", preview.work),
    Subcommand("diff", diff.DiffOptions, "Show what a period would have cost by other prices.", diff.work),
    Subcommand("close", close.CloseOptions, "Close a period: sign its statements and store them for ever.", close.work),
    Subcommand("list", closed_list.ClosedListOptions, "List the closed statements.", closed_list.work),
    Subcommand("export", export.ExportOptions, "Write a statement as JSON, CSV, page or FOCUS data set.", export.work),
    Subcommand("verify", verify.StatementVerifyOptions, "Verify a statement, offline.", verify.work),
    Subcommand(
        "reproduce", reproduce.ReproduceOptions, "Compute a closed statement again, and compare.", reproduce.work
    ),
    Subcommand("budgets", budgets.BudgetOptions, "Show how much of each budget was used.", budgets.work),
    Subcommand(
        "import-cloudkitty",
        import_cloudkitty.ImportCloudkittyOptions,
        "Make a price book of the rules of CloudKitty's HashMap.",
        import_cloudkitty.work,
    ),
    Subcommand("webhooks", webhooks.WebhookOptions, "List webhooks that wait, retry or discard them.", webhooks.work),
)
"""All subcommands, in the order of a period's life; each stands in a module of its own."""


class Options(CommandOptions):
    """The options of ``meter-rate``."""

    synopsis = "Usage: meter-rate [--config FILE] [--prices DIRECTORY] SUBCOMMAND [--json] ..."
    longdesc = (
        "Exit status: 0 if all is well, 1 if the command found problems in what it checked, 2 if the database cannot be"
        " reached, 3 for a wrong command line or configuration."
    )
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["prices", None, None, "Price directory. [default: [rating] price_directory of the configuration]"]
    ]
    subCommands = [[each.name, None, each.options, each.description] for each in SUBCOMMANDS]  # noqa: N815, RUF012

    def postOptions(self) -> None:
        """Require a subcommand."""
        if self.subCommand is None:
            names = ", ".join(each.name for each in SUBCOMMANDS)
            raise usage.UsageError(f"give a subcommand: {names}")


def main() -> None:
    """Run ``meter-rate``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Run the subcommand; return its exit status."""
    chosen = options.subOptions
    subcommand = next(each for each in SUBCOMMANDS if each.name == options.subCommand)
    return await subcommand.work(RateContext(reactor, chosen.given("config"), chosen.given("prices")), chosen)
