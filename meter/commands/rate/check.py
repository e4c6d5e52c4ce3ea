"""``meter-rate check``: everything that is wrong with a price directory, with file and line."""

from __future__ import annotations

from typing import Any

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.doctor.configuration import configured_plugins
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.counts import counted
from meter.rating.book.book_problem import BookProblem
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_directory import check_directory
from meter.sample import MeterDefinition
from meter.settings.config_file import SINGLE
from meter.settings.config_file import parse


class CheckOptions(RateOptions):
    """The options of ``check``."""

    synopsis = "[--prices DIRECTORY] [--json]"

    def parseArgs(self) -> None:
        """Take no arguments."""


async def work(context: RateContext, options: Any) -> int:
    """Write what is wrong, or what the directory has; return the exit status. A warning alone is no problem."""
    checked = check_directory(context.price_directory(), context.webhooks(), declared_meters(context))
    objects: list[Any] = [problem_json(each) for each in checked.problems]
    lines = [str(each) for each in checked.problems]
    if checked.directory is not None:
        objects += summary_json(checked.directory)
        lines += summary_lines(checked.directory)
    Output(bool(options["json"])).write(objects, lines)
    return EXIT_OK if checked.directory is not None else EXIT_FOUND_PROBLEMS


def declared_meters(context: RateContext) -> dict[str, MeterDefinition]:
    """Return the meters of all plugins and definitions of this host, by name."""
    config = parse("", SINGLE, "built-in defaults") if context.has_only_prices else context.config
    configured, _ = configured_plugins(config)
    plugins = [decision.plugin for decision in configured.decisions if decision.plugin is not None]
    return {meter.name: meter for plugin in plugins for meter in plugin.meters}


def problem_json(problem: BookProblem) -> dict[str, Any]:
    """Return a problem for JSON; ``line`` is 0 if the file as a whole is meant."""
    level = "warning" if problem.warning else "error"
    return {"level": level, "file": problem.file, "line": problem.line, "text": problem.text}


def summary_json(directory: PriceDirectory) -> list[dict[str, Any]]:
    """Return each book for JSON."""
    return [
        {
            "book": book.name,
            "currency": book.currency,
            "timezone": book.timezone.key,
            "default": book.default,
            "sha256": book.sha256,
            "skus": len(book.skus),
            "prices": len(book.prices),
            "accounts": sum(account.book == book.name for account in directory.accounts.values()),
        }
        for book in directory.books.values()
    ]


def summary_lines(directory: PriceDirectory) -> list[str]:
    """Return a line for each book."""
    return [
        f"book {each['book']}: {each['currency']}, {each['timezone']}, {counted(each['skus'], 'SKU')}, {counted(each['prices'], 'price')},"
        f" {counted(each['accounts'], 'account')}{', default' if each['default'] else ''}, sha256 {each['sha256']}"
        for each in summary_json(directory)
    ]
