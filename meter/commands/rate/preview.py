"""``meter-rate preview``: the statements of a period as far as it is rated, with a forecast."""

from __future__ import annotations

from typing import Any

from twisted.python import usage

from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.rate.statement_services import exclusively
from meter.commands.rate.statement_services import previews
from meter.commands.rate.statement_services import refresh
from meter.commands.rate.statement_services import terminal_progress
from meter.commands.rate.statement_text import statement_lines
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.interfaces import RequestError
from meter.rating.statements.preview import StatementPreview
from meter.rating.statements.statement import builtins


class PreviewOptions(RateOptions):
    """The options of ``preview``."""

    synopsis = "[--account ID | --project ID] [--period YYYY-MM] [--rated] [--json]"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["account", "a", None, "Only this account. [default: all]"],
        ["project", "p", None, "Only the account of this project."],
        ["period", None, None, "Another period than the present one, such as 2026-11."],
    ]
    optFlags = [["rated", None, "Show what is rated already, and rate nothing."]]  # noqa: N815, RUF012

    def parseArgs(self) -> None:
        """Take no arguments."""

    def postOptions(self) -> None:
        """Check what excludes each other."""
        if self["account"] is not None and self["project"] is not None:
            raise usage.UsageError("give --account or --project, not both: a statement is one of an account")


async def work(context: RateContext, options: Any) -> int:
    """Write the previews; return the exit status."""
    directory, now, period = context.prices(), context.now(), options["period"]
    output = Output(bool(options["json"]))
    async with context.store() as store:
        try:
            service = previews(store, directory, context.config.rating.correct_periods)
            account = options["account"]
            if options["project"] is not None:
                account = (await service.account_of(options["project"], now)).id
            if not options["rated"]:
                progress = terminal_progress()

                async def rate_days() -> None:
                    await refresh(store, directory, period, now, progress)
                    await service.refresh_closed(account, now, period)

                await exclusively(context.reactor, store, rate_days, progress)
            if account is not None:
                await service.require_known(account, now, period)
            found = (
                await service.previews(now, period)
                if account is None
                else [await service.preview(account, now, period)]
            )
        except (ValueError, RequestError) as error:
            raise CommandError(str(error)) from error
    for each in found:
        output.write([preview_json(each)], [*preview_lines(each), ""])
    if not found:
        output.write(
            [], [f"nothing to bill that is not closed in {period or 'the present period'}; closed: meter-rate list"]
        )
    return EXIT_OK


def preview_json(preview: StatementPreview) -> dict[str, Any]:
    """Return a preview for JSON."""
    forecast = preview.forecast
    return {
        "statement": builtins(preview.statement),
        "forecast": {"net": f"{forecast.net:f}", "tax": f"{forecast.tax:f}", "total": f"{forecast.total:f}"},
    }


def preview_lines(preview: StatementPreview) -> list[str]:
    """Return a preview as text."""
    forecast = f"forecast of the period: {preview.forecast.total:f} {preview.statement.currency}"
    return [*statement_lines(preview.statement), forecast]
