"""``meter-rate diff``: what a period would have cost by another price book; nothing is changed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.python import usage

from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.rate.statement_text import table
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.interfaces import RequestError
from meter.rating.book.book_problem import PriceBookError
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_directory import read_directory
from meter.rating.statements.book_comparison import BookComparison
from meter.rating.statements.book_comparison import ProjectDifference
from meter.rating.statements.book_comparison import totals


class DiffOptions(RateOptions):
    """The options of ``diff``."""

    synopsis = "--book FILE|DIRECTORY --period YYYY-MM [--json]"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["book", "b", None, "The other prices: a directory, or one file that has all."],
        ["period", None, None, "The period, open or closed, such as 2026-10."],
    ]

    def parseArgs(self) -> None:
        """Take no arguments."""

    def postOptions(self) -> None:
        """Require both."""
        for name in ("book", "period"):
            if self[name] is None:
                raise usage.UsageError(f"give --{name}")


async def work(context: RateContext, options: Any) -> int:
    """Write a line for each project; return the exit status."""
    other = _directory(Path(options["book"]))
    async with context.store() as store:
        comparison = BookComparison(store.rating, store, context.prices(), other)
        try:
            found = await comparison.compare(options["period"], context.now())
        except (ValueError, RequestError) as error:
            raise CommandError(str(error)) from error
    lines = [*table([difference_row(each) for each in found])]
    for currency, (old, new) in sorted(totals(found).items()):
        lines.append(f"total {currency}: old {old:f}  new {new:f}  difference {new - old:f}")
    Output(bool(options["json"])).write([difference_json(each) for each in found], lines)
    return EXIT_OK


def _directory(path: Path) -> PriceDirectory:
    """Return the prices in a directory, or in one file, which is read as the only one of a directory."""
    try:
        if not path.is_file():
            return read_directory(path)
        with tempfile.TemporaryDirectory() as alone:
            (Path(alone) / "book.toml").symlink_to(path.resolve())
            return read_directory(Path(alone))
    except PriceBookError as error:
        raise CommandError(f"{path} cannot be used:\n{error}") from error


def difference_row(each: ProjectDifference) -> tuple[Any, ...]:
    """Return the columns of a difference."""
    name = each.project_name if each.project_name != each.project_id else ""
    whose = f"{each.project_id} {name}".strip() or f"account {each.account_id}"
    notes = [note for note, said in (("as closed", each.closed), ("UNPRICED usage", each.unpriced)) if said]
    currencies = each.currency if each.currency == each.new_currency else f"{each.currency}, {each.new_currency}"
    return whose, "old", each.old, "new", each.new, "difference", each.difference, currencies, ", ".join(notes)


def difference_json(each: ProjectDifference) -> dict[str, Any]:
    """Return a difference for JSON."""
    amounts = {"old": each.old, "new": each.new, "difference": each.difference}
    return {
        "account": each.account_id,
        "project": each.project_id,
        "project_name": each.project_name,
        "currency": each.currency,
        "new_currency": each.new_currency,
        **{name: None if amount is None else f"{amount:f}" for name, amount in amounts.items()},
        "closed": each.closed,
        "unpriced": each.unpriced,
    }
