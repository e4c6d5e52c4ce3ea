"""Rating: from the usage of an account and period to the lines of its statement. docs/statements-amounts.rst has the formulas."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_index import price_of as find_price
from meter.rating.currency import rounded
from meter.rating.exact import EXACT
from meter.rating.exact import total_of
from meter.rating.money.account_projects import AccountProjects
from meter.rating.money.account_projects import DomainOf
from meter.rating.money.account_projects import no_domain
from meter.rating.money.charges import discount_lines
from meter.rating.money.charges import fixed_lines
from meter.rating.money.charges import minimum_lines
from meter.rating.money.credits import credit_lines
from meter.rating.money.priced_usage import Observe
from meter.rating.money.rated import Rated
from meter.rating.money.rated import RatedLine
from meter.rating.money.sku_usage import PriceOf
from meter.rating.money.taxes import tax_lines
from meter.rating.money.usage_lines import UsageLines
from meter.rating.period import BillingPeriod
from meter.rating.steps import Steps
from meter.rating.steps import at_once
from meter.rating.usage.sku_definition import values_order
from meter.rating.usage.usage_atom import UsageAtom


class Rating:
    """Rates the usage of an account and period, which is added one atom at a time.

    ``domain_of`` says to which domain a project belonged on a day; ``observe`` is called with the priced units of each day.
    """

    def __init__(
        self,
        directory: PriceDirectory,
        book: PriceBook,
        account: Account,
        period: BillingPeriod,
        *,
        domain_of: DomainOf = no_domain,
        price_of: PriceOf = find_price,
        observe: Observe | None = None,
    ) -> None:
        self.book = book
        self.period = period
        self._projects = AccountProjects(directory, account, domain_of)
        self._usage = UsageLines(book, period, self._projects, price_of, observe)

    def begin(self, sku: str, day: date) -> Steps[None]:
        """End the usage before that of a SKU and day; :meth:`add` does it by itself, but at once.

        :raises ValueError: the SKU is not in the book, or the order is wrong.
        """
        return self._usage.begin(sku, day)

    def add(self, atom: UsageAtom) -> None:
        """Add usage, in the order of SKU and day; usage of projects that belong to another account on the day is ignored.

        :raises ValueError: the SKU is not in the book, the day not in the period, or the order is wrong.
        """
        self._usage.add(atom)

    def result(
        self, *, corrections: Sequence[RatedLine] = (), credits_used: Mapping[str, Decimal] | None = None
    ) -> Rated:
        """End the usage and return the lines in their order.

        :param corrections: lines of earlier periods, as :func:`meter.rating.money.corrections.correction_lines` makes them
        :param credits_used: how much of each credit, by its id, earlier statements used
        """
        return at_once(self.results(corrections=corrections, credits_used=credits_used))

    def results(
        self, *, corrections: Sequence[RatedLine] = (), credits_used: Mapping[str, Decimal] | None = None
    ) -> Steps[Rated]:
        """Do what :meth:`result` does, in steps."""
        yield from self._usage.finish()
        book, period, projects = self.book, self.period, self._projects
        lines = list(self._usage.lines)
        yield from _collect(lines, fixed_lines(book, period, projects))
        yield from _collect(lines, discount_lines(book, period, self._usage.lines, self._usage.discounted))
        yield from _collect(lines, minimum_lines(book, period, projects, tuple(lines)))
        lines += corrections
        yield from _collect(lines, credit_lines(book, period, projects, tuple(lines), credits_used or {}))
        taxes: list[RatedLine] = []
        yield from _collect(taxes, tax_lines(book, period, lines))
        # With the digits of the currency also if there are no lines: 0.00.
        net, tax = (rounded(total_of(line.amount for line in each), book.currency) for each in (lines, taxes))
        return Rated(
            lines=(*lines, *taxes),
            unpriced=self._usage.unpriced,
            unmetered=self._usage.unmetered,
            net=net,
            tax=tax,
            total=EXACT.add(net, tax),
        )


def _collect(lines: list[RatedLine], more: Iterable[RatedLine]) -> Steps[None]:
    for line in more:
        lines.append(line)
        yield


def rate(
    directory: PriceDirectory,
    book: PriceBook,
    account: Account,
    period: BillingPeriod,
    usage: Iterable[UsageAtom],
    *,
    domain_of: DomainOf = no_domain,
    corrections: Sequence[RatedLine] = (),
    credits_used: Mapping[str, Decimal] | None = None,
    price_of: PriceOf = find_price,
) -> Rated:
    """Return the lines of an account and period: what :class:`Rating` makes of ``usage``, in the order that it needs."""
    rating = Rating(directory, book, account, period, domain_of=domain_of, price_of=price_of)
    for atom in usage:
        rating.add(atom)
    return rating.result(corrections=corrections, credits_used=credits_used)


def in_order(usage: Iterable[UsageAtom]) -> list[UsageAtom]:
    """Return ``usage`` in the order of SKU, day, project, resource and values."""
    return sorted(
        usage, key=lambda each: (each.sku, each.day, each.project_id, each.resource_id, values_order(each.values))
    )
