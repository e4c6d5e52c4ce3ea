"""``meter-rate quote``: what resources would cost in a month."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.rating.book.book_problem import suggestion
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.values import not_negative_decimal
from meter.rating.money.rated import Rated
from meter.rating.period import BillingPeriod
from meter.rating.quote import ANYBODY
from meter.rating.quote import Wish
from meter.rating.quote import quote

NUMBERS = ("hours", "size", "quantity")


class QuoteOptions(RateOptions):
    """The options of ``quote``."""

    synopsis = "SKU[,NAME=VALUE...]... | --sku SKU [--flavor NAME] [--size SIZE] [--hours HOURS]"
    longdesc = (
        "Each SKU can have count=, hours=, size=, quantity=, and values on which its prices depend, such as flavor=: "
        "instance,flavor=m1.small,count=3,hours=720 volume,size=100. Without hours the resource exists all the month. "
        "Exit status 1 if the book has no price for something."
    )
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["sku", None, None, "One SKU, instead of arguments."],
        ["flavor", None, None, "Flavor of the resources of --sku."],
        ["size", None, None, "Size of each resource of --sku, in the unit of its kind."],
        ["hours", None, None, "Hours of the month in which they exist. [default: all]"],
        ["count", None, None, "Number of resources of --sku. [default: 1]"],
        ["quantity", None, None, "Quantity of usage without duration, such as traffic, in the unit of --sku."],
        ["month", "m", None, "Month whose prices apply, such as 2026-11. [default: the present month]"],
        ["project", "p", None, "Use the prices of this project and of its account. [default: those for everybody]"],
        ["account", "a", None, "Use the prices of this account."],
        ["domain", "d", None, "Domain of the project: domains are not looked up."],
        ["book", "b", None, "Price book. [default: that of the account, or the default book]"],
    ]

    def parseArgs(self, *wishes: str) -> None:
        """Take the wishes."""
        self["wishes"] = wishes

    def postOptions(self) -> None:
        """Require wishes, in one of the two forms."""
        single = [name for name in ("flavor", "size", "hours", "count", "quantity") if self[name] is not None]
        if self["sku"] is None and single:
            raise usage.UsageError(f"quote: --{single[0]} needs --sku; an argument has it as in SKU,{single[0]}=...")
        if (self["sku"] is None) == (not self["wishes"]):
            raise usage.UsageError("quote: give either SKU[,NAME=VALUE...] or --sku")


async def work(context: RateContext, options: Any) -> int:
    """Write what the wishes cost; return the exit status."""
    directory = context.prices()
    book, account = book_and_account(directory, options, context)
    name = options["month"]
    try:
        period = (
            BillingPeriod.named(name, book.timezone) if name else BillingPeriod.containing(context.now(), book.timezone)
        )
        rated = quote(
            book,
            wishes_of(options),
            period,
            project=options["project"] or ANYBODY,
            account=account,
            domain=options["domain"],
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    Output(bool(options["json"])).write(quote_json(rated, book, period), quote_lines(rated, book, period))
    return EXIT_FOUND_PROBLEMS if rated.unpriced else EXIT_OK


def book_and_account(directory: PriceDirectory, options: Any, context: RateContext) -> tuple[PriceBook, Account | None]:
    """Return the book by which to price, and the account if one is stated or has the stated project in the stated month.

    It is the account of today in the present month, and that of the first day in any other.
    """
    account = None
    if options["account"] is not None:
        account = directory.accounts.get(options["account"])
        if account is None:
            known = suggestion(options["account"], list(directory.accounts))
            raise CommandError(f"unknown account {options['account']!r}{known}")
    elif options["project"] is not None:
        account = directory.account_of(options["project"], options["domain"], _day(directory, options, context))
    name = options["book"] or (account.book if account is not None else directory.default_book)
    if name not in directory.books:
        raise CommandError(f"unknown book {name!r}{suggestion(name, list(directory.books))}")
    return directory.books[name], account


def _day(directory: PriceDirectory, options: Any, context: RateContext) -> date:
    zone = directory.books[directory.default_book].timezone
    today = context.now().astimezone(zone).date()
    if options["month"] is None:
        return today
    try:
        period = BillingPeriod.named(options["month"], zone)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return today if period.first <= today < period.until else period.first


def wishes_of(options: Any) -> list[Wish]:
    """Return the wishes of the command line; :class:`CommandError` if one is none."""
    if options["sku"] is None:
        return [_wish(text) for text in options["wishes"]]
    given = {name: options[name] for name in ("flavor", "size", "hours", "count", "quantity")}
    return [_wish_of(options["sku"], {name: value for name, value in given.items() if value is not None})]


def _wish(text: str) -> Wish:
    sku, *pairs = text.split(",")
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"{text!r}: write NAME=VALUE instead of {pair!r}")
        if name in values:
            raise CommandError(f"{text!r}: {name} stands twice")
        values[name] = value
    return _wish_of(sku, values)


def _wish_of(sku: str, given: Mapping[str, str]) -> Wish:
    numbers = {name: _number(sku, name, given[name]) for name in NUMBERS if name in given}
    count = given.get("count", "1")
    if not (count.isascii() and count.isdecimal()):
        raise CommandError(f"{sku}: count must be a whole number, not {count!r}")
    values = {name: value for name, value in given.items() if name not in (*NUMBERS, "count")}
    return Wish(sku=sku, values=values, count=int(count[:9]), **numbers)


def _number(sku: str, name: str, text: str) -> Decimal:
    try:
        return not_negative_decimal(text)
    except ValueError as error:
        raise CommandError(f"{sku}: {name} {error}") from error


def quote_json(rated: Rated, book: PriceBook, period: BillingPeriod) -> list[dict[str, Any]]:
    """Return the lines, what has no price, and the total for JSON; decimals are texts."""
    lines: list[dict[str, Any]] = [
        {
            "kind": each.kind,
            "sku": each.sku,
            "price": each.price_id,
            "tier": each.tier,
            "description": each.description,
            "quantity": _text(each.quantity),
            "unit": each.unit,
            "unit_price": _text(each.unit_price),
            "list_unit_price": _text(each.list_unit_price),
            "amount": _text(each.amount),
        }
        for each in rated.lines
    ]
    lines += [
        {"kind": "unpriced", "sku": each.sku, "values": dict(each.values), "quantity": _text(each.quantity)}
        for each in rated.unpriced
    ]
    total = {"net": _text(rated.net), "tax": _text(rated.tax), "total": _text(rated.total)}
    return [*lines, {"kind": "total", "book": book.name, "month": period.name, "currency": book.currency, **total}]


def quote_lines(rated: Rated, book: PriceBook, period: BillingPeriod) -> list[str]:
    """Return the lines, what has no price, and the total as text."""
    width = max((len(each.description) for each in rated.lines), default=0)
    lines = [f"{each.description.ljust(width)}  {each.amount} {book.currency}" for each in rated.lines]
    for each in rated.unpriced:
        values = "".join(f" {name}={value}" for name, value in sorted(each.values.items()))
        lines.append(f"no price: {each.sku}{values}, {each.quantity} {each.unit}")
    tax = f" with {rated.tax} {book.currency} tax" if rated.tax else ""
    return [*lines, f"total of {period.name} by the book {book.name}: {rated.total} {book.currency}{tax}"]


def _text(value: Decimal | None) -> str | None:
    return None if value is None else f"{value:f}"
