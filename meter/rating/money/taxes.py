"""Taxes: one line for each category, on the sum of its net amounts."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from decimal import Decimal

from meter.rating.book.price_book import PriceBook
from meter.rating.currency import rounded
from meter.rating.exact import EXACT
from meter.rating.exact import plain
from meter.rating.money.descriptions import number
from meter.rating.money.line_keys import line_key
from meter.rating.money.rated import RatedLine
from meter.rating.money.tiers import ZERO
from meter.rating.period import BillingPeriod


def tax_category_of(line: RatedLine, book: PriceBook, period: BillingPeriod) -> str | None:
    """Return the category by which ``line`` is taxed: its own, or that of the tax that is the default on the first day of ``period``."""
    if line.tax_category:
        return line.tax_category
    defaults = (each for each in book.taxes if each.default and each.validity.covers(period.first))
    return next((each.category for each in defaults), None)


def tax_lines(book: PriceBook, period: BillingPeriod, lines: Sequence[RatedLine]) -> Iterator[RatedLine]:
    """Yield the taxes that are valid on the first day of ``period`` and have net lines, with their percentage of the sum of these.

    Lines of a category without a valid tax are not taxed.
    """
    bases: dict[str, Decimal] = {}
    for line in lines:
        category = tax_category_of(line, book, period)
        if category is not None:
            bases[category] = EXACT.add(bases.get(category, ZERO), line.amount)
    valid = [each for each in book.taxes if each.validity.covers(period.first) and each.category in bases]
    for tax in sorted(valid, key=lambda each: (each.category, each.name)):
        basis = bases[tax.category]
        exact = plain(EXACT.multiply(basis, tax.percent).scaleb(-2, EXACT))
        yield RatedLine(
            kind="tax",
            key=line_key("tax", tax.category, tax.name),
            project_id="",
            description=f"{tax.name or tax.category}: {number(tax.percent)} % of {basis} {book.currency}",
            first=period.first,
            until=period.until,
            exact_amount=exact,
            amount=rounded(exact, book.currency),
            list_amount=exact,
            tax_category=tax.category,
        )
